from analysis.audit import statements
from analysis.audit.claims import Claim


def claim(**changes):
    values = dict(
        id="c",
        source="Table 2",
        kind="ordering",
        dataset="*",
        metric="*",
        subject="Ours",
        object="*",
        value="",
        tested_by="",
    )
    return Claim(**values | changes)


def outcome(cell, ours, metric="HR@10", **changes):
    cells = [cell(metric, ours), cell(metric, "5.0", model="Rival"), cell(metric, "9.0", model="Other", table="3")]
    return statements.check_orderings([claim(**changes)], cells)


def test_order_is_compared_within_one_table(cell):
    assert outcome(cell, "5.1").findings[0].kind == "holds"
    assert outcome(cell, "5.0").findings[0].kind == "inconsistent"
    assert outcome(cell, "4.9").findings[0].evidence["against"] == ["Data HR@10 against Rival"]


def test_lower_is_better_for_mmd(cell):
    assert outcome(cell, "4.9", metric="MMD").findings[0].kind == "holds"


def test_claim_without_any_printed_comparison_does_not_hold(cell):
    assert outcome(cell, "5.1", object="Nobody").findings[0].kind == "inconsistent"


def test_sparse_gains_on_every_metric(cell):
    def gains(*values):
        pairs = zip(("Sparse", "Dense"), values, strict=True)
        return [cell("HR@10", "1.0", dataset=name, improvement=value) for name, value in pairs]

    assert statements.check_sparse_gains(gains("5.0", "4.9"), ("Sparse",), "Dense").findings[0].kind == "holds"
    assert statements.check_sparse_gains(gains("4.9", "4.9"), ("Sparse",), "Dense").findings[0].kind == "unsupported"
