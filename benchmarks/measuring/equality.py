"""Whether the fast path and the reference's way are the same mathematics: fixed noise, dropout off, fp32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from baselines.diffurec import DiffuRec
from benchmarks.measuring.reference_way import ReferenceWay
from harness.compute import evaluation_mode
from harness.packing import Packing
from harness.windows import PrefixBatch

TOLERANCE = 1e-5


def relative(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def packed_from(normal_BLD: Tensor) -> Callable[[Packing], Tensor]:
    """One draw for all positions, of which each packing takes the tokens it has."""
    return lambda packing: normal_BLD[packing.row_N, normal_BLD.shape[1] - 1 - packing.age_N]


@contextlib.contextmanager
def given_noise(learner: Any, noise: Any) -> Iterator[None]:
    """Inside, a learner draws `noise` in a training step."""
    if not isinstance(learner, DiffuRec):
        with mock.patch.object(learner, "draw", lambda size: noise):
            yield
        return
    net, delta = learner.module, learner.config.delta

    def noisy(target_B: Tensor) -> Tensor:
        x_t_BD = learner.process.diffuse(net.items(target_B), noise.step_B, noise.target_BD)
        return x_t_BD + net.time_embedding(noise.step_B)

    with (
        mock.patch.object(learner, "_noisy_target", noisy),
        mock.patch.object(learner, "_lambda", lambda packing: delta + delta * noise.normal_for(packing)),
    ):
        yield


def differences(way: ReferenceWay, fast: PrefixBatch, padded: PrefixBatch) -> dict[str, float]:
    """Relative difference of loss and gradient of the same samples, once trimmed and once padded."""
    learner, size = way.learner, len(padded.target_B)
    normal_BLD = torch.randn(*padded.history_BL.shape, way.config.embedding_dim)
    noise = replace(way.draw(size), normal_for=packed_from(normal_BLD))
    with evaluation_mode(way.net), given_noise(learner, noise):
        found = [_loss_and_gradient(way.net, lambda: learner.loss(fast)["loss"])]
        found.append(_loss_and_gradient(way.net, lambda: way.loss(padded, noise)))
    (loss, gradient), (expected_loss, expected_gradient) = found
    return {"loss": relative(loss, expected_loss), "gradient": relative(gradient, expected_gradient)}


def _loss_and_gradient(net: torch.nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    net.zero_grad(set_to_none=True)
    loss = compute()
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    net.zero_grad(set_to_none=True)
    return loss.detach(), gradient
