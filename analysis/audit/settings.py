"""Do the ranges that were searched contain the settings reported as best?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from analysis.audit.finding import Finding, Outcome


def check(rows: Iterable[dict[str, str]]) -> Outcome:
    """Compare each reported optimum with its printed range, and each symbol with its meanings."""
    rows = list(rows)
    ranged = [row for row in rows if row["low"] and row["high"]]
    findings = [finding for row in ranged if (finding := _range_finding(row))]
    findings += _symbol_findings(rows)
    alarms = sum(finding.is_alarm for finding in findings)
    checked = len(ranged) + len({row["symbol"] for row in rows})
    return Outcome(
        check="settings",
        question="Are the reported best settings inside the searched ranges, and does each symbol mean one thing?",
        checked=checked,
        held=checked - alarms,
        findings=tuple(findings),
    )


def _range_finding(row: dict[str, str]) -> Finding | None:
    low, high, best = float(row["low"]), float(row["high"]), float(row["best"])
    if low < best < high:
        return None
    is_outside = not low <= best <= high
    where = "outside the range" if is_outside else "at the edge of the range"
    note = f" {row['note']}" if row["note"] else ""
    return Finding(
        id=f"settings/{row['symbol']}",
        check="settings",
        kind="inconsistent" if is_outside else "context",
        claims=(f"best-{row['symbol'].lower()}",),
        printed=f"best {row['symbol']} = {row['best']}",
        expected=f"within [{row['low']}, {row['high']}]",
        evidence={"low": low, "high": high, "best": best, "is_outside": is_outside},
        sentence=f"{row['source']}: {row['symbol']} ({row['meaning']}) is reported best at {row['best']}, {where} "
        f"[{row['low']}, {row['high']}] that is printed as searched.{note}",
    )


def _symbol_findings(rows: list[dict[str, str]]) -> list[Finding]:
    meanings: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        meaning = row["meaning"].split(" (")[0]  # "guidance weight (Beauty and Toys)" is a guidance weight
        if meaning not in meanings[row["symbol"]]:
            meanings[row["symbol"]].append(meaning)
    return [
        Finding(
            id=f"settings/symbol-{symbol}",
            check="settings",
            kind="context",  # it misleads a reader, but no two statements disagree
            printed=symbol,
            expected="one meaning",
            evidence={"meanings": listed},
            sentence=f"Section 4.1: the symbol {symbol} stands for {' and for '.join(listed)}.",
        )
        for symbol, listed in meanings.items()
        if len(listed) > 1
    ]
