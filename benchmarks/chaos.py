"""Kill training and Snakemake at random moments, go on, and compare the results with an undisturbed run, byte by byte.

    python -m benchmarks.chaos --kills 50 [--dag-kills 10] [--seed 1]

Works in a copy of the repository. Kills of the workflow are, in turn, of everything, of Snakemake alone (its training
lives on beside the next one), of one training alone, and of Snakemake until its trainings have ended without it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

import harness.cli
from harness.digest import ROOT
from harness.grid import Grid
from harness.record import write_text_atomically
from harness.settings import merge

PARTS = ("config", "workflow", "profiles", "harness", "aligndiff", "baselines", "analysis")
FILES = ("Snakefile", "environment.yml", "pyproject.toml", "tests/data/toy.sequences.txt")
ENDED = "snakemake, until its trainings ended"
KINDS = ("everything", "snakemake", "training", ENDED)
# --cores last: the options before it would take targets for values of theirs.
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--configfile", "chaos.yaml", "--resources", "gpu=0", "--cores", "2"]
CHANGES = {
    "name": "chaos",
    "output": "results/chaos",
    "grid": [
        {"datasets": ["toy"], "methods": ["sasrec", "floor.popularity"], "seeds": [1, 2]},
        {"datasets": ["toy"], "methods": ["diffurec.keys"], "seeds": [1]},
    ],
    "overrides": {
        "all": {"training": {"max_epochs": 15, "checkpoint_seconds": 0}},
        "sasrec": {"model": {"embedding_dim": 16, "max_len": 10, "batch_size": 64}},
        "diffurec.keys": {
            "model": {"embedding_dim": 16, "max_len": 10, "batch_size": 64, "num_steps": 4, "num_blocks": 1},
            "training": {"eval_every": 1},
        },
    },
}


@dataclass
class Workplace:
    """A copy of the repository, the processes started in it, and what was seen."""

    folder: Path
    rng: random.Random
    groups: list[int] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    rounds: int = 0  # times the work was carried to its end after kills
    resumed: int = 0  # starts of a training that went on from a checkpoint
    waited: int = 0  # starts that waited for a training that had outlived Snakemake
    taken: int = 0  # starts that took the result of this very run, ended before anybody heard of it

    @property
    def out(self) -> Path:
        return self.folder / "results" / "chaos"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process group of its own, its messages in a file."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        with open(self.folder / "messages.log", "ab") as messages:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=messages, stderr=messages, start_new_session=True
            )
        self.groups.append(process.pid)
        return process

    def finish(self, command: Sequence[str]) -> float:
        """Run to the end; return the seconds it took."""
        began = time.monotonic()
        if code := self.start(command).wait():
            raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{self.messages()[-3000:]}")
        return time.monotonic() - began

    def messages(self) -> str:
        return (self.folder / "messages.log").read_text(errors="replace")

    def count_messages(self) -> None:
        """Add up what trainings have said since the last count, then forget it."""
        for path in [self.folder / "messages.log", *self.out.glob("logs/train/**/*.log")]:
            text = path.read_text(errors="replace") if path.exists() else ""
            self.resumed += text.count("resumed after epoch")
            self.waited += text.count("waiting for it to end")
            self.taken += text.count("its result is taken")
            path.unlink(missing_ok=True)

    def end_all(self) -> None:
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.groups.clear()


def prepare(folder: Path) -> Grid:
    """Copy the repository and write the configuration of this test."""
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    tiny, base, sources = (
        yaml.safe_load((ROOT / "config" / name).read_text()) for name in ("tiny.yaml", "config.yaml", "datasets.yaml")
    )
    config = tiny | CHANGES
    (folder / "chaos.yaml").write_text(yaml.safe_dump(config))
    return Grid(merge(sources, base, config))


def results(folder: Path) -> dict[str, object]:
    """What must not differ: ranks and weights as bytes, metrics as text, for every run below `folder`."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob("**/seed*/record.json")):
        record, name = json.loads(path.read_text()), str(path.parent.relative_to(folder))
        if record["status"] != "completed":
            raise RuntimeError(f"{path}: {record['status']}: {record['reason']}")
        found[name] = (
            path.with_name("ranks.npz").read_bytes(),
            path.with_name("weights.safetensors").read_bytes(),
            json.dumps([record[key] for key in ("metrics", "best_epoch", "epochs_run", "val_metric", "ranks_sha256")]),
        )
    return found


def require_same(found: dict[str, object], expected: dict[str, object]) -> None:
    different = [name for name in expected if found.get(name) != expected[name]]
    if different or len(found) != len(expected):
        raise RuntimeError(f"results differ from the undisturbed run: {', '.join(different) or sorted(found)}")


