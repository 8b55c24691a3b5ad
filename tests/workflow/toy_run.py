"""A training that takes a second, as its command line, for tests of what can happen to one."""

from __future__ import annotations

import json
from pathlib import Path

SMALL = {
    "model": {"embedding_dim": 4, "max_len": 6, "batch_size": 64},
    "training": {"max_epochs": 3, "checkpoint_seconds": 0},
}


def argv(sequences, folder, changes=SMALL, *more):
    found = ["--sequences", str(sequences), "--dataset", "toy", "--method", "sasrec", "--seed", "1"]
    found += ["--compute", '{"device": "cpu", "threads": 1}', "--overrides", json.dumps(changes)]
    return [*found, "--out", str(folder / "run"), "--checkpoints", str(folder / "checkpoints"), *more]


def one_error(capfd) -> str:
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error:", "Traceback"))]
    assert len(lines) == 1 and lines[0].startswith("error:"), lines
    return lines[0]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
