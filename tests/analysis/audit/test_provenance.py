import pytest

from analysis.audit import provenance
from analysis.audit.printed import Printed

FIGURES = {"HR@5": "3.5457", "HR@10": "6.2048", "HR@20": "9.5939", "NDCG@5": "1.7554"}


def earlier(figures=FIGURES, dataset="Data"):
    values = {metric: Printed.parse(text) for metric, text in figures.items()}
    return provenance.EarlierRow("log", "Other", dataset, values, "training log", "seen", "About it.")


def found(cells, *rows):
    return provenance.check(cells, rows or (earlier(),)).findings


def test_three_equal_figures_are_reported_and_two_are_not(row):
    assert found(row(FIGURES))[0].evidence["equal"] == list(FIGURES)
    assert found(row(FIGURES | {"HR@5": "3.5458"}))
    assert not found(row(FIGURES | {"HR@5": "3.5458", "HR@10": "6.2049"}))
    assert not found(row(FIGURES, dataset="Other data"))


def test_figures_of_few_digits_are_no_evidence(row):
    short = {"HR@5": "3.5", "HR@10": "6.2", "HR@20": "9.6"}
    assert not found(row(short), earlier(short))


def test_round_offsets_are_exact(row):
    (finding,) = found(row(FIGURES | {"NDCG@5": "2.5554"}))
    assert finding.evidence["offsets"] == {"NDCG@5": pytest.approx(0.8)}
    (finding,) = found(row(FIGURES | {"NDCG@5": "2.5553"}))
    assert not finding.evidence["offsets"]
