"""A GRU over rows of unequal length that never meets their padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def unroll(gru: nn.GRU, x_BLD: Tensor, length_B: Tensor) -> Tensor:
    """States at the first `length_B` positions of each row, from a zero state.  [B, L, D], [B] -> [B, L, hidden]

    Every row must have one position or more. What follows a row's length is not to be read: on a CPU it is 0 and costs
    nothing; a GPU computes it, as packing would make it wait for the lengths.
    """
    if x_BLD.is_cuda:
        return gru(x_BLD)[0]
    packed = pack_padded_sequence(x_BLD, length_B, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=x_BLD.shape[1])[0]
