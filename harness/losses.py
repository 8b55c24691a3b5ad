"""Next-item losses over the whole catalogue, in chunks so that memory does not grow with it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOGIT_BYTES = 256 << 20  # logits above this size are made, used and thrown away chunk by chunk


def softmax_cross_entropy(query_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, padding: bool = False) -> Tensor:
    """Mean cross-entropy of inner-product scores over all items.  [N, D], [I, D], [N] -> scalar

    padding: whether row 0 is a class of the softmax, as it is in some released codes.
    """
    rows = max(1, LOGIT_BYTES // (4 * len(table_ID)))
    if len(query_ND) <= rows:
        return _dense(query_ND, table_ID, target_N, padding) / len(target_N)
    return _ChunkedCrossEntropy.apply(query_ND, table_ID, target_N, padding, rows) / len(target_N)


def _dense(query_ND: Tensor, table_ID: Tensor, target_N: Tensor, padding: bool) -> Tensor:
    """Summed cross-entropy from the whole score matrix; logits are fp32 whatever the products were."""
    if padding:
        return F.cross_entropy((query_ND @ table_ID.T).float(), target_N, reduction="sum")
    return F.cross_entropy((query_ND @ table_ID[1:].T).float(), target_N - 1, reduction="sum")


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The same sum over chunks of rows; gradients are made in the forward pass, so no chunk is kept."""

    @staticmethod
    def forward(ctx: Any, query_ND: Tensor, table_ID: Tensor, target_N: Tensor, padding: bool, rows: int) -> Tensor:
        total = query_ND.new_zeros((), dtype=torch.float32)
        grad_query = torch.empty_like(query_ND)
        grad_table = torch.zeros_like(table_ID)
        for query, target, grad in zip(query_ND.split(rows), target_N.split(rows), grad_query.split(rows), strict=True):
            with torch.enable_grad():
                q, t = query.detach().requires_grad_(), table_ID.detach().requires_grad_()
                loss = _dense(q, t, target, padding)
            grad_q, grad_t = torch.autograd.grad(loss, (q, t))
            total += loss.detach()
            grad.copy_(grad_q)
            grad_table += grad_t
        ctx.save_for_backward(grad_query, grad_table)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[override]
        grad_query, grad_table = ctx.saved_tensors
        return grad_query * grad_output, grad_table * grad_output, None, None, None


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """softplus(-positive) + softplus(negative), elementwise; safe for scores of any size."""
    return F.softplus(-positive) + F.softplus(negative)
