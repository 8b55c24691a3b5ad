"""A small version of benchmarks/audit_power.py; the record beside it holds the full one."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.audit import planted
from benchmarks import audit_power

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def measured():
    return audit_power.measure(num_tables=12, seed=1)["kinds"]


def test_no_false_alarm_on_consistent_tables(measured):
    clean = [row for name, row in measured.items() if name.startswith("none")]
    assert len(clean) == 4
    assert all(row["found_with_users"] == 0 for row in clean)


@pytest.mark.parametrize(
    "name",
    [
        "one cell nudged by 20%",
        "two columns swapped",
        "MRR printed as NDCG in one row",
        "improvements over the wrong rival",
        "one row copied from another",
    ],
)
def test_gross_defects_are_found_in_every_table(measured, name):
    assert measured[name]["found"] == measured[name]["tables"]


def test_most_tables_with_p_values_far_too_small_are_found(measured):
    row = measured["p-values 100 times too small"]
    assert row["found"] >= row["tables"] / 2  # a large honest p, a hundredth of it, may be another test's


def test_changed_last_digits_are_found_where_users_are_known(measured):
    row = measured["last two digits of HR redrawn"]
    assert row["found_with_users"] == row["tables"]


def test_metrics_of_counts_by_hand():
    counts = np.zeros(20, dtype=np.int64)
    counts[[0, 6]] = (10, 20)  # ten users at rank 1, twenty at rank 7
    hr5, hr10, hr20, ndcg5, ndcg10, ndcg20 = planted.metrics_of(counts, 100)
    assert (hr5, hr10, hr20) == pytest.approx((10, 30, 30))
    assert (ndcg5, ndcg10, ndcg20) == pytest.approx((10, 10 + 20 / 3, 10 + 20 / 3))


def test_record_covers_every_kind_over_a_thousand_tables():
    record = json.loads((ROOT / "benchmarks/records/audit_power.json").read_text())
    assert set(record["kinds"]) == set(planted.DEFECTS)
    assert all(row["tables"] >= 1000 for row in record["kinds"].values())
    assert all(row["found_with_users"] == 0 for name, row in record["kinds"].items() if name.startswith("none"))


def test_the_record_says_how_often_far_too_small_p_values_are_found():
    row = json.loads(audit_power.RECORD.read_text())["kinds"]["p-values 100 times too small"]
    assert row["found"] > 0.85 * row["tables"]


def test_readme_shows_the_record():
    record = json.loads(audit_power.RECORD.read_text())
    assert audit_power.markdown(record) in audit_power.README.read_text()
