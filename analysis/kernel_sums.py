"""Sums of Gaussian kernel values over labelled points, block by block: quadratic time, linear memory.

For signs z in {+1, -1} the three sums that MMD needs follow from two numbers, z'Kz and z'K1, and the total
1'K1. One product of a kernel block with all sign vectors therefore serves all relabellings at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any  # numpy array or torch tensor: the block arithmetic below is spelled the same for both

BLOCK = 4096  # the two float32 blocks in flight take 128 MiB


@dataclass(frozen=True)
class KernelSums:
    """Kernel values summed within the points signed +1, within those signed -1, and between the two.

    Diagonals k(x, x) = 1 are included.  Shapes: [P] each, one entry per sign vector.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    between: NDArray[np.float64]


def kernel_sums(
    point_ND: NDArray[np.float32],
    sign_PN: NDArray[np.float32],
    bandwidths: Sequence[float],
    *,
    device: str | None = None,
    block: int = BLOCK,
) -> list[KernelSums]:
    """Return the sums for every sign vector, one result per bandwidth; the kernel is symmetric, half is visited.

    device: None for numpy, else a torch device such as "cuda". Blocks have the dtype of the points, their sums
    are accumulated in float64.
    """
    num_points, num_signs = sign_PN.shape[1], len(sign_PN)
    label_NL = np.concatenate([np.ones((1, num_points), sign_PN.dtype), sign_PN]).T
    points, labels, exp, double, zeros = _on_device(point_ND, np.ascontiguousarray(label_NL), device)
    half_norm = (points**2).sum(1) / 2
    quadratic = [zeros(num_signs + 1) for _ in bandwidths]  # 1'K1 first, then z'Kz
    linear = [zeros(num_signs + 1) for _ in bandwidths]  # 1'K1 again, then z'K1
    for start in range(0, num_points, block):
        rows = slice(start, start + block)
        for other in range(start, num_points, block):
            columns = slice(other, other + block)
            exponent = points[rows] @ points[columns].T  # becomes minus half the squared distance
            exponent -= half_norm[rows][:, None]
            exponent -= half_norm[columns]
            exponent = exponent.clip(max=0)
            for i, bandwidth in enumerate(bandwidths):
                product = exp(exponent * (1 / bandwidth**2)) @ labels[columns]
                weight = 1 if other == start else 2
                quadratic[i] += weight * (labels[rows] * product).sum(0, dtype=double)
                linear[i] += (labels[rows] * product[:, :1]).sum(0, dtype=double)
                if weight == 2:  # the mirrored block
                    linear[i] += product.sum(0, dtype=double)
    return [_split(np.asarray(_host(q)), np.asarray(_host(v))) for q, v in zip(quadratic, linear, strict=True)]


def _split(quadratic: NDArray[np.float64], linear: NDArray[np.float64]) -> KernelSums:
    total, square, line = quadratic[0], quadratic[1:], linear[1:]
    return KernelSums(
        first=(total + square + 2 * line) / 4,
        second=(total + square - 2 * line) / 4,
        between=(total - square) / 4,
    )


def _on_device(points: NDArray, labels: NDArray, device: str | None) -> tuple:
    if device is None:
        return points, labels, np.exp, np.float64, np.zeros
    import torch  # only here: the analysis runs without it

    def zeros(size: int) -> Array:
        return torch.zeros(size, dtype=torch.float64, device=device)

    return (
        torch.as_tensor(points, device=device),
        torch.as_tensor(labels, device=device),
        torch.exp,
        torch.float64,
        zeros,
    )


def _host(values: Array) -> Array:
    return values if isinstance(values, np.ndarray) else values.cpu()
