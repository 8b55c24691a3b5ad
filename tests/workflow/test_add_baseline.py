"""A student's eleventh baseline: the files that CONTRIBUTING.md lists are enough."""

from __future__ import annotations

import json
import textwrap

import pytest
import yaml

pytestmark = pytest.mark.slow  # Snakemake and a short training

MODULE = '''
"""MeanPool: the mean of the history's item vectors, against all items."""

from dataclasses import dataclass

import torch

from harness.learner import SingleLossLearner
from harness.losses import softmax_cross_entropy
from harness.settings import from_mapping
from harness.windows import PrefixSampler, ResidentSequences


@dataclass(frozen=True)
class Config:
    embedding_dim: int = 16  # ours
    max_len: int = 10  # ours


class MeanPool(SingleLossLearner):
    def __init__(self, config, view, streams, compute):
        table = torch.nn.Embedding(view.num_items + 1, config.embedding_dim, padding_idx=0)
        super().__init__(table, max_len=config.max_len, compute=compute, learning_rate=0.01)
        self.streams = streams
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler = PrefixSampler(data, max_len=config.max_len, batch_size=64)

    def batches(self):
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def pool(self, history_BL):
        return self.module(history_BL).sum(1) / (history_BL > 0).sum(1, keepdim=True)

    def loss(self, batch):
        return {"loss": softmax_cross_entropy(self.pool(batch.history_BL), self.module.weight, batch.target_B)}

    def score(self, history_BL, user_B, noise):
        return self.pool(history_BL) @ self.module.weight.T


def build(settings, view, streams, compute):
    config = from_mapping(Config, settings, where="meanpool")
    streams.seed_global("init")
    return MeanPool(config, view, streams, compute)
'''


def test_a_toy_baseline_runs_after_the_listed_steps(checkout, python_m):
    options = ("--configfile", "config/tiny.yaml", "--cores", "2", "--resources", "gpu=0")
    tiny = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())
    tiny["grid"] = [{"datasets": ["toy"], "methods": ["floor.markov"], "seeds": [1]}]
    tiny["overrides"] = {"all": {"training": {"max_epochs": 2}}}
    (checkout / "config" / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    assert python_m("snakemake", *options).returncode == 0

    (checkout / "baselines" / "meanpool.py").write_text(textwrap.dedent(MODULE))
    described = "builder: baselines.meanpool\ndisplay: MeanPool\nsummary: The mean of the history.\n"
    (checkout / "config" / "methods" / "meanpool.yaml").write_text(described)
    (checkout / "tests" / "contracts" / "toy" / "baselines.meanpool.yaml").write_text("chain: {at_least: 0}\n")
    tiny["grid"][0]["methods"].append("meanpool")
    (checkout / "config" / "tiny.yaml").write_text(yaml.safe_dump(tiny))

    plan = python_m("snakemake", "-n", *options)
    jobs = [line.split() for line in (plan.stdout + plan.stderr).splitlines()]
    assert ["train", "1"] in jobs, "only the new cell is trained"
    result = python_m("snakemake", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    record = json.loads((checkout / "results/tiny/runs/toy/meanpool/seed1/record.json").read_text())
    assert record["status"] == "completed"
    assert "MeanPool" in (checkout / "results/tiny/tables/table2.md").read_text()

    contracts = python_m("pytest", "-q", "tests/contracts", "-k", "meanpool")
    assert contracts.returncode == 0, contracts.stdout[-3000:]