def kill_training(place: Workplace, grid: Grid, expected: dict[str, object], kills: int) -> None:
    """Kill single trainings until `kills` are dead; every one that is carried to its end must be the same."""
    cells = [cell for cell in grid.cells if not cell.method.startswith("floor")]
    seconds: dict[str, float] = {}
    while kills:
        cell, run = place.rng.choice(cells), place.folder / "single"
        command = [
            *(sys.executable, "-m", "workflow.scripts.train"),
            *("--sequences", str(place.out / f"data/{cell.dataset}/sequences.npz"), "--dataset", cell.dataset),
            *("--method", cell.method, "--seed", str(cell.seed), "--compute", grid.compute_json(on_gpu=False)),
            *("--overrides", json.dumps(grid.deciding_overrides(cell.method)), "--clock", grid.clock_json()),
            *("--out", str(run / "runs" / cell.path), "--checkpoints", str(run / "checkpoints")),
        ]
        if cell.path not in seconds:
            seconds[cell.path] = place.finish(command)
            require_same(results(run / "runs"), {cell.path: expected[cell.path]})
            shutil.rmtree(run)
        for _ in range(min(kills, place.rng.randint(4, 8))):
            process = place.start(command)
            if not wait_for_moment(place, process, seconds[cell.path]):
                break  # it has ended; what is started now would only take its result
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            place.killed["single training"] += 1
            kills -= 1
            print(f"killed a training of {cell.path}, {kills} to go", flush=True)
        place.finish(command)
        place.rounds += 1
        require_same(results(run / "runs"), {cell.path: expected[cell.path]})
        require_tidy(run)
        place.count_messages()
        shutil.rmtree(run)


def wait_for_moment(place: Workplace, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a random moment of a training: while it starts, or in one of its next epochs. Say whether it still runs.

    Counted in epochs, because on a busy machine a moment by the clock is soon after the end, or before the beginning.
    """
    more = place.rng.randint(0, 4)
    seen = place.messages().count(" epoch ")
    while more and process.poll() is None and place.messages().count(" epoch ") < seen + more:
        time.sleep(0.005)
    with suppress(subprocess.TimeoutExpired):
        process.wait(place.rng.uniform(0.0, 0.2 if more else seconds))
    return process.poll() is None


def kill_workflow(
    place: Workplace, targets: list[str], expected: dict[str, object], kills: int, seconds: float
) -> None:
    """Kill the workflow until `kills` are dead, unlocking and starting again each time."""
    command, begun = [*SNAKEMAKE, *targets], 0
    while begun < kills:
        shutil.rmtree(place.out)
        for _ in range(min(kills - begun, 4)):
            kind = KINDS[begun % len(KINDS)]
            begun += kill_once(place, command, kind, place.rng.uniform(0.1, 0.7) * seconds)
        unlock(place)
        seconds = min(seconds, place.finish(command))  # the machine may have become less busy
        place.rounds += 1
        require_same(results(place.out / "runs"), expected)
        require_tidy(place.out)
        place.count_messages()


def kill_once(place: Workplace, command: list[str], kind: str, seconds: float) -> bool:
    """Start the workflow and kill a part of it after `seconds`; say whether there was something to kill."""
    unlock(place)
    process = place.start(command)
    deadline, victim = time.monotonic() + seconds, None
    while process.poll() is None and (time.monotonic() < deadline or (kind != "everything" and not victim)):
        time.sleep(0.05)
        victim = next(iter(trainings(process.pid)), None)
    if process.poll() is not None:
        print(f"finished before the kill of {kind}", flush=True)
        return False
    orphans = [psutil.Process(pid) for pid in trainings(process.pid) if psutil.pid_exists(pid)]
    if kind == "everything":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        with suppress(ProcessLookupError):
            os.kill(victim if kind == "training" else process.pid, signal.SIGKILL)
    process.wait()
    if kind == ENDED:
        psutil.wait_procs(orphans)
    place.killed[f"workflow: {kind}"] += 1
    print(f"killed {kind} of the workflow after {seconds:.1f} s", flush=True)
    return True


def unlock(place: Workplace) -> None:
    """What the user does after killing Snakemake itself."""
    if any((place.folder / ".snakemake" / "locks").glob("*")):
        place.finish([*SNAKEMAKE, "--unlock"])


def trainings(parent: int) -> list[int]:
    """Process ids of the trainings that `parent` has started."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(parent).children(recursive=True):
            with suppress(psutil.Error):
                line = child.cmdline()
                if "workflow.scripts.train" in line and "-m" in line:
                    found.append(child.pid)
    return found


def require_tidy(folder: Path) -> None:
    """Nothing half-written, no lock and no checkpoint stays behind."""
    names = r"\.(?!finished$)|epoch-.*ckpt"
    litter = [str(path) for path in folder.glob("**/*") if re.match(names, path.name)]
    if litter:
        raise RuntimeError(f"left behind: {', '.join(litter)}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="all together (default %(default)s)")
    parser.add_argument("--dag-kills", type=int, default=10, help="of these, of the workflow (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "chaos.json")
    options = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        place = Workplace(Path(temporary), random.Random(options.seed))
        grid = prepare(place.folder)
        targets = [f"results/chaos/runs/{cell.path}/record.json" for cell in grid.cells]
        try:
            undisturbed = place.finish([*SNAKEMAKE, *targets])
            print(f"undisturbed: {undisturbed:.1f} s", flush=True)
            expected = results(place.out / "runs")
            kill_training(place, grid, expected, options.kills - options.dag_kills)
            if options.kills - options.dag_kills > 5 and not place.resumed:
                raise RuntimeError("no training went on from a checkpoint, so resuming was not tried")
            kill_workflow(place, targets, expected, options.dag_kills, undisturbed)
        finally:
            place.end_all()
    found = {
        "kills": place.killed.total(),
        "by_kind": dict(sorted(place.killed.items())),
        "carried_to_the_end": place.rounds,
        "different_results": 0,  # the first difference ends the command with an error
        "resumed_from_checkpoint": place.resumed,
        "waited_for_an_orphan": place.waited,
        "taken_from_a_finished_run": place.taken,
        "undisturbed_seconds": round(undisturbed, 1),
        "seconds": round(time.monotonic() - began, 1),
        "seed": options.seed,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    write_text_atomically(options.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
