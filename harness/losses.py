"""Next-item losses over the whole catalogue, in chunks so that memory does not grow with it."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

# Most memory for the scores of one chunk of rows: what stays in a CPU's cache, what fills a GPU.
CHUNK_BYTES: Final = {"cpu": 16 << 20, "cuda": 512 << 20}
# Rows of a chunk at least: each chunk reads the whole table and adds to all of its gradient, however few rows it has.
LEAST_ROWS: Final = 64


def softmax_cross_entropy(query_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, padding: bool = False) -> Tensor:
    """Mean cross-entropy of inner-product scores over all items.  [N, D], [I, D], [N] -> scalar

    padding: whether row 0 is a class of the softmax, as it is in some released codes.
    Gradients are made together with the loss, chunk by chunk, so the [N, I] scores never exist as a whole; scores
    and softmax are fp32 even where products are bf16.
    """
    return _ChunkedCrossEntropy.apply(query_ND, table_ID, target_N, padding) / len(target_N)


def cross_entropy_with_bias(
    query_ND: Tensor, table_ID: Tensor, bias_I: Tensor, target_N: Tensor, *, padding: bool = False
) -> Tensor:
    """The same of scores with a bias: a constant 1 beside the query carries it, so they stay one inner product."""
    query = F.pad(query_ND, (0, 1), value=1.0)
    return softmax_cross_entropy(query, torch.cat([table_ID, bias_I[:, None]], dim=1), target_N, padding=padding)


def plain_softmax_cross_entropy(
    query_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, padding: bool = False
) -> Tensor:
    """The same from one score matrix by torch's own function: the oracle of the chunked one."""
    first = 0 if padding else 1
    return F.cross_entropy((query_ND @ table_ID[first:].T).float(), target_N - first)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy; with p the softmax of a row of scores, d loss / d scores = p - one_hot(target)."""

    @staticmethod
    def forward(ctx: Any, query_ND: Tensor, table_ID: Tensor, target_N: Tensor, padding: bool) -> Tensor:
        budget = CHUNK_BYTES.get(query_ND.device.type, CHUNK_BYTES["cuda"])
        rows = max(LEAST_ROWS, budget // (4 * len(table_ID)))
        total = torch.zeros((), device=query_ND.device)
        grad_query = torch.empty_like(query_ND)
        grad_table = torch.zeros_like(table_ID)
        chunks = zip(query_ND.split(rows), target_N.split(rows), grad_query.split(rows), strict=True)
        table = table_ID.to(query_ND.dtype)
        for query, target, grad in chunks:
            score = (query @ table.T).float()
            if not padding:
                score[:, 0] = -torch.inf
            target = target[:, None]
            top = score.amax(1, keepdim=True)
            total += (top - score.gather(1, target)).sum()
            p = score.softmax(1)
            total -= p.amax(1).log().sum()  # the largest probability is 1 / sum(exp(score - top))
            p.scatter_add_(1, target, -torch.ones_like(top))
            p = p.to(query.dtype)
            grad.copy_(p @ table)
            if p.dtype == grad_table.dtype:
                grad_table.addmm_(p.T, query)  # no [I, D] product on the side
            else:
                grad_table += p.T @ query
        ctx.save_for_backward(grad_query, grad_table)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        grad_query, grad_table = ctx.saved_tensors
        return grad_query * grad_output, grad_table * grad_output, None, None


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """softplus(-positive) + softplus(negative), elementwise; safe for scores of any size."""
    return F.softplus(-positive) + F.softplus(negative)
