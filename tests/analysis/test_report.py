"""The report is one offline page, escapes all it shows, and leads from each figure to its record."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from analysis import figures, report, tables
from analysis.inventory import duration, rerun_command, size
from analysis.load import MixedRunsError
from tests.analysis.conftest import TRAINING

HISTORY = "epoch,loss,val_NDCG@10\n1,9.1,0.01\n2,8.2,\n3,7.9,0.02\n"
EVIL = "<script>alert(1)</script>"


def written(grid, plan, *extra, audit=None, draw=False, options=()):
    """Run tables, figures and report as the workflow does; return the page."""
    at = {name: str(grid.folder / name) for name in ("tables", "figures", "data", "report.html")}
    shared = ["--runs", str(grid.runs), "--plan", str(plan), *extra]
    assert tables.main([*shared, "--data", at["data"], "--out", at["tables"], "--resamples", "50"]) == 0
    if draw:
        assert figures.main([*shared, "--tables", at["tables"], "--out", at["figures"]]) == 0
    else:
        figures.write(iter(()), grid.folder / "figures")
    audited = ["--audit", str(audit)] if audit else []
    inputs = ["--data", at["data"], "--tables", at["tables"], "--figures", at["figures"]]
    assert report.main([*shared, *inputs, *audited, *options, "--out", at["report.html"]]) == 0
    return (grid.folder / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects what a browser would fetch, jump to, or run."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.sources, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        for name in ("href", "src"):
            if name in values:
                inside = name == "href" and values[name].startswith("#")
                (self.targets if inside else self.sources).append(unquote(values[name].removeprefix("#")))


def fill(grid):
    """Two methods; one seed diverged, one is missing, one run is outside the plan. Return the plan."""
    for seed, ranks in ((1, (1, 3, 7, 50)), (2, (2, 3, 9, 50))):
        grid.write("aligndiff", seed, ranks, history=HISTORY)
    grid.write("sasrec", 1, (6, 7, 30, 50), history=HISTORY)
    grid.write("sasrec", 2, status="diverged", reason=f"loss was nan {EVIL}", history="epoch\n")
    grid.write("outsider", 1)
    planned = [(m, s) for m in ("sasrec", "aligndiff") for s in (1, 2, 3)]
    return grid.plan(planned, displays={"sasrec": f"SAS{EVIL}"}, options=["--configfile", "config/demo.yaml"])


@pytest.fixture
def small(grid):
    return grid, fill(grid)


@pytest.fixture(scope="module")
def shared_grid(grid_at, tmp_path_factory):
    return grid_at(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(shared_grid):
    """The whole page with figures, made once."""
    return written(shared_grid, fill(shared_grid), draw=True)


def test_the_page_asks_for_nothing_outside_itself_and_runs_nothing(page):
    read = Page(page)
    assert all(source.startswith("data:") for source in read.sources)
    assert "script" not in read.tags and "iframe" not in read.tags and "@import" not in page
    assert "default-src 'none'" in page
    assert sum(source.startswith("data:image/svg+xml") for source in read.sources) == 2  # differences, curves


def test_texts_from_files_are_escaped(page):
    assert EVIL not in page and "&lt;script&gt;" in page


def test_every_link_inside_the_page_has_its_target_and_ids_are_unique(page):
    read = Page(page)
    assert set(read.targets) <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


def test_a_figure_leads_to_its_run_record_and_command(page, shared_grid):
    """Hop 1: the cell's link. Hop 2: the run's row. Hop 3: the record it names, which is on disk."""
    assert re.search(r'<a class="m" href="#beauty/aligndiff/seed1"[^>]*>75\.00', page)
    row = page[page.index('<tr id="beauty/aligndiff/seed1">') :].split("</tr>")[0]
    path = shared_grid.runs / "beauty/aligndiff/seed1/record.json"
    assert str(path) in row and path.is_file()
    assert f"snakemake --cores 2 --configfile config/demo.yaml -- {path}" in row


def test_a_run_with_other_settings_than_planned_says_so(grid):
    grid.write("sasrec", 1)
    grid.write("sasrec", 2, settings={"training": TRAINING | {"max_epochs": 3}})
    plan = grid.plan([("sasrec", 1), ("sasrec", 2)], settings={"beauty": {"sasrec": {"training": TRAINING}}})
    page = written(grid, plan)
    first, second = (page[page.index(f'<tr id="beauty/sasrec/seed{seed}">') :].split("</tr>")[0] for seed in (1, 2))
    assert "other settings than planned: training.max_epochs 3 instead of 200" in second and "planned" not in first
    assert "<b>1 of the runs had other settings" in page


def test_the_page_says_what_each_method_is(grid):
    grid.write("sasrec")
    plan = grid.plan([("sasrec", 1)], displays={"sasrec": "SASRec"})
    values = json.loads(plan.read_text())
    assert "What each method is" not in written(grid, plan)
    values["cells"][0]["summary"] = f"Attention {EVIL}"
    plan.write_text(json.dumps(values))
    page = written(grid, plan)
    assert "<li>SASRec <code>sasrec</code>: Attention &lt;script&gt;" in page and EVIL not in page


def test_runs_made_elsewhere_have_no_command_that_would_fail(small):
    assert "rm -r" in written(*small)
    elsewhere = written(*small, options=["--made-elsewhere"])
    assert "rm -r" not in elsewhere and "made elsewhere and only read here" in elsewhere


def test_gaps_and_failures_are_listed_with_reason(page):
    assert "loss was nan" in page and "not in the plan" in page
    missing = page[page.index('<tr id="beauty/sasrec/seed3">') :].split("</tr>")[0]
    assert "not run" in missing and "snakemake" in missing


def test_an_unreadable_run_is_refused_or_listed(small, capsys):
    grid, plan = small
    (grid.runs / "beauty/sasrec/seed1/record.json").write_text("{")
    with pytest.raises(ValueError, match="sasrec/seed1/record.json"):
        written(grid, plan)
    assert "unreadable" in written(grid, plan, "--skip-corrupt")


def test_mixed_runs_are_refused_or_shown_apart(small):
    grid, plan = small
    grid.write("sasrec", 3, code_digest="e" * 64)
    with pytest.raises(MixedRunsError):
        written(grid, plan)
    text = written(grid, plan, "--allow-mixed")
    assert "[code eeeeeeee]" in text and "never averaged" in text


def test_an_empty_grid_still_gives_a_page(grid):
    grid.runs.mkdir()
    text = written(grid, grid.plan([("aligndiff", 1)]))
    assert "No run of the main table has completed" in text


def test_a_main_table_without_aligndiff_claims_no_difference(grid):
    grid.write("sasrec", 1)
    text = written(grid, grid.plan([("sasrec", 1), ("aligndiff", 1)]))
    assert "What was measured" in text and "Tests of the differences" not in text


def test_the_audit_opens_the_page(small, tmp_path):
    claim = {"id": "c1", "source": "abstract", "statement": f"It is best {EVIL}"}
    verdict = {"claim": "c1", "basis": "runs", "status": "undecided", "because": "one run", "runs": 1, "p": None}
    finding = {"id": "f/1", "kind": "impossible", "sentence": f"No ranking gives {EVIL}."}
    values = {
        "summary": {"lines": ["P values: 3 of 3"], "kinds": {"impossible": 1}},
        "findings": [finding],
        "verdicts": [verdict],
        "claims": [claim],
    }
    path = tmp_path / "findings.json"
    path.write_text(json.dumps(values))
    text = written(*small, audit=path)
    assert text.index("<b>P values.</b> 3 of 3") < text.index('id="tables"')
    assert "It is best &lt;script&gt;" in text and EVIL not in text and "undecided" in text


def audit_file(folder, **values):
    path = folder / "findings.json"
    blank = {"summary": {"lines": [], "kinds": {}}, "findings": [], "verdicts": [], "claims": []}
    path.write_text(json.dumps(blank | values))
    return path


def test_verdicts_from_runs_stand_beside_their_rule_and_their_runs(small, tmp_path):
    because = "Weakest: HR@10 on beauty, aligndiff against sasrec: +1.0."
    verdict = {"claim": "c1", "basis": "runs", "status": "holds", "because": because, "runs": 2, "p": 0.01}
    audit = audit_file(
        tmp_path,
        verdicts=[verdict | {"family": "the claim's 180 comparisons, run or not"}],
        claims=[{"id": "c1", "source": "abstract", "statement": "It is best."}],
        thresholds={"alpha": 0.05, "margin_percent": 5.0, "least_seeds": 2},
    )
    text = written(*small, audit=audit)
    rule = text[text.index('<div class="rule">') :].split("</div>")[0]
    assert "below 0.05" in rule and "within 5 %" in rule and "needs 2 completed runs" in rule and "Holm" in rule
    assert "corrected p 0.010; Holm over the claim&#39;s 180 comparisons" in text
    assert '<a href="#beauty/aligndiff/seed1">aligndiff</a> against <a href="#beauty/sasrec/seed1">sasrec</a>' in text


def test_a_demonstration_says_that_it_judges_nothing(grid, tmp_path):
    grid.write("aligndiff", 1)
    text = written(grid, grid.plan([("aligndiff", 1)], verdicts=False), audit=audit_file(tmp_path))
    assert "its models are too small and too briefly trained to judge the paper by" in text
    assert "How a claim is judged by runs" not in text
    assert "too briefly trained" not in written(grid, grid.plan([("aligndiff", 1)]))


def test_the_first_table_compares_with_the_papers_baselines_and_names_the_rest_apart(grid):
    for method, ranks in (("aligndiff", (1, 3, 7, 50)), ("sasrec", (6, 7, 30, 50)), ("sasrec.tuned", (1, 1, 1, 1))):
        for seed in (1, 2):
            grid.write(method, seed, tuple(rank + seed - 1 for rank in ranks))
    text = written(grid, grid.plan([(m, s) for m in ("aligndiff", "sasrec", "sasrec.tuned") for s in (1, 2)]))
    line = text[text.index("<caption>NDCG@10") :].split("</table>")[0]
    assert ">sasrec: " in line and ">sasrec.tuned: " in line
    assert 'href="#tests/beauty/NDCG%4010/aligndiff/sasrec"' in line and "Holm over 2" in line
    row = text[text.index('<tr id="tests/beauty/NDCG@10/aligndiff/sasrec">') :].split("</tr>")[0]
    for run in ("aligndiff/seed1", "aligndiff/seed2", "sasrec/seed1", "sasrec/seed2"):
        assert f'href="#beauty/{run}"' in row


def test_a_damaged_audit_or_figure_list_is_named(small, tmp_path):
    path = tmp_path / "findings.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="findings.json: lacks summary"):
        report.read_audit(path)
    with pytest.raises(ValueError, match="figures.json"):
        report.read_pictures(tmp_path)


def test_the_same_records_give_the_same_page(small):
    assert written(*small) == written(*small)


def test_times_and_sizes_read_as_people_say_them():
    assert [duration(s) for s in (0, 4.24, 61, 3599, 11100)] == ["", "4.2 s", "1 min", "1 h 00 min", "3 h 05 min"]
    assert [size(n) for n in (0, 300 * 2**20, 3 * 2**29)] == ["", "300 MiB", "1.5 GiB"]
    assert rerun_command("a b/record.json", []) == "rm -r 'a b' && snakemake --cores 2 -- 'a b/record.json'"
