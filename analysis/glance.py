"""The first table of the report: per dataset AlignDiff, the best of the paper's baselines, and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.table_model import Block, Row, Table
from analysis.table_specs import CLAIMANT

METRIC = "NDCG@10"


def glance(tables: Sequence[Table], tests: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one line per dataset of the main table on which anything was measured."""
    table = next((table for table in tables if table.slug == "table2"), None)
    blocks = [block for block in table.blocks if block.protocol == "kept"] if table else []
    return [_line(block, tests) for block in blocks if block.is_measured and METRIC in block.columns]


def _line(block: Block, tests: pd.DataFrame) -> dict[str, Any]:
    at = block.columns.index(METRIC)
    ours = next((row for row in block.rows if row.method == CLAIMANT), None)
    best = _best([row for row in block.rows if row.base != CLAIMANT], at)
    beside = _best(block.others, at)
    return {
        "display": block.display,
        "ours": ours and ours.cells[at],
        "best": best,
        "best_cell": best and best.cells[at],
        "beside": beside,
        "beside_cell": beside and beside.cells[at],
        "improvement": block.derived[0].cells[at] if block.derived else None,
        "test": _test(block, best, tests),
    }


def _best(rows: Sequence[Row], at: int) -> Row | None:
    measured = [row for row in rows if row.cells[at].value is not None]
    return max(measured, key=lambda row: row.cells[at].value, default=None)


def _test(block: Block, best: Row | None, tests: pd.DataFrame) -> dict[str, Any] | None:
    """The comparison of AlignDiff with the best baseline, as the tests below have it."""
    if best is None or tests.empty:
        return None
    chosen = (tests["dataset"] == block.dataset) & (tests["metric"] == METRIC)
    found = tests[chosen & (tests["method"] == CLAIMANT) & (tests["rival"] == best.method)]
    return {name: None if pd.isna(value) else value for name, value in found.iloc[0].items()} if len(found) else None
