import pytest

from analysis.audit.claims import KINDS, TWO_PLACES, Claim, all_claims, table_verdicts
from analysis.audit.finding import Finding, Verdict


def finding(kind):
    return Finding(id=f"x/{kind}", check="x", kind=kind, sentence=f"{kind}.", claims=("c",))


def claim(kind="ordering"):
    return Claim("c", "Table 2", kind, "*", "*", "Ours", "*", "", "ordering")


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ((), "undecided"),
        (("context",), "undecided"),
        (("holds",), "holds"),
        (("unsupported", "holds"), "undecided"),
        (("inconsistent",), "contradicted"),
        (("impossible", "unsupported"), "contradicted"),
        (("inconsistent", "holds"), "undecided"),
    ],
)
def test_verdict_from_findings(kinds, status):
    (verdict,) = table_verdicts([claim()], [finding(kind) for kind in kinds])
    assert verdict.status == status
    assert len(verdict.findings) == len(kinds)


@pytest.mark.parametrize("check", TWO_PLACES)
def test_two_places_that_disagree_leave_a_claim_undecided(check):
    disagreeing = Finding(id="x/y", check=check, kind="inconsistent", sentence="A, B.", claims=("c",))
    (verdict,) = table_verdicts([claim()], [disagreeing, finding("holds")])
    assert (verdict.status, verdict.because) == ("undecided", "A, B.")


def test_every_printed_number_is_a_claim(paper):
    claims = all_claims(paper)
    ids = [claim.id for claim in claims]
    assert len(ids) == len(set(ids))
    counts = {kind: sum(claim.kind == kind for claim in claims) for kind in KINDS}
    assert counts["cell"] == len(paper.cells) + 5 * len(paper.statistics)
    assert counts["improvement"] == 18 + 3
    assert counts["best-setting"] == 6


def test_findings_point_at_claims_that_exist(paper, audit):
    ids = {claim.id for claim in all_claims(paper)}
    assert {claim for finding in audit.findings for claim in finding.claims} <= ids


def test_finding_ids_are_unique(audit):
    ids = [finding.id for finding in audit.findings]
    assert len(ids) == len(set(ids))


def test_one_run_decides_nothing():
    with pytest.raises(ValueError, match="one run decides nothing"):
        Verdict("c", "runs", "contradicted", "because", runs=1)
    Verdict("c", "runs", "undecided", "because", runs=1)


def test_unknown_kind_and_status_are_refused():
    with pytest.raises(ValueError, match="none of"):
        Finding(id="x", check="x", kind="fraud", sentence="")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of"):
        Verdict("c", "runs", "wrong", "because")  # type: ignore[arg-type]
