"""What the fast paths were asked to reach, and what the records say."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.timing import clock

Records = dict[str, dict[str, Any]]
SHIPPED = "reference_way_default_allocator"
PREFIXES_SHIPPED = "prefixes_fp32_default_allocator"
NO_BF16 = "not measured: processor without bf16 products"


def rows(records: Records) -> list[list[str]]:
    """Target, what was asked, what was measured, verdict; a row without its record says so."""
    found = [
        *_training(records, "diffurec", {"fp32": 3.5, "bf16": 5.0}),
        *_training(records, "diffurec.keys", {"bf16": 16.0}, seconds=60),
        *_whole(records, "diffurec.keys", "epoch", 60),
        *_training(records, "aligndiff", {"bf16": 16.0}, seconds=60),
        *_whole(records, "aligndiff", "epoch", 60),
        *_evaluation(records, "diffurec.keys"),
        *_whole(records, "diffurec.keys", "evaluation", 60),
        *_evaluation(records, "aligndiff"),
        *_whole(records, "aligndiff", "evaluation", 60),
        *_sasrec(records),
        *_whole(records, "sasrec.tuned", "epoch", 10),
        *_ranking(records),
        *_scale(records),
    ]
    return [*found, ["one H200, five seeds", "6 min; ML-1M 45 min", "-", "not measurable here: no GPU"]]


def verdict(value: float, needed: float, *, most: bool = False) -> str:
    return "reached" if (value <= needed if most else value >= needed) else "not reached"


def _method(records: Records, record: str, method: str) -> dict[str, Any] | None:
    return records.get(record, {}).get("methods", {}).get(method)


def _speedup(what: str, value: dict[str, float], needed: float) -> list[str]:
    measured = f"x {value['median']:.1f} [{value['least']:.1f}..{value['most']:.1f}]"
    return [what, f"x {needed:g}", measured, verdict(value["median"], needed)]


def _seconds(what: str, seconds: float, needed: float, threads: int) -> list[str]:
    """One core's seconds decide if they are few enough; two cores take at least half as long."""
    if threads == 2:
        return [
            what,
            f"{needed:g} s on two cores",
            f"{seconds:.1f} s of two cores",
            verdict(seconds, needed, most=True),
        ]
    sure = seconds <= needed or seconds / 2 > needed
    said = verdict(seconds, needed, most=True) if sure else "open: measured on one core only"
    return [what, f"{needed:g} s on two cores", f"{seconds:.0f} s of one core", said]


def _missing(what: str) -> list[list[str]]:
    return [[what, "", "", "not measured"]]


def _training(records: Records, method: str, needed: dict[str, float], seconds: float = 0) -> list[list[str]]:
    what, found = f"training step, {method}", _method(records, "training", method)
    if found is None:
        return _missing(what)
    place = found["origin"]["environment"]
    lines = [
        _speedup(f"{what}, {precision}", found["speedup"][f"fast_{precision} over {SHIPPED}"][clock(place)], least)
        for precision, least in needed.items()
    ]
    if seconds:
        name = f"epoch of {found['epoch']['samples']:,} samples, {method}, bf16"
        epoch = found["epoch"]["extrapolated"]["fast_bf16"][f"{clock(place)}_seconds"]
        lines.append(_seconds(name, epoch, seconds, place["threads"]))
    return lines


def _evaluation(records: Records, method: str) -> list[list[str]]:
    """In the fastest precision measured; where bf16 is missing, a miss in fp32 leaves the target open."""
    what, found = f"evaluation with the full chain, {method}", _method(records, "evaluation", method)
    if found is None:
        return _missing(what)
    count, seconds = found["all_users"]["users"], found["all_users"]["extrapolated"]
    precision = "bf16" if "fast_bf16" in seconds else "fp32"
    path = f"fast_{precision}"
    place = found["origin"]["environment"]
    taken = seconds[path][f"{clock(place)}_seconds"]
    rows = [
        _speedup(f"{what}, {precision}", found["speedup"][f"{path} over {SHIPPED}"][clock(place)], 20),
        _seconds(f"the same, {count:,} users, extrapolated", taken, 60, place["threads"]),
    ]
    return rows if precision == "bf16" else [*rows, [f"{what}, bf16", "x 20 and 60 s", NO_BF16, "open"]]


def _whole(records: Records, method: str, part: str, needed: float) -> list[list[str]]:
    """Seconds of a whole epoch or evaluation by the wall, where a record has them."""
    found = _method(records, "whole", method)
    if found is None:
        return []
    name, threads = f"the same, measured whole, {found['precision']}", found["origin"]["environment"]["threads"]
    return [_seconds(name, found[part]["wall_seconds"]["median"], needed, threads)]


def _sasrec(records: Records) -> list[list[str]]:
    what, found = "SASRec: targets per second against prefix samples", records.get("sasrec")
    if found is None:
        return _missing(what)
    place = found["environment"]
    speedups = {
        fast: found["speedup"][f"{fast} over {PREFIXES_SHIPPED}"][clock(place)]
        for fast in found["paths"]
        if "sequences" in fast
    }
    best = max(speedups, key=lambda fast: speedups[fast]["median"])
    epoch = found["paths"][best][f"epoch_{clock(place)}_seconds"]
    return [
        _speedup(f"{what}, {best.removeprefix('sequences_')}", speedups[best], 10),
        _seconds("the same, an epoch", epoch, 10, place["threads"]),
    ]


def _ranking(records: Records) -> list[list[str]]:
    what = "ranking of all users"
    if "ranking" not in records:
        return _missing(what)
    rows = []
    for way, name in (("count", what), ("count, oneDNN", f"{what}, products by oneDNN")):
        found = records["ranking"]["ways"][way]
        memory = found["extra_memory_bytes"] / 2**30
        rows += [
            _ranking_seconds(name, found),
            [f"{name}, extra memory", "0.1 GiB", f"{memory:.3f} GiB", verdict(memory, 0.1, most=True)],
        ]
    return rows


def _ranking_seconds(name: str, found: dict[str, Any]) -> list[str]:
    place = found["origin"]["environment"]
    return _seconds(name, found[f"{clock(place)}_seconds"]["median"], 2, place["threads"])


def _scale(records: Records) -> list[list[str]]:
    what = "a million users and items: memory"
    rows = records.get("scale", {}).get("rows", [])
    found = [row["peak_memory_bytes"] / 1e9 for row in rows if row["users"] == row["items"] == 1_000_000]
    if not found:
        return _missing(what)
    return [[what, "8 GB", f"{found[0]:.1f} GB", verdict(found[0], 8, most=True)]]
