"""Put the records of the speed benchmarks into benchmarks/README.md, so that no figure there is typed by hand.

python -m benchmarks.measuring.tables
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness.cli
from analysis.markdown import put_between
from benchmarks.measuring import targets
from benchmarks.measuring.timing import RECORDS, clock

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- records begin -->", "<!-- records end -->"
NAMES = {"diffurec": "DiffuRec `released`", "diffurec.keys": "DiffuRec `keys`", "aligndiff": "AlignDiff `paper`"}
NAMES["sasrec.tuned"] = "SASRec, softmax over all items"
PREFIXES_SHIPPED = "prefixes_fp32_default_allocator"
SHIPPED, TUNED = "reference_way_default_allocator", "reference_way"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between(values: dict[str, float], digits: int = 1) -> str:
    return f"{values['median']:.{digits}f} [{values['least']:.{digits}f}..{values['most']:.{digits}f}]"


def precision(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{found['method']}, {found['dataset']}",
            " and ".join(map(str, found["seeds"])),
            *(f"{found[side]:.2f} ± {found[f'{side}_std']:.2f}" for side in ("first", "second")),
            f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]",
        ]
        for found in record["methods"]
    ]
    sides = [" and ".join(dict.fromkeys(place["precision"] for place in side)) for side in record["sides"]]
    head = [f"{record['metric']}, percent, over seeds", "seeds", *sides, "difference [95 % interval]"]
    return table(head, rows)


def source(record: dict[str, Any]) -> str:
    """The lines under a table: command, machine, how busy it was."""
    if "sides" in record:
        places = [place for side in record["sides"] for place in side]
        return f"`{record['command']}`; {'; '.join(map(_place, places))}."
    measured = record.get("methods") or record.get("ways") or {}
    origins = {name: found["origin"] for name, found in measured.items() if "origin" in found}
    return "\n".join(dict.fromkeys(_source(found) for found in origins.values() or [record]))


def _source(found: dict[str, Any]) -> str:
    place = found["environment"]
    threads = f"{place['threads']} thread" + "s" * (place["threads"] > 1)
    bf16 = {True: " with bf16 products", False: " without bf16 products", None: ""}[place.get("native_bf16")]
    return (
        f"`{found['command']}`, {found['finished'][:10]}, {place['cpu']}{bf16}, {threads} of {place['cores']} cores, "
        f"torch {place['torch']}, load average {place['load_average'][0]}."
    )


def _place(place: dict[str, Any]) -> str:
    emulated = " by rounding to it" if place.get("emulated_products") else ""
    return f"{place['precision']}{emulated} on {place['cpu']}, threads: {place['threads']}, torch {place['torch']}"


def training(record: dict[str, Any]) -> str:
    rows = []
    for method, found in record["methods"].items():
        by = clock(found["origin"]["environment"])
        for path, cost in found["step"].items():
            over = [found["speedup"].get(f"{path} over {slow}", {}).get(by) for slow in (SHIPPED, TUNED)]
            row = [f"{NAMES[method]}, {path.replace('_', ' ')}", between(cost[f"{by}_seconds"], 2)]
            row += [f"{cost['page_faults']:,}", *(between(ratio) if ratio else "" for ratio in over)]
            rows.append([*row, f"{found['epoch']['extrapolated'][path][f'{by}_seconds']:.0f} s"])
    head = ["training step, batch 512", "seconds", "page faults", "over reference's way as it ships"]
    return table([*head, "over the same with our allocator", "epoch"], rows)


def evaluation(record: dict[str, Any]) -> str:
    rows = []
    for method, found in record["methods"].items():
        by = clock(found["origin"]["environment"])
        for path, seconds in found["all_users"]["extrapolated"].items():
            over = [found["speedup"].get(f"{path} over {slow}", {}).get(by) for slow in (SHIPPED, TUNED)]
            chains = f"{found['call'][path]['chains']:.0f}"
            row = [f"{NAMES[method]}, {path.replace('_', ' ')}", chains, f"{seconds[f'{by}_seconds']:.0f} s"]
            rows.append(row + [between(ratio) if ratio else "" for ratio in over])
        if "fast_bf16" not in found["call"]:
            rows.append([f"{NAMES[method]}, fast bf16", "", targets.NO_BF16, "", ""])
    head = ["evaluation, 32 steps", "chains timed", "all users, extrapolated", "over reference's way as it ships"]
    return table([*head, "over the same with our allocator"], rows)


def sasrec(record: dict[str, Any]) -> str:
    rows = []
    by = clock(record["environment"])
    for path, found in record["paths"].items():
        over = [
            record["speedup"].get(f"{path} over {slow}", {}).get(by) for slow in (PREFIXES_SHIPPED, "prefixes_fp32")
        ]
        row = [path.replace("_", " "), between(found[f"targets_per_{by}_second"], 0)]
        row += [between(ratio) if ratio else "" for ratio in over]
        rows.append([*row, f"{found[f'epoch_{by}_seconds']:.1f} s"])
    if "sequences_bf16" not in record["paths"]:
        rows.append(["sequences bf16", targets.NO_BF16, "", "", ""])
    head = ["SASRec, softmax over all items", "targets per second", "over prefixes, default allocator", "over prefixes"]
    return table([*head, "epoch"], rows)


def whole(record: dict[str, Any]) -> str:
    rows = [
        [f"{NAMES[method]}, {found['precision']}", *(_wall(found.get(part)) for part in ("epoch", "evaluation"))]
        for method, found in record["methods"].items()
    ]
    return table(["by the wall", "an epoch, s", "evaluation of all users, s"], rows)


def _wall(cost: dict[str, Any] | None) -> str:
    return between(cost["wall_seconds"]) if cost else ""


def ranking(record: dict[str, Any]) -> str:
    rows = []
    for way, found in record["ways"].items():
        memory = f"{found['extra_memory_bytes'] / 2**30:.2f} GiB"
        rows.append([way, between(found["processor_seconds"], 2), f"{found['wall_seconds']['least']:.2f}", memory])
    return table(["ranking all users", "seconds", "least wall seconds", "extra memory"], rows)


def scale(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['users']:,}",
            f"{row['items']:,}",
            str(row["mean_length"]),
            f"{row['load_seconds']:.1f}",
            f"{row['step_seconds']:.2f}",
            f"{row['milliseconds_per_target']:.2f}",
            f"{row['epoch_hours_extrapolated']:.2f}",
            f"{row['milliseconds_per_ranked_user']:.2f}",
            f"{row['peak_memory_bytes'] / 1e9:.2f}",
        ]
        for row in record["rows"]
    ]
    head = ["users", "items", "mean length", "load, s", "training step, s", "ms a target", "h an epoch, extrapolated"]
    return table([*head, "ms a ranked user", "peak memory, GB"], rows)


def profiles(record: dict[str, Any]) -> str:
    return "\n\n".join(_profile(method, found["paths"]) for method, found in record["methods"].items())


def _profile(method: str, paths: dict[str, Any]) -> str:
    kinds = sorted({kind for path in paths.values() for kind in path["percent_by_kind"]})
    rows = [[kind, *(f"{path['percent_by_kind'].get(kind, 0):.1f}" for path in paths.values())] for kind in kinds]
    rows.sort(key=lambda row: -float(row[1]))
    rows.append(["*operator calls*", *(f"{path['calls']:,}" for path in paths.values())])
    return table([f"percent of the time, {NAMES[method]}", *(path.replace("_", " ") for path in paths)], rows)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "training": ("Training steps on Beauty", training),
    "evaluation": ("Evaluation on Beauty", evaluation),
    "sasrec": ("SASRec", sasrec),
    "whole": ("Whole epochs and evaluations on Beauty", whole),
    "ranking": ("Ranking", ranking),
    "scale": ("Scale", scale),
    "profiles": ("Where training steps and evaluations spend their time", profiles),
    "precision": ("bf16 and another seed", precision),
}
ELSEWHERE = {"precision": "the commands in `config/precision.yaml` write"}


def markdown(folder: Path = RECORDS) -> str:
    """The targets, then every section, or the command that would fill it."""
    paths = {name: folder / f"{name}.json" for name in SECTIONS}
    records = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}
    parts = ["### Targets", table(["what", "asked", "measured", "verdict"], targets.rows(records))]
    for name, (title, build) in SECTIONS.items():
        writer = ELSEWHERE.get(name, f"`python -m benchmarks.{name}` writes")
        missing = f"**Not measured yet**: {writer} the record."
        shown = f"{build(records[name])}\n\n{source(records[name])}" if name in records else missing
        parts += [f"### {title}", shown]
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    put_between(README, BEGIN, END, markdown())
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
