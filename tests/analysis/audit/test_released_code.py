import pytest

from analysis.audit import released_code
from analysis.audit.paper_tables import DatasetRow


def test_unknown_effect_names_the_row():
    with pytest.raises(ValueError, match="typo.*stops it"):
        released_code.check_code([{"id": "typo", "file": "f", "effect": "breaks", "defect": "", "why": ""}])


def test_equal_counts_hold_and_a_differing_one_is_named():
    printed = [DatasetRow("D", 10, 5, 50)]
    assert released_code.check_data(printed, printed).held == 3
    outcome = released_code.check_data(printed, [DatasetRow("D", 10, 6, 50)])
    assert outcome.held == 2
    assert outcome.findings[0].evidence["counts"] == {"items": {"printed": 5, "released": 6}}
