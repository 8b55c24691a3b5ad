"""Measure the MMD of one run's generated representations against its targets and write it as JSON.

    python -m analysis.mmd_run --representations R.npz --record RUN/record.json --out mmd/beauty/aligndiff/seed1.json

R.npz holds `generated` and `truth`, float [users, dimensions], row u of both for the same test user. The file:

    schema                  1
    dataset, method, seed, data_sha256, code_digest, settings_sha256    copied from the record
    representations_sha256  of R.npz
    num_users               rows of R.npz;  max_users: how many were drawn at most;  draw_seed: of the random draws
    results                 one object per view and multiple of the median bandwidth, the fields of
                            `analysis.mmd.MMDResult`: view, multiplier, bandwidth, biased, unbiased (squared MMD), p
    mixing                  the fields of `analysis.projection.Mixing`, standardised view

A run that did not complete has no results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.mmd import mmd_by_view, view_of
from analysis.projection import knn_mixing
from harness import cli
from harness.record import RunRecord, read_record, write_text_atomically

SCHEMA = 1
IDENTITY = ("dataset", "method", "seed", "data_sha256", "code_digest", "settings_sha256")
DRAW_SEED = 0
MIXING_USERS = 2000


def read_representations(path: Path | str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return generated and truth of one run, both [U, D].  Raises ValueError naming file and array."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            generated_UD, truth_UD = archive["generated"], archive["truth"]
    except KeyError as error:
        raise ValueError(f"{path}: lacks an array ({error}); expected `generated` and `truth`") from error
    except Exception as error:
        raise ValueError(f"{path}: not readable representations ({error}); export them again") from error
    if generated_UD.shape != truth_UD.shape or generated_UD.ndim != 2:
        raise ValueError(f"{path}: shapes {generated_UD.shape} and {truth_UD.shape}; expected two equal [users, dims]")
    kind = np.promote_types(generated_UD.dtype, np.float32)  # committed samples are in half precision
    return generated_UD.astype(kind), truth_UD.astype(kind)


def measure(path: Path, record: RunRecord, *, max_users: int | None, permutations: int) -> dict[str, Any]:
    """Measure one run; the content of its JSON file."""
    identity = {name: getattr(record, name) for name in IDENTITY} | {"schema": SCHEMA}
    if not record.completed:
        return identity | {"num_users": 0, "results": [], "mixing": None}
    generated_UD, truth_UD = read_representations(path)
    rng = np.random.default_rng(DRAW_SEED)
    results = mmd_by_view(generated_UD, truth_UD, rng, max_users=max_users, permutations=permutations)
    few = np.sort(rng.permutation(len(truth_UD))[:MIXING_USERS])
    mixing = knn_mixing(*view_of(generated_UD[few], truth_UD[few], "standardised"), k=min(10, len(few)))
    return identity | {
        "representations_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "num_users": len(truth_UD),
        "max_users": max_users,
        "draw_seed": DRAW_SEED,
        "results": [asdict(result) for result in results],
        "mixing": asdict(mixing),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.mmd_run", description=__doc__.splitlines()[0])
    parser.add_argument("--representations", required=True, type=Path, help="npz with `generated` and `truth`")
    parser.add_argument("--record", required=True, type=Path, help="record of the run they come from")
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--max-users", type=int, default=5000, help="0 takes all (default %(default)s)")
    parser.add_argument("--permutations", type=int, default=200, help="relabellings (default %(default)s)")
    options = parser.parse_args(argv)
    if options.max_users < 0 or options.permutations < 0:
        raise ValueError("--max-users and --permutations must be 0 or more")
    record = read_record(options.record)
    found = measure(
        options.representations,
        record,
        max_users=options.max_users or None,
        permutations=options.permutations,
    )
    write_text_atomically(options.out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
