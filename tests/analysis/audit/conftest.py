"""Short ways to write printed cells and rows in tests."""

from __future__ import annotations

import pytest

from analysis.audit.cells import Cell
from analysis.audit.paper_audit import audit_paper
from analysis.audit.paper_tables import load_paper
from analysis.audit.printed import Printed


def _cell(metric="HR@10", value="1.0", *, dataset="Data", model="Ours", table="2", **extra):
    for name in ("std", "p", "improvement"):
        if isinstance(extra.get(name), str):
            extra[name] = Printed.parse(extra[name])
    return Cell(table=table, dataset=dataset, metric=metric, model=model, printed=Printed.parse(value), **extra)


@pytest.fixture(scope="session")
def cell():
    """cell("HR@10", "8.1260", model="Ours", std="0.1", n=5, ...) -> Cell"""
    return _cell


@pytest.fixture(scope="session")
def row():
    """row({"HR@5": "10.0", ...}) -> cells of one model"""

    def make(figures, **extra):
        return [_cell(metric, value, **extra) for metric, value in figures.items()]

    return make


@pytest.fixture(scope="session")
def paper():
    return load_paper()


@pytest.fixture(scope="session")
def audit(paper):
    return audit_paper(paper)


@pytest.fixture(scope="session")
def found(audit):
    """Finding by id."""
    return {finding.id: finding for finding in audit.findings}
