"""AlignDiff: gradient-semantic aligned diffusion for sequential recommendation, the method under audit.

Build with `build`; every choice is a field of `aligndiff.config.Config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligndiff.config import read_config
from aligndiff.learner import AlignDiffLearner
from harness.compute import Compute
from harness.split import TrainingView
from harness.streams import Streams


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> AlignDiffLearner:
    config = read_config(settings)
    streams.seed_global("init")
    return AlignDiffLearner(config, view, streams, compute)
