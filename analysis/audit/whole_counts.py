"""Is each HR the mean of whole numbers of users? (the GRIM test of Brown and Heathers, 2017)

Over n users HR@K of one run is c/n with a whole number of hits c, so the mean of R runs is C/(nR) with a whole C.
A printed value whose rounding interval holds no such fraction is no such mean. If the runs were rounded before they
were averaged, the mean is off by up to half a unit more, so for R > 1 that much is granted.

This test is CONDITIONAL: it assumes a plain mean over all n users of R runs. Means of batch means with a smaller
last batch, users left out of evaluation, or another number of runs make it void, so its findings are 'unsupported',
never 'impossible'.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor

from analysis.audit.cells import Cell, rows_of, split_metric, table_name
from analysis.audit.finding import Finding, Outcome
from analysis.audit.printed import EPSILON, Printed

FLOAT32 = 2.0**-23


def is_mean_of_counts(printed: Printed, num_users: int, num_runs: int) -> bool:
    """Tell whether some whole number of hits gives the printed percentage."""
    half = float(printed.half) * (2 if num_runs > 1 else 1)
    total = num_users * num_runs
    low = (float(printed) - half) / 100 * total
    high = (float(printed) + half) / 100 * total
    slack = EPSILON + FLOAT32 * total  # means of hits may have been taken in float32
    return floor(high + slack) >= ceil(low - slack)


def has_power(printed: Printed, num_users: int, num_runs: int) -> bool:
    """Tell whether the test can fail at all: the fractions lie further apart than the rounding interval is wide."""
    half = float(printed.half) * (2 if num_runs > 1 else 1)
    return 100 / (num_users * num_runs) > 2 * half + 2 * EPSILON


def check(cells: list[Cell], users: Mapping[str, int], default_runs: int = 1) -> Outcome:
    """Test every printed HR on datasets whose number of users is known. Runs: the cell's n, else `default_runs`."""
    findings, checked, held = [], 0, 0
    for row in rows_of(cells).values():
        tested, failed = [], []
        for metric, cell in row.items():
            key, num_users = split_metric(metric), users.get(cell.dataset)
            if key is None or key[0] != "HR" or num_users is None:
                continue
            num_runs = cell.n or default_runs
            if has_power(cell.printed, num_users, num_runs):
                tested.append(cell)
                if not is_mean_of_counts(cell.printed, num_users, num_runs):
                    failed.append(cell)
        checked, held = checked + len(tested), held + len(tested) - len(failed)
        if failed:
            findings.append(_finding(tested, failed, users[failed[0].dataset], failed[0].n or default_runs))
    return Outcome(
        check="whole_counts",
        question="Is each HR a mean over all users of the stated number of runs? (whole numbers of hits)",
        checked=checked,
        held=held,
        findings=tuple(findings),
    )


def _finding(tested: list[Cell], failed: list[Cell], num_users: int, num_runs: int) -> Finding:
    first = failed[0]
    fits = [runs for runs in range(1, 11) if all(is_mean_of_counts(c.printed, num_users, runs) for c in tested)]
    listed = ", ".join(f"{cell.metric} {cell.printed.text}" for cell in failed)
    runs_said = "one run" if num_runs == 1 else f"{num_runs} runs"
    return Finding(
        id=f"whole_counts/T{first.table}/{first.dataset}/{first.model}",
        check="whole_counts",
        kind="unsupported",
        claims=tuple(cell.id for cell in failed),
        dataset=first.dataset,
        printed=listed,
        expected=f"a multiple of 100/{num_users * num_runs} percent, within rounding",
        evidence={
            "model": first.model,
            "users": num_users,
            "runs": num_runs,
            "tested": [cell.metric for cell in tested],
            "failed": [cell.metric for cell in failed],
            "runs_from_1_to_10_that_fit": fits,
        },
        sentence=f"{table_name(first)}, {first.dataset}, {first.model}: {listed} cannot be the plain mean of "
        f"{runs_said} over {num_users} users. Another weighting (means of batch means), users left out or another "
        "number of runs would void this test.",
    )


def check_single_run(cells: list[Cell], users: Mapping[str, int]) -> Outcome:
    """List rows whose three or more HR figures are all whole numbers of hits of ONE run over all users.

    Source: a sum of R runs is a multiple of R at all of m cut-offs by chance about once in R^m.
    """
    found, checked = [], 0
    for row in rows_of(cells).values():
        hits = [cell for metric, cell in row.items() if metric.startswith("HR@") and cell.dataset in users]
        if len(hits) < 3 or not all(has_power(cell.printed, users[cell.dataset], 1) for cell in hits):
            continue
        checked += 1
        if all(is_mean_of_counts(cell.printed, users[cell.dataset], 1) for cell in hits):
            found.append(hits)
    findings = [_single_run_finding(hits, users[hits[0].dataset], checked) for hits in found]
    return Outcome(
        check="single_run",
        question="Are there rows whose HR figures are whole numbers of hits of one run?",
        checked=checked,
        held=checked - len(findings),
        findings=tuple(findings),
    )


def _single_run_finding(hits: list[Cell], num_users: int, looked_at: int) -> Finding:
    first = hits[0]
    counts = [round(cell.value / 100 * num_users) for cell in hits]
    chance = 1.0
    for cell in hits:
        chance *= min(1.0, 2 * float(cell.printed.half) * num_users / 100)
    listed = ", ".join(
        f"{cell.metric} {cell.printed.text} = {n}/{num_users}" for cell, n in zip(hits, counts, strict=True)
    )
    return Finding(
        id=f"single_run/T{first.table}/{first.dataset}/{first.model}",
        check="single_run",
        kind="context",
        claims=("five-runs", *(cell.id for cell in hits)),
        dataset=first.dataset,
        printed=", ".join(cell.printed.text for cell in hits),
        expected="means of five runs",
        evidence={
            "model": first.model,
            "users": num_users,
            "hits": counts,
            "chance_for_arbitrary_digits": chance,
            "rows_looked_at": looked_at,
        },
        sentence=f"{table_name(first)}, {first.dataset}, {first.model}: every HR is a whole number of hits of one "
        f"run over all users ({listed}). Arbitrary digits would do so with chance {chance:.0e}; sums of five runs, "
        f"about once in {5 ** len(hits)}; {looked_at} rows were looked at.",
    )
