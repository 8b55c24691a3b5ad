"""Small learners for these tests."""

from __future__ import annotations

import torch

import aligndiff
from harness.compute import Compute
from harness.split import leave_one_out
from harness.streams import Streams
from harness.synthetic import chain

SIZES = {
    "embedding_dim": 16,
    "num_blocks": 2,
    "num_heads": 2,
    "guidance_heads": 2,
    "max_len": 12,
    "num_steps": 6,
    "batch_size": 32,
    "learning_rate": 0.01,
    "slices": 2,
}
STILL = {"dropout": 0.0, "embedding_dropout": 0.0, "energy_dropout": 0.0}


def split():
    return leave_one_out(chain(num_users=40, num_items=20), dataset="toy")


def learner(seed=1, **settings):
    if settings.get("variant") == "released":
        settings = {"guidance_heads": 1} | settings
    streams = Streams(seed)
    made = aligndiff.build(SIZES | settings, split().training_view(), streams, Compute())
    streams.seed_global("dropout")
    return made


def batch(made):
    return made.sampler.batch(torch.arange(min(24, made.sampler.num_samples)))


def histories(made, count=5):
    user_B = torch.arange(count)
    return made.data.histories(user_B, made.max_len), user_B
