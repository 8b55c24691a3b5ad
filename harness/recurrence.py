"""A GRU over rows of unequal length that never meets their padding and is never computed in fp16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def recur(
    gru: nn.GRU, x: Tensor | PackedSequence, state: Tensor | None = None
) -> tuple[Tensor | PackedSequence, Tensor]:
    """gru(x, state), on a GPU in fp32.

    There autocast gives recurrences fp16 whatever type it was asked for (aten/src/ATen/cudnn/AutocastRNN.cpp), and
    fp16, in which small gradients are zero, would need a scaled loss.
    """
    data = x.data if isinstance(x, PackedSequence) else x
    if not data.is_cuda:
        return gru(x, state)
    with torch.autocast("cuda", enabled=False):
        whole = x._replace(data=data.float()) if isinstance(x, PackedSequence) else x.float()
        return gru(whole, None if state is None else state.float())


def unroll(gru: nn.GRU, x_BLD: Tensor, length_B: Tensor) -> Tensor:
    """States at the first `length_B` positions of each row, from a zero state.  [B, L, D], [B] -> [B, L, hidden]

    Every row must have one position or more. What follows a row's length is not to be read: on a CPU it is 0 and costs
    nothing; a GPU computes it, as packing would make it wait for the lengths.
    """
    if x_BLD.is_cuda:
        return recur(gru, x_BLD)[0]
    packed = pack_padded_sequence(x_BLD, length_B, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=x_BLD.shape[1])[0]
