"""Training, resuming and ranking keep all tensors and generators on the device, seen without a GPU."""

from __future__ import annotations

import pytest
import torch

import baselines.sasrec as sasrec
from harness.negatives import NegativeSampler
from tests.contracts import battery
from tests.contracts.pretended_gpu import pretended_gpu
from tests.contracts.test_contracts import METHODS, toy

# One of each network; what a recipe changes moves no tensor to another device.
NETWORKS = [name for name, method in METHODS.items() if method.variant_of is None and not name.startswith("floor.")]
Compute, Evaluator = battery.Compute, battery.Evaluator
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU says it by itself: `pytest -m gpu`")


def walk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch) as device:
        monkeypatch.setattr(battery, "Compute", lambda: Compute(device))
        monkeypatch.setattr(battery, "Evaluator", lambda *args, **kwargs: Evaluator(*args, **kwargs, device=device))
        battery.check_state_round_trips(toy(name)[0])
        battery.check_evaluation_is_deterministic(toy(name)[0])


@pytest.mark.parametrize("name", [*NETWORKS, "gru4rec.tuned", "aligndiff.released"])
def test_everything_stays_on_the_device(name, monkeypatch):
    walk(name, monkeypatch)


def test_a_mask_on_the_cpu_is_noticed(monkeypatch):
    monkeypatch.setattr(sasrec, "causal_key_mask", lambda x: torch.ones(1, 1, *x.shape[1:2] * 2, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="a tensor of the CPU among those of cuda:0"):
        walk("sasrec", monkeypatch)


def test_a_generator_of_the_cpu_is_noticed(monkeypatch):
    def uniform(self, count, generator):
        return torch.randint(1, 5, (count,), generator=torch.Generator(), device=generator.device)

    monkeypatch.setattr(NegativeSampler, "_uniform", uniform)
    with pytest.raises(RuntimeError, match="a generator of cpu draws for cuda"):
        walk("sasrec", monkeypatch)


def test_an_array_of_what_a_gpu_holds_is_noticed(monkeypatch):
    monkeypatch.setattr(sasrec.SASRec, "end_epoch", lambda self, _: self.module.norm.weight.detach().numpy(), False)
    with pytest.raises(TypeError, match="no array"):
        walk("sasrec", monkeypatch)


def test_what_may_mix_and_what_may_not(monkeypatch):
    with pretended_gpu(monkeypatch) as device:
        there, here, index = torch.zeros(3, device=device), torch.ones(3), torch.tensor([0, 1, 2])
        there[index].cpu(), there.copy_(here), there + 1.5
        for mix in (lambda: there + here, lambda: here[index.to(device)], lambda: there.__setitem__(index, here)):
            with pytest.raises(RuntimeError, match="a tensor of the CPU among those of cuda:0"):
                mix()
