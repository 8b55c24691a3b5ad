from analysis.audit import significance


def test_five_runs_are_too_few_for_an_exact_test():
    assert significance.check_exact_floor(5, 0.001).findings[0].kind == "context"
    assert significance.check_exact_floor(11, 0.001).findings[0].kind == "holds"


def judge(cell, p, metric="MAE"):
    cells = [cell(metric, "0.31", std="0.02", n=5, p=p), cell(metric, "0.34", std="0.05", n=5, model="Rival")]
    findings = significance.check(cells).findings
    return findings[0].kind if findings else "holds"


def test_both_thresholds_from_both_sides(cell):
    # Smallest Welch p 0.1063; smallest paired p 0.01106, one-sided half of that.
    assert judge(cell, "0.11") == "holds"
    assert judge(cell, "0.105") == "unsupported"
    assert judge(cell, "0.0056") == "unsupported"
    assert judge(cell, "0.0054") == "impossible"
    assert judge(cell, "<0.001") == "impossible"


def test_a_metric_with_a_permutation_test_of_its_own_is_never_impossible(cell):
    assert judge(cell, "<0.001", metric="MMD") == "unsupported"
    assert judge(cell, "0.11", metric="MMD") == "holds"


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
