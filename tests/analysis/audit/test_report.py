import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from analysis.audit import report
from analysis.audit.finding import Counterpart, Finding, Outcome, Verdict
from analysis.audit.paper_audit import Audit

SCHEMA = json.loads((Path(report.__file__).parent / "findings.schema.json").read_text())


@pytest.fixture
def hostile():
    text = "<script>alert(1)</script> | *x* & y"
    finding = Finding(id="c/<b>", check="c", kind="impossible", sentence=text, printed=text, evidence={"t": text})
    return Audit(title=text, outcomes=(Outcome("c", text, 1, 0, (finding,)),))


def test_json_follows_its_schema(audit, hostile):
    for any_audit in (audit, hostile):
        jsonschema.validate(json.loads(json.dumps(report.as_json(any_audit), allow_nan=False)), SCHEMA)


def test_schema_refuses_an_unknown_kind(audit):
    data = report.as_json(audit)
    data["findings"][0]["kind"] = "fraud"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_summary_has_ten_lines_at_most_and_says_what_held(audit):
    lines = report.summary(audit)
    assert len(lines) <= report.SUMMARY_LINES
    assert "Without objection" in lines[-1]
    assert "improvements (21 of 21)" in lines[-1]
    assert any(line.startswith("P values: ") for line in lines), "checks have names, not keys"


def test_page_is_escaped_and_self_contained(hostile, audit):
    assert "<script" not in report.as_html(hostile)
    page = report.as_html(audit)
    assert "viewport" in page
    assert "src=" not in page and "<link" not in page and "@import" not in page


def test_markdown_is_escaped(hostile):
    text = report.as_markdown(hostile)
    assert "<script" not in text
    assert "\\|" in text


def test_counts_add_up(audit):
    data = report.as_json(audit)
    assert sum(data["summary"]["kinds"].values()) == len(data["findings"])
    assert all(0 <= check["held"] <= check["checked"] for check in data["checks"])


def test_writing_twice_gives_the_same_bytes(audit, tmp_path):
    first = [path.read_bytes() for path in report.write(audit, tmp_path / "a")]
    second = [path.read_bytes() for path in report.write(audit, tmp_path / "b")]
    assert first == second


def test_an_audit_without_objections(tmp_path):
    clean = Audit(title="clean", outcomes=(Outcome("c", "q", 2, 2),))
    assert report.summary(clean)[-1] == "Without objection: c (2 of 2)."
    report.write(clean, tmp_path)


def test_verdicts_from_runs_have_their_own_heading_and_numbers(audit):
    verdict = Verdict(
        "best-overall", "runs", "contradicted", "Because.", estimate=-0.5, interval=(-0.9, -0.1), p=0.03, runs=5
    )
    both = replace(audit, verdicts=(*audit.verdicts, verdict))
    for text in (report.as_markdown(both), report.as_html(both)):
        assert "Claims, on the printed tables alone" in text
        assert "Claims, against our runs" in text
        assert "estimate -0.5, interval [-0.9, -0.1], corrected p 0.03, 5 runs" in text
    jsonschema.validate(json.loads(json.dumps(report.as_json(both))), SCHEMA)


def test_printed_figures_outside_our_intervals_are_named_with_their_side():
    def beside(claim, difference, inside):
        interval = (difference - 0.5, difference + 0.5)
        return Counterpart(claim, "m", "1.0", difference=difference, interval=interval, inside=inside, runs=2)

    text = report._inside(
        [
            beside("T2/Beauty/HR@5/GRU4Rec", 4.0, False),
            beside("T2/Beauty/HR@10/GRU4Rec", 6.0, False),
            beside("T2/Beauty/HR@10/Caser", 0.1, True),
            beside("T3/Toys/HR@10/w/o ML", -2.0, False),
            beside("improvement/T2/Beauty/HR@5/AlignDiff", -3.0, False),
        ]
    )
    assert text == (
        " 3 printed figures lie outside the intervals of our runs; ours above: GRU4Rec on Beauty (2); ours below: "
        "w/o ML (Table 3) on Toys (1). 1 of 4 printed figures lie in an interval of our runs; over 2 seeds such an "
        "interval reaches up to ±0.50 points, so lying in it may say little."
    )
