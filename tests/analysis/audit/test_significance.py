import pytest

from analysis.audit import significance


def test_five_runs_are_too_few_for_an_exact_test():
    assert significance.check_exact_floor(5, 0.001).findings[0].kind == "context"
    assert significance.check_exact_floor(11, 0.001).findings[0].kind == "holds"


def judge(cell, p, metric="MAE"):
    cells = [cell(metric, "0.31", std="0.02", n=5, p=p), cell(metric, "0.34", std="0.05", n=5, model="Rival")]
    findings = significance.check(cells).findings
    if not findings:
        return "holds"
    assert findings[0].kind == "unsupported"  # a test over users or samples may always give it
    return "out of reach" if findings[0].evidence["out_of_reach"] else "unsupported"


def test_both_thresholds_from_both_sides(cell):
    # Smallest p of Student's t 0.0961 (of Welch's 0.1063), of the paired t 0.01106; one-sided half of each.
    assert judge(cell, "0.0481") == "holds"
    assert judge(cell, "0.0479") == "unsupported"
    assert judge(cell, "0.0056") == "unsupported"
    assert judge(cell, "0.0054") == "out of reach"
    assert judge(cell, "<0.001") == "out of reach"


def test_what_other_test_could_give_it_is_named(cell):
    for metric, other in (("MMD", "A permutation test of MMD over samples"), ("HR@10", "A test over users")):
        cells = [
            cell(metric, "0.31", std="0.02", n=5, p="<0.001"),
            cell(metric, "0.34", std="0.05", n=5, model="Rival"),
        ]
        (finding,) = significance.check(cells).findings
        assert finding.sentence.count(f"{other} does not rest on these figures and is not excluded.") == 1


def test_caption_is_compared_with_the_digits(cell):
    kinds = {
        p: significance.check_caption([cell("MMD", "1.0", p=p)], 0.001).findings[0].kind for p in ("0.001", "0.0020")
    }
    assert kinds == {"0.001": "context", "0.0020": "inconsistent"}
    assert not significance.check_caption([cell("MMD", "1.0", p="0.0009")], 0.001).findings
    assert not significance.check_caption([cell("MMD", "1.0", p="<0.001")], 0.001).findings


def test_missing_deviation_or_runs_means_no_test(cell):
    cells = [cell("MMD", "0.31", p="0.001", std="0.02", n=5), cell("MMD", "0.34", model="Rival")]
    assert significance.check(cells).checked == 0


@pytest.mark.parametrize(("p", "said"), [(0.06164, "0.061"), (0.0139, "0.013"), (0.011, "0.011"), (2.99e-7, "2.9e-07")])
def test_a_lower_bound_is_rounded_down(p, said):
    assert significance.at_least(p) == said
    assert float(said) <= p
