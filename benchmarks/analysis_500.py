"""Time the whole analysis of 500 generated run records: load, tables, statistics, figures, report.

python -m benchmarks.analysis_500            prints the figures, writes benchmarks/records/analysis_500.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import figures, report, tables
from harness.metrics import summarise
from harness.record import RunRecord, write_ranks, write_record, write_text_atomically

DATASETS = {"beauty": ("Beauty", 22363, 12101), "toys": ("Toys", 19412, 11924), "ml-1m": ("ML-1M", 6040, 3416)}
METHODS = {
    "popularity": "Popularity",
    "gru4rec": "GRU4Rec",
    "caser": "Caser",
    "sasrec": "SASRec",
    "sasrec.tuned": "SASRec, tuned",
    "bert4rec": "BERT4Rec",
    "comirec": "ComiRec",
    "svae": "SVAE",
    "acvae": "ACVAE",
    "stosa": "STOSA",
    "cadirec": "CaDiRec",
    "diffurec": "DiffuRec",
    "aligndiff": "AlignDiff",
    "aligndiff.released": "AlignDiff, released",
    **{f"aligndiff.{name}": f"AlignDiff {name}" for name in ("without_guidance", "without_energy", "energy_1")},
    **{f"aligndiff.{name}": f"AlignDiff {name}" for name in ("energy_6", "energy_transformer", "correction_2")},
    **{f"aligndiff.{name}": f"AlignDiff {name}" for name in ("correction_4", "correction_8", "gad_gp", "gad_adv")},
}
SWEEPS = {"omega": (0.01, 0.1, 0.3, 0.5, 1.0), "guidance": (0.0, 0.1, 0.3, 0.5, 1.0)}
SEEDS = (1, 2, 3, 4, 5)
BUDGET = 60.0  # seconds on two cores
TRAINING = {"first_eval": 1, "eval_every": 1, "patience": 5, "eval_users": None}


def planned(count: int) -> dict:
    """Return a plan of `count` cells: methods and sweep points by datasets and seeds, in that order, cut off."""
    names = METHODS | {f"aligndiff.{name}_{value}": "AlignDiff" for name, values in SWEEPS.items() for value in values}
    cells = [
        {
            "dataset": dataset,
            "method": method,
            "seed": seed,
            "display": display,
            "variant_of": method.partition(".")[0] if "." in method else None,
        }
        for dataset in DATASETS
        for method, display in names.items()
        for seed in SEEDS
    ]
    return {
        "name": "generated",
        "cells": cells[:count],
        "sweeps": [
            {
                "name": name,
                "field": name,
                "method": "aligndiff",
                "values": values,
                "cells": [f"aligndiff.{name}_{value}" for value in values],
            }
            for name, values in SWEEPS.items()
        ],
        "datasets": {key: {"display": display} for key, (display, _, _) in DATASETS.items()},
        "cutoffs": [5, 10, 20],
    }


def write_run(folder: Path, cell: dict, *, epochs: int = 40, num_users: int | None = None) -> None:
    """Write a completed run with made-up ranks and a made-up learning curve."""
    _, users, num_items = DATASETS[cell["dataset"]]
    users = num_users or users
    name = f"{cell['dataset']}/{cell['method']}"
    run = folder / name / f"seed{cell['seed']}"
    rng = np.random.default_rng([cell["seed"], *hashlib.sha256(name.encode()).digest()[:4]])
    skill = 0.03 + 0.05 * rng.random()
    hit_U = rng.random(users) < 3 * skill
    ranks = {
        key: np.where(hit_U, rng.geometric(0.08, users), rng.integers(1, num_items + 1, users)).clip(1, num_items)
        for key in ("test_kept", "test_hidden", "val_kept", "val_hidden")
    }
    record = RunRecord(
        **cell,
        settings={"model": {"embedding_dim": 128}, "training": TRAINING | {"max_epochs": epochs}},
        settings_sha256=hashlib.sha256(name.encode()).hexdigest(),
        data_sha256=hashlib.sha256(cell["dataset"].encode()).hexdigest(),
        code_digest=hashlib.sha256(cell["method"].encode()).hexdigest(),
        environment={"python": "3.11", "torch": "2.13", "device": "cpu", "cpu": "made up", "threads": 2},
        status="completed",
        best_epoch=epochs - 5,
        epochs_run=epochs,
        train_seconds=float(rng.integers(100, 9000)),
        num_users=users,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T01:00:00+00:00",
        metrics={key: summarise(rank_U) for key, rank_U in ranks.items()},
        ranks_sha256=write_ranks(run / "ranks.npz", ranks),
    )
    write_record(record, run / "record.json")
    value = np.cumsum(rng.random(epochs)) / epochs * skill
    lines = [f"{i + 1},{9 - 2 * i / epochs},{12.5},{value[i]}" for i in range(epochs)]
    (run / "history.csv").write_text("epoch,loss,seconds,val_NDCG@10\n" + "\n".join(lines) + "\n", encoding="utf-8")


def write_grid(folder: Path, count: int) -> list[str]:
    """Write plan, data statistics and `count` runs; return the arguments all command lines share."""
    plan = planned(count)
    write_text_atomically(folder / "plan.json", json.dumps(plan))
    for dataset, (_, users, items) in DATASETS.items():
        counts = {"dataset": dataset, "users": users, "items": items, "actions": 9 * users, "avg_len": 9.0}
        text = json.dumps(counts | {"sparsity_percent": 99.9, "fingerprint": "made up"})
        write_text_atomically(folder / "data" / dataset / "stats.json", text)
    for cell in plan["cells"]:
        write_run(folder / "runs", cell)
    return ["--runs", str(folder / "runs"), "--plan", str(folder / "plan.json")]


def timed(steps: dict[str, tuple]) -> tuple[dict[str, float], dict[str, float]]:
    """Run the steps; return their wall and processor seconds."""
    wall, processor = {}, {}
    for name, (main, arguments) in steps.items():
        began, used = time.perf_counter(), time.process_time()
        if main(arguments):
            raise RuntimeError(f"{name} failed")
        wall[name], processor[name] = round(time.perf_counter() - began, 2), round(time.process_time() - used, 2)
        print(f"{name}: {wall[name]:.1f} s, {processor[name]:.1f} s of processor time", flush=True)
    return wall, processor


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analysis_500", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500, help="how many to generate (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "analysis_500.json")
    parser.add_argument("--keep", type=Path, help="generate here and keep everything")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        shared = write_grid(folder, options.runs)
        print(f"generated {options.runs} runs", flush=True)
        at = {name: str(folder / name) for name in ("data", "tables", "figures", "report.html")}
        steps = {
            "tables and statistics": (tables.main, [*shared, "--data", at["data"], "--out", at["tables"]]),
            "figures": (figures.main, [*shared, "--tables", at["tables"], "--out", at["figures"]]),
            "report": (
                report.main,
                [*shared, "--data", at["data"], "--tables", at["tables"], "--figures", at["figures"]]
                + ["--out", at["report.html"]],
            ),
        }
        seconds, processor_seconds = timed(steps)
        found = {
            "runs": options.runs,
            "seconds": seconds,
            "total_seconds": round(sum(seconds.values()), 2),
            "processor_seconds": processor_seconds,
            "load_average": round(os.getloadavg()[0], 1),  # of the machine: other work stretches the wall time
            "budget_seconds": BUDGET,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "report_bytes": Path(at["report.html"]).stat().st_size,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
    write_text_atomically(options.out, json.dumps(found, indent=1) + "\n")
    print(f"total {found['total_seconds']:.1f} s of {BUDGET:.0f} s, peak memory {found['peak_memory_mib']} MiB")
    return int(found["total_seconds"] > BUDGET)


if __name__ == "__main__":
    sys.exit(main())
