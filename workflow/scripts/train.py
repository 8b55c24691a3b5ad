"""Train one method on one dataset with one seed, or evaluate another method's weights under its settings.

    python -m workflow.scripts.train --sequences results/paper/data/beauty/sequences.npz \
        --dataset beauty --method sasrec --seed 1 --out /tmp/run
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import harness.cli
from harness import compute, gpu
from harness.checkpoint import CheckpointFolder
from harness.digest import code_digest
from harness.fit import OutOfTimeError, settings_sha256
from harness.lock import sole_writer
from harness.methods import Method, builder_file, load_method
from harness.record import CorruptRecordError, RunRecord, read_ranks, read_record
from harness.run import Job, progress_line, reevaluate, train
from harness.run_files import RunFiles
from harness.settings import from_mapping, merge
from harness.split import Sequences, Split, leave_one_out

OUT_OF_TIME = 75  # exit code, EX_TEMPFAIL: the same command again goes on


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m workflow.scripts.train", description=__doc__.splitlines()[0])
    result.add_argument("--sequences", required=True, type=Path, help="sequences.npz of the dataset")
    result.add_argument("--dataset", required=True)
    result.add_argument("--method", required=True, help="a file of config/methods, without .yaml")
    result.add_argument("--name", help="name of the run in tables, default the method")
    result.add_argument("--seed", required=True, type=int)
    result.add_argument("--overrides", type=json.loads, default="{}", help='JSON, e.g. {"model": {"dropout": 0.2}}')
    result.add_argument(
        "--clock", type=json.loads, default="{}", help='JSON by name, e.g. {"sasrec": {"time_budget_seconds": 3600}}'
    )
    result.add_argument("--compute", type=json.loads, default="{}", help='JSON, e.g. {"device": "cpu", "threads": 1}')
    result.add_argument("--out", required=True, type=Path, help="folder for record, ranks, history and weights")
    result.add_argument("--checkpoints", type=Path, help="folder for resuming; none = not resumable")
    result.add_argument("--weights", type=Path, help="evaluate these weights instead of training")
    for what in ("code", "settings"):
        result.add_argument(f"--expect-{what}", metavar="SHA256", help=f"stop if the digest of the {what} is another")
    return result


def job_of(arguments: argparse.Namespace, method: Method) -> Job:
    name = arguments.name or method.name
    clock = merge(arguments.clock).get(name, {})
    settings = method.resolved(arguments.dataset, arguments.overrides, {"training": clock})
    return Job(
        dataset=arguments.dataset,
        method=name,
        display=method.display,
        variant_of=method.variant_of,
        seed=arguments.seed,
        settings=settings,
        code_digest=code_digest(Path(__file__), builder_file(method.builder)),
    )


def check_expected(job: Job, arguments: argparse.Namespace) -> None:
    """Raise ValueError if the checkout is no longer what Snakemake planned with, and notes as what made this run."""
    ours = {"code": job.code_digest, "settings": settings_sha256(job.settings)}
    for what, expected in (("code", arguments.expect_code), ("settings", arguments.expect_settings)):
        if expected not in (None, ours[what]):
            raise ValueError(
                f"{job.method} on {job.dataset}, seed {job.seed}: the {what} changed after this run was planned; leave "
                "the checkout alone while it runs, and start the same command again"
            )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    settings = from_mapping(compute.ComputeSettings, arguments.compute, where="compute")
    job = job_of(arguments, load_method(arguments.method))
    check_expected(job, arguments)
    if job.settings["training"]["time_budget_seconds"] and not (arguments.checkpoints or arguments.weights):
        raise ValueError(
            "time_budget_seconds without --checkpoints: nothing would be left to go on from; name a folder"
        )
    split = leave_one_out(Sequences.load(arguments.sequences), dataset=arguments.dataset)
    try:
        with sole_writer(arguments.out) as waited:
            files = RunFiles(arguments.out, trained=arguments.weights is None)
            record = run(job, split, files, settings, arguments, waited=waited)
    except OutOfTimeError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return OUT_OF_TIME
    print(progress_line(record))
    return 0


def run(
    job: Job,
    split: Split,
    files: RunFiles,
    settings: compute.ComputeSettings,
    arguments: argparse.Namespace,
    *,
    waited: bool,
) -> RunRecord:
    """Train or evaluate, but for what the process that was waited for, or an earlier run, has left already."""
    devices = [] if settings.device == "cpu" else gpu.visible_devices()
    with gpu.gpu_slot(devices, per_device=settings.jobs_per_gpu):
        device = compute.choose(settings)
        if settings.device == "auto" and not device.is_cuda:
            check_no_gpu_lost(files, arguments.checkpoints)
        theirs = finished(job, split, files, device) if waited else None
        if theirs:
            return theirs
        if arguments.weights:
            return reevaluate(job, split, files, device, arguments.weights)
        checkpoints = arguments.checkpoints
        kept = taken_back(job, split, files, device) if checkpoints else None
        if kept:
            CheckpointFolder(checkpoints, identity=job.identity(split, device)).remove()
        return kept or train(job, split, files, device, checkpoints)


def check_no_gpu_lost(files: RunFiles, checkpoints: Path | None) -> None:
    """Raise ValueError where what a GPU has finished or begun would be done anew because that GPU is out of sight."""
    done = None
    if files.is_kept() and (device := read_record(files.kept.record).environment["device"]) != "cpu":
        done = f"finished on a GPU ({device})"
    elif checkpoints and (kind := CheckpointFolder(checkpoints, identity="").made_elsewhere()):
        done = f"begun on a GPU ({kind})"
    if done:
        raise ValueError(
            f"{files.folder}: was {done}, and none is visible now; a run on the CPU would replace it. Make the GPU "
            "visible (nvidia-smi), or set compute.device to 'cpu' to want that"
        )


def taken_back(job: Job, split: Split, files: RunFiles, device: compute.Compute) -> RunRecord | None:
    """Take this very run if it finished before, and Snakemake deleted its outputs only because it could not know.

    It goes by dates: a file copied without its date, or a Snakemake killed before it heard of a run's end, are enough.
    """
    record = finished(job, split, files.kept, device) if files.is_kept() else None
    if record is None:
        return None
    logging.info("this run had finished before (%s), its result is taken", record.finished)
    files.sweep()
    files.take_back()
    return record


def finished(job: Job, split: Split, files: RunFiles, device: compute.Compute) -> RunRecord | None:
    """Return the record of `files` if it is of this very run, computed alike, and nothing is missing."""
    try:
        record = read_record(files.record)
        read_ranks(files.record, record)
    except CorruptRecordError:
        return None
    ours = (job.method, job.seed, settings_sha256(job.settings), job.code_digest, split.sha256)
    theirs = (record.method, record.seed, record.settings_sha256, record.code_digest, record.data_sha256)
    if ours != theirs or not compute.rounds_alike(record.environment, compute.describe(device)):
        return None
    return record if all(path.is_file() for path in files.outputs) else None


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
