import pytest

from analysis.audit import settings


def rows(best, low="0.1", high="1"):
    return [{"symbol": "g", "meaning": "gain", "low": low, "high": high, "best": best, "source": "S", "note": ""}]


@pytest.mark.parametrize(
    ("best", "kind"),
    [("0.5", None), ("0.1", "context"), ("1", "context"), ("0.09", "inconsistent"), ("2", "inconsistent")],
)
def test_optimum_inside_at_the_edge_and_outside(best, kind):
    findings = settings.check(rows(best)).findings
    assert (findings[0].kind if findings else None) == kind


def test_symbol_with_two_meanings():
    twice = rows("0.5") + [rows("0.3")[0] | {"meaning": "loss weight"}]
    outcome = settings.check(twice)
    assert outcome.findings[0].evidence["meanings"] == ["gain", "loss weight"]
    assert outcome.findings[0].kind == "context" and outcome.held == outcome.checked  # no two statements disagree
    same = rows("0.5") + [rows("0.3")[0] | {"meaning": "gain (other data)"}]
    assert not settings.check(same).findings
