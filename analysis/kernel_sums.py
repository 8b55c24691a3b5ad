"""Sums of Gaussian kernel values over labelled points, block by block: quadratic time, linear memory.

For signs z in {+1, -1} the three sums that MMD needs follow from two numbers, z'Kz and z'K1, and the total
1'K1. One product of a kernel block with all sign vectors therefore serves all relabellings at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    block: int = BLOCK,
) -> list[KernelSums]:
    """Return the sums for every sign vector, one result per bandwidth; the kernel is symmetric, half is visited.

    Blocks have the dtype of the points, their sums are accumulated in float64.
    """
    num_points, num_signs = sign_PN.shape[1], len(sign_PN)
    label_NL = np.concatenate([np.ones((1, num_points), sign_PN.dtype), sign_PN]).T
    points, labels = point_ND, np.ascontiguousarray(label_NL)
    half_norm = (points**2).sum(1) / 2
    quadratic = [np.zeros(num_signs + 1) for _ in bandwidths]  # 1'K1 first, then z'Kz
    linear = [np.zeros(num_signs + 1) for _ in bandwidths]  # 1'K1 again, then z'K1
    for start in range(0, num_points, block):
        rows = slice(start, start + block)
        for other in range(start, num_points, block):
            columns = slice(other, other + block)
            exponent = points[rows] @ points[columns].T  # becomes minus half the squared distance
            exponent -= half_norm[rows][:, None]
            exponent -= half_norm[columns]
            exponent = exponent.clip(max=0)
            for i, bandwidth in enumerate(bandwidths):
                product = np.exp(exponent * (1 / bandwidth**2)) @ labels[columns]
                weight = 1 if other == start else 2
                quadratic[i] += weight * (labels[rows] * product).sum(0, dtype=np.float64)
                linear[i] += (labels[rows] * product[:, :1]).sum(0, dtype=np.float64)
                if weight == 2:  # the mirrored block
                    linear[i] += product.sum(0, dtype=np.float64)
    return [_split(q, v) for q, v in zip(quadratic, linear, strict=True)]


def _split(quadratic: NDArray[np.float64], linear: NDArray[np.float64]) -> KernelSums:
    total, square, line = quadratic[0], quadratic[1:], linear[1:]
    return KernelSums(
        first=(total + square + 2 * line) / 4,
        second=(total + square - 2 * line) / 4,
        between=(total - square) / 4,
    )
