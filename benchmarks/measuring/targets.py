"""What the fast paths were asked to reach, and what the records say."""

from __future__ import annotations

from typing import Any

Records = dict[str, dict[str, Any]]
SHIPPED = "reference_way_default_allocator"
PREFIXES_SHIPPED = "prefixes_fp32_default_allocator"
NO_BF16 = "not measured: processor without bf16 products"
SEVERAL_CORES = "measured on one core only"


def rows(records: Records) -> list[list[str]]:
    """Target, what was asked, what was measured, verdict; a row without its record says so."""
    found = [
        *_training(records, "diffurec", {"fp32": 3.5, "bf16": 5.0}),
        *_training(records, "diffurec.keys", {"bf16": 16.0}, seconds=60),
        *_training(records, "aligndiff", {"bf16": 16.0}, seconds=60),
        *_evaluation(records, "diffurec.keys"),
        *_evaluation(records, "aligndiff"),
        *_sasrec(records),
        *_ranking(records),
        *_scale(records),
    ]
    return [*found, ["one H200, five seeds", "6 min; ML-1M 45 min", "-", "not measurable here: no GPU"]]


def verdict(value: float, needed: float, *, most: bool = False) -> str:
    return "reached" if (value <= needed if most else value >= needed) else "not reached"


def _method(records: Records, record: str, method: str) -> dict[str, Any] | None:
    return records.get(record, {}).get("methods", {}).get(method)


def _speedup(what: str, times: dict[str, Any], needed: float) -> list[str]:
    value = times["processor"]
    measured = f"x {value['median']:.1f} [{value['least']:.1f}..{value['most']:.1f}]"
    return [what, f"x {needed:g}", measured, verdict(value["median"], needed)]


def _seconds(what: str, seconds: float, needed: float) -> list[str]:
    """One core's seconds decide if they are few enough; two cores take at least half as long."""
    sure = seconds <= needed or seconds / 2 > needed
    said = verdict(seconds, needed, most=True) if sure else f"open: {SEVERAL_CORES}"
    return [what, f"{needed:g} s on two cores", f"{seconds:.0f} s of one core", said]


def _missing(what: str) -> list[list[str]]:
    return [[what, "", "", "not measured"]]


def _training(records: Records, method: str, needed: dict[str, float], seconds: float = 0) -> list[list[str]]:
    what, found = f"training step, {method}", _method(records, "training", method)
    if found is None:
        return _missing(what)
    lines = [
        _speedup(f"{what}, {precision}", found["speedup"][f"fast_{precision} over {SHIPPED}"], least)
        for precision, least in needed.items()
    ]
    if seconds:
        epoch = found["epoch"]["extrapolated"]["fast_bf16"]["processor_seconds"]
        lines.append(_seconds(f"epoch of {found['epoch']['samples']:,} samples, {method}, bf16", epoch, seconds))
    return lines


def _evaluation(records: Records, method: str) -> list[list[str]]:
    """In the fastest precision measured; where bf16 is missing, a miss in fp32 leaves the target open."""
    what, found = f"evaluation with the full chain, {method}", _method(records, "evaluation", method)
    if found is None:
        return _missing(what)
    count, seconds = found["all_users"]["users"], found["all_users"]["extrapolated"]
    precision = "bf16" if "fast_bf16" in seconds else "fp32"
    path = f"fast_{precision}"
    rows = [
        _speedup(f"{what}, {precision}", found["speedup"][f"{path} over {SHIPPED}"], 20),
        _seconds(f"the same, {count:,} users, extrapolated", seconds[path]["processor_seconds"], 60),
    ]
    return rows if precision == "bf16" else [*rows, [f"{what}, bf16", "x 20 and 60 s", NO_BF16, "open"]]


def _sasrec(records: Records) -> list[list[str]]:
    what, found = "SASRec: targets per second against prefix samples", records.get("sasrec")
    if found is None:
        return _missing(what)
    speedups = {
        fast: found["speedup"][f"{fast} over {PREFIXES_SHIPPED}"] for fast in found["paths"] if "sequences" in fast
    }
    best = max(speedups, key=lambda fast: speedups[fast]["median"])
    return [
        _speedup(f"{what}, {best.removeprefix('sequences_')}", {"processor": speedups[best]}, 10),
        _seconds("the same, an epoch", found["paths"][best]["epoch_processor_seconds"], 10),
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
    if found["origin"]["environment"]["threads"] != 2:
        return _seconds(name, found["processor_seconds"]["median"], 2)
    wall = found["wall_seconds"]["median"]
    return [name, "2 s on two cores", f"{wall:.1f} s of two cores", verdict(wall, 2, most=True)]


def _scale(records: Records) -> list[list[str]]:
    what = "a million users and items: memory"
    rows = records.get("scale", {}).get("rows", [])
    found = [row["peak_memory_bytes"] / 1e9 for row in rows if row["users"] == row["items"] == 1_000_000]
    if not found:
        return _missing(what)
    return [[what, "8 GB", f"{found[0]:.1f} GB", verdict(found[0], 8, most=True)]]
