"""HR and NDCG from the rank of each user's single target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

MetricFn = Callable[[NDArray[np.integer], int], NDArray[np.float64]]
CUTOFFS: Final = (5, 10, 20)


def hit_rate(rank_U: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Per-user HR@k: 1 if the target is among the first k, else 0.  [U] -> [U], a fraction."""
    return (rank_U <= k).astype(np.float64)


def ndcg(rank_U: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Per-user NDCG@k with one relevant item: 1 / log2(rank + 1) if rank <= k, else 0.  [U] -> [U], a fraction.

    The ideal DCG is 1 here. Libraries that assume k relevant items (RecTools' default) print smaller figures
    under the same name.
    """
    return np.where(rank_U <= k, 1.0 / np.log2(rank_U + 1.0), 0.0)


METRICS: Final[dict[str, MetricFn]] = {"HR": hit_rate, "NDCG": ndcg}


def per_user(rank_U: NDArray[np.integer], metric: str) -> NDArray[np.float64]:
    """Per-user values of a metric named like "NDCG@10".  Raises ValueError on an unknown name."""
    name, _, k = metric.partition("@")
    if name not in METRICS or not k.isdigit() or int(k) < 1:
        raise ValueError(f"metric {metric!r}: expected one of {sorted(METRICS)} followed by @k, as in NDCG@10")
    return METRICS[name](rank_U, int(k))


def summarise(rank_U: NDArray[np.integer], cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """Mean over users of every metric at every cut-off, as fractions: {"HR@5": ..., "NDCG@5": ...}."""
    return {f"{name}@{k}": float(metric(rank_U, k).mean()) for k in cutoffs for name, metric in METRICS.items()}


def batch_mean(rank_U: NDArray[np.integer], metric: str, batch_size: int) -> float:
    """Mean of batch means in user order, as DiffuRec and the released AlignDiff report it.

    Users of a short last batch weigh too much; kept only to measure the size of that defect.
    """
    values = per_user(rank_U, metric)
    return float(np.mean([values[i : i + batch_size].mean() for i in range(0, len(values), batch_size)]))
