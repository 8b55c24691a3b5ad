"""A small grid of hand-made runs: what tests of loading, tables and report read."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from harness.methods import known_methods, load_method
from harness.metrics import summarise
from harness.record import RunRecord, write_ranks, write_record

# HR@5 = 2/4, HR@10 = 3/4; NDCG@5 = (1 + 1/2) / 4 = 0.375; rank 7 adds (1/3) / 4 from NDCG@10 on.
RANKS = (1, 3, 7, 50)


TRAINING = {"max_epochs": 200, "first_eval": 1, "eval_every": 1, "patience": 20, "eval_users": None}
KNOWN = frozenset(known_methods())


@dataclass(frozen=True)
class Grid:
    """Writes runs, plan and statistics below one folder."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def write(
        self, method="sasrec", seed=1, ranks=RANKS, *, hidden=None, dataset="beauty", history=None, **fields
    ) -> Path:
        run = self.runs / dataset / method / f"seed{seed}"
        status = fields.get("status", "completed")
        arrays = (
            {"test_kept": np.array(ranks), "test_hidden": np.array(hidden or ranks)} if status == "completed" else {}
        )
        values = {
            "display": method,
            "settings": {"model": {"dropout": 0.1}, "training": TRAINING} | fields.pop("settings", {}),
            "settings_sha256": "5" * 64,
            "data_sha256": "d" * 64,
            "code_digest": "c" * 64,
            "environment": {"device": "cpu", "torch": "2.13"},
            "status": status,
            "num_users": len(ranks),
            "best_epoch": 3,
            "epochs_run": 5,
            "train_seconds": 61.0,
            "finished": "2026-01-01T00:00:00+00:00",
            "metrics": {name: summarise(rank_U) for name, rank_U in arrays.items()},
        }
        digest = write_ranks(run / "ranks.npz", arrays)
        record = RunRecord(dataset=dataset, method=method, seed=seed, **(values | {"ranks_sha256": digest} | fields))
        write_record(record, run / "record.json")
        if history:
            (run / "history.csv").write_text(history, encoding="utf-8")
        return run / "record.json"

    def plan(self, planned, *, displays=None, sweeps=(), **fields) -> Path:
        """Plan cells given as (method, seed) on Beauty, or (method, seed, dataset)."""
        rows = [
            {
                "method": method,
                "seed": seed,
                "dataset": where[0] if where else "beauty",
                "display": (displays or {}).get(method, method),
                "variant_of": method.partition(".")[0] if "." in method else None,
                "weights_of": load_method(method).reuse_weights if method in KNOWN else None,
            }
            for method, seed, *where in planned
        ]
        values = {
            "name": "hand-made",
            "cells": rows,
            "sweeps": list(sweeps),
            "datasets": {"beauty": {"display": "Beauty"}},
            "cutoffs": [5, 10],
        }
        path = self.folder / "plan.json"
        path.write_text(json.dumps(values | fields), encoding="utf-8")
        return path


@pytest.fixture
def grid(tmp_path) -> Grid:
    return Grid(tmp_path)


@pytest.fixture(scope="session")
def grid_at():
    """Return the class, for grids that several tests share."""
    return Grid
