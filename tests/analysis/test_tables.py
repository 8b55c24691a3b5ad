"""Cells say what was measured and what was not; every format says the same."""

import csv
import io
import json
import re

import pytest

from analysis import comparisons, table_formats
from analysis.audit.paper_tables import load_paper
from analysis.load import load_runs
from analysis.measured import CUT_OFF_MEANS, Cell, Measurements, averaged, marked
from analysis.plan import read_plan
from analysis.summary import summary
from analysis.table_specs import FLOORS, OTHER_METHODS, OTHER_SETTINGS, OWN_VARIANTS, TABLES, TWINS, twins
from analysis.tables import build_tables, main, read_stats
from harness.methods import known_methods
from tests.analysis.conftest import TRAINING

BEST, WORSE = (1, 3, 7, 50), (6, 7, 30, 50)  # HR@5 50 %, HR@10 75 %; HR@5 0 %, HR@10 50 %


def tables_of(grid, plan, **options):
    measured = Measurements(load_runs(grid.runs, **options), read_plan(plan))
    return {table.slug: table for table in build_tables(measured, paper=load_paper(), stats={})}


def row_of(table, method, *, protocol="kept", dataset="beauty"):
    block = next(b for b in table.blocks if (b.dataset, b.protocol) == (dataset, protocol))
    row = next(row for row in block.all_rows if method in (row.method, row.label))
    return dict(zip(block.columns, row.cells, strict=True))


def test_mean_and_sample_deviation_over_seeds(grid):
    grid.write("sasrec", 1, BEST)
    grid.write("sasrec", 2, WORSE)
    cell = row_of(tables_of(grid, grid.plan([("sasrec", 1), ("sasrec", 2)]))["table2"], "sasrec")["HR@10"]
    assert (cell.value, cell.n, cell.printed) == (62.5, 2, "6.2648")
    assert cell.std == pytest.approx(12.5 * 2**0.5)  # n - 1: sqrt((12.5^2 + 12.5^2) / 1)
    assert cell.text == "62.50 ± 17.68"


def test_one_seed_has_no_deviation(grid):
    grid.write("sasrec", 1)
    cell = row_of(tables_of(grid, grid.plan([("sasrec", 1)]))["table2"], "sasrec")["HR@5"]
    assert cell.std is None and cell.text == "50.00" and cell.note == ""


def test_a_missing_seed_shows(grid):
    grid.write("sasrec", 1)
    cell = row_of(tables_of(grid, grid.plan([("sasrec", 1), ("sasrec", 2)]))["table2"], "sasrec")["HR@5"]
    assert cell.n == 1 and cell.note == "1 of 2 seeds: 1 not run"


@pytest.mark.parametrize(
    ("statuses", "state", "note"),
    [
        (("diverged", "diverged"), "diverged (2 of 3)", None),
        (("diverged", "out_of_memory"), "diverged (1 of 3), out of memory (1 of 3)", None),
        (("completed", "diverged"), "50.00", "1 of 3 seeds: 1 diverged, 1 not run"),
        ((), "not run", None),
    ],
)
def test_failures_are_counted_and_never_zero(grid, statuses, state, note):
    grid.runs.mkdir()
    for seed, status in enumerate(statuses, 1):
        grid.write("sasrec", seed, status=status, reason="nan")
    cell = row_of(tables_of(grid, grid.plan([("sasrec", s) for s in (1, 2, 3)]))["table2"], "sasrec")["HR@5"]
    assert cell.text == state
    if note is None:
        assert cell.value is None and cell.records == ()
    else:
        assert cell.note == note


def test_an_unreadable_run_is_said_to_be_one(grid):
    grid.write("sasrec", 1).write_text("{")
    table = tables_of(grid, grid.plan([("sasrec", 1)]), skip_corrupt=True)["table2"]
    assert row_of(table, "sasrec")["HR@5"].text == "unreadable (1 of 1)"


def test_mixed_code_gives_two_rows_and_no_average(grid):
    grid.write("sasrec", 1, BEST)
    grid.write("sasrec", 2, WORSE, code_digest="e" * 64)
    table = tables_of(grid, grid.plan([("sasrec", 1), ("sasrec", 2)]), allow_mixed=True)["table2"]
    values = [row_of(table, f"sasrec [code {d * 8}]")["HR@10"].value for d in "ce"]
    assert values == [75.0, 50.0]


def test_seeds_in_another_row_are_not_called_missing(grid):
    for seed, code in ((1, "c"), (2, "c"), (3, "e")):
        grid.write("aligndiff", seed, BEST, code_digest=code * 64)
    grid.write("sasrec", 1, WORSE)
    plan = grid.plan([("aligndiff", 1), ("aligndiff", 2), ("aligndiff", 3), ("sasrec", 1)])
    table = tables_of(grid, plan, allow_mixed=True)["table2"]
    notes = [row_of(table, f"aligndiff [code {d * 8}]")["HR@10"].note for d in "ce"]
    assert notes == ["2 of 3 seeds: 1 in another row", "1 of 3 seeds: 2 in another row"]
    assert row_of(table, GAIN)["HR@10"].text == "runs are mixed"


def test_runs_outside_the_plan_stay_out(grid):
    grid.write("sasrec", 1, BEST)
    grid.write("sasrec", 9, WORSE)
    assert row_of(tables_of(grid, grid.plan([("sasrec", 1)]))["table2"], "sasrec")["HR@10"].value == 75.0


GAIN = "AlignDiff over the best baseline, %"
RIVALS = {"sasrec": WORSE, "caser": (9, 99, 99, 99), "sasrec.tuned": BEST, "floor.knn": (1,) * 4, "mine": (1,) * 4}


@pytest.fixture
def crowded(grid):
    """Baselines of the paper, and a tuned one, a floor, a new method and a variant that are all better."""
    for method, ranks in {**RIVALS, "aligndiff": BEST, "aligndiff.b": (1,) * 4}.items():
        grid.write(method, 1, ranks)
    return tables_of(grid, grid.plan([(m, 1) for m in (*RIVALS, "aligndiff", "aligndiff.b")]))["table2"]


def test_improvement_is_over_the_best_of_the_papers_baselines(crowded):
    cells = row_of(crowded, GAIN)
    assert cells["HR@10"].value == pytest.approx(50.0)  # 75 against 50
    assert cells["HR@10"].note == "against sasrec, the best of 2 measured of 10"
    assert cells["HR@10"].printed == "2.8" and len(cells["HR@10"].records) == 2
    assert cells["HR@5"].value is None  # no baseline above zero


def test_what_the_paper_does_not_compare_is_apart_and_never_best(crowded):
    block = crowded.blocks[0]
    assert {group: [row.method for row in rows] for group, rows in block.groups.items()} == {
        OTHER_METHODS: ["mine"],
        OTHER_SETTINGS: ["sasrec.tuned"],
        OWN_VARIANTS: ["aligndiff.b"],
        FLOORS: ["floor.knn"],
    }
    assert not any(cell.mark for row in block.others for cell in row.cells)
    assert row_of(crowded, "aligndiff")["HR@10"].mark == "best"
    assert row_of(crowded, "sasrec")["HR@10"].mark == "second"
    groups = {row["method"]: row["group"] for row in csv.DictReader(io.StringIO(table_formats.as_csv(crowded)))}
    assert groups["sasrec"] == "paper" and groups["floor.knn"] == FLOORS and groups[""] == "derived"
    for text in (table_formats.as_html(crowded), table_formats.as_markdown(crowded), table_formats.as_latex(crowded)):
        assert text.index(FLOORS) > text.index(GAIN.removesuffix(", %"))


def test_variants_of_the_tuned_model_stand_below_the_papers_and_in_no_other_table(grid):
    methods = ("aligndiff.tuned", "aligndiff.tuned.correction_2", "aligndiff.tuned.no_correction")
    for method in methods:
        grid.write(method, 1, BEST, dataset="toys")
    plan = grid.plan([(method, 1, "toys") for method in methods], datasets={"toys": {"display": "Toys"}})
    tables = tables_of(grid, plan)
    main_block, block = (
        next(b for b in tables[name].blocks if (b.dataset, b.protocol) == ("toys", "kept"))
        for name in ("table2", "table6")
    )
    assert [row.label for row in block.rows] == ["1 step", "2 steps", "4 steps", "8 steps"]
    assert [row.text for row in block.rows[0].cells] == ["not run"] * 2
    assert {group: [row.label for row in rows] for group, rows in block.groups.items()} == {
        TWINS: ["1 step, tuned", "2 steps, tuned"]
    }
    assert [row.method for row in main_block.others] == ["aligndiff.tuned", methods[2]]


def test_the_tuned_model_alone_makes_no_rows_of_variants(grid):
    grid.write("aligndiff.tuned", 1, BEST)
    tables = tables_of(grid, grid.plan([("aligndiff.tuned", 1)]))
    assert not any(block.others for number in "3467" for block in tables[f"table{number}"].blocks)


def test_only_tables_of_aligndiffs_variants_have_twins():
    assert [spec.slug for spec in TABLES if twins(spec)] == ["table3", "table4", "table6", "table7"]
    known = known_methods()
    assert not [subject.method for spec in TABLES for subject in twins(spec) if subject.method not in known]


def test_other_rows_that_nobody_ran_are_named_in_one_line(grid):
    grid.write("sasrec", 1)
    grid.write("caser.tuned", 1, status="diverged", reason="nan")
    table = tables_of(grid, grid.plan([(m, 1) for m in ("sasrec", "sasrec.tuned", "caser.tuned")]))["table2"]
    assert [row.method for rows in table.blocks[0].groups.values() for row in rows] == ["caser.tuned"]
    for text in (table_formats.as_markdown(table), table_formats.as_html(table)):
        assert re.search(r"Planned and not run[^:]*: sasrec.tuned\.", text) and "diverged (1 of 1)" in text
    rows = csv.DictReader(io.StringIO(table_formats.as_csv(table)))
    assert "not run" in [row["state"] for row in rows if row["method"] == "sasrec.tuned"]


def test_no_improvement_over_other_data(grid):
    grid.write("sasrec", 1, WORSE)
    grid.write("aligndiff", 1, BEST, data_sha256="f" * 64)
    table = tables_of(grid, grid.plan([("sasrec", 1), ("aligndiff", 1)]), allow_mixed=True)["table2"]
    cell = row_of(table, GAIN)["HR@10"]
    assert cell.value is None and cell.text == "runs saw different data"


def test_a_dataset_of_ones_own_shows_only_what_is_planned(grid):
    """Nothing of the paper's, which has no such dataset: neither its rows nor its other tables."""
    grid.write("mine", 1, dataset="shop")
    plan = grid.plan([("mine", 1, "shop"), ("floor.knn", 1, "shop")], datasets={"shop": {"display": "Shop"}})
    tables = tables_of(grid, plan)
    assert list(tables) == ["table1", "table2"]
    assert {block.dataset for block in tables["table2"].blocks} == {"shop"}
    assert [row.method for row in tables["table1"].blocks[0].rows] == ["shop"]
    block = tables["table2"].blocks[0]
    assert (block.dataset, block.rows, block.derived) == ("shop", (), ())
    assert [row.method for row in block.others] == ["mine", "floor.knn"] and block.is_measured


def test_best_and_second_are_marked_among_the_measured():
    cells = [averaged([v], Cell()) for v in (1.0, 3.0, 2.0, 3.0)] + [Cell()]
    assert [cell.mark for cell in marked(cells)] == ["", "best", "second", "best", ""]
    assert [cell.mark for cell in marked(cells, lower_is_better=True)] == ["best", "", "second", "", ""]
    assert [cell.mark for cell in marked([cells[0], Cell()])] == ["", ""]


def test_no_probability_is_shown_as_zero_and_no_zero_as_negative():
    assert Cell(value=1e-9, decimals=4, is_p=True).text == "< 0.0001"
    assert Cell(value=0.0321, decimals=4, is_p=True).text == "0.0321"
    assert Cell(value=-1e-9).text == "0.00"


def test_every_printed_cell_of_the_paper_has_its_place(grid):
    """Tables 2 to 7 lose no printed figure, even if nothing was run."""
    grid.runs.mkdir()
    built, paper = tables_of(grid, grid.plan([("sasrec", 1)], cutoffs=[5, 10, 20])), load_paper()
    for number in "234567":
        table = built[f"table{number}"]
        protocols = {block.protocol for block in table.blocks}
        blocks = [block for block in table.blocks if block.protocol in ("kept", "")]
        shown = sum(bool(cell.printed) for block in blocks for row in block.rows for cell in row.cells)
        views = 3 if number == "5" else 1
        assert shown == views * len(paper.table(number)), f"table {number}"
        assert protocols == ({""} if number == "5" else {"kept", "hidden"})


def test_specs_name_the_paper_as_transcribed():
    paper = load_paper()
    for spec in TABLES:
        names = {subject.printed for subject in spec.subjects if subject.printed}
        assert names == {cell.model for cell in paper.table(spec.slug.removeprefix("table"))}


def test_a_sweep_becomes_a_table_of_its_values(grid):
    for value in (0.1, 0.5):
        grid.write(f"aligndiff.omega_{value}", 1)
    names = [f"aligndiff.omega_{value}" for value in (0.1, 0.5)]
    sweep = {"name": "omega", "field": "omega", "method": "aligndiff", "values": [0.1, 0.5], "cells": names}
    tables = tables_of(grid, grid.plan([(name, 1) for name in names], sweeps=[sweep]))
    assert row_of(tables["figure3_omega"], "omega = 0.5")["HR@10"].value == 75.0
    methods = {row.method for block in tables["table2"].blocks for row in block.rows}
    assert not methods & set(names)


@pytest.fixture
def awkward(grid):
    """A display name that is markup in every format."""
    grid.write("odd", 1)
    plan = grid.plan([("odd", 1)], displays={"odd": "<script>alert('x_y & 100%|')</script>"})
    return tables_of(grid, plan)["table2"]


def test_html_is_escaped(awkward):
    html = table_formats.as_html(awkward)
    assert "<script" not in html and "&lt;script&gt;" in html


def test_markdown_is_escaped(awkward):
    line = next(line for line in table_formats.as_markdown(awkward).split("\n") if "alert" in line)
    assert "<" not in line.replace("<u>", "").replace("</u>", "") and r"\|" in line
    assert len(re.split(r"(?<!\\)\|", line)) == 1 + 4 + 1 + 2  # label, metrics, runs, both ends


def test_golden_table(grid):
    grid.write("sasrec", 1, BEST)
    grid.write("sasrec", 2, WORSE)
    grid.write("aligndiff", 1, BEST)
    cells = [("sasrec", 1), ("sasrec", 2), ("aligndiff", 1), ("aligndiff", 2)]
    table = tables_of(grid, grid.plan(cells, displays={"sasrec": "SASRec", "aligndiff": "AlignDiff"}))["table2"]
    lines = table_formats.as_markdown(table).split("\n")
    assert "## Beauty, seen items stay candidates" in lines
    assert (
        "| SASRec | <u>25.00 ± 35.36</u> (3.2688) | <u>62.50 ± 17.68</u> (6.2648) "
        "| <u>18.75 ± 26.52</u> (2.3989) | <u>31.54 ± 20.22</u> (3.2305) | 2 |" in lines
    )
    ours = "| AlignDiff | **50.00** (5.8675) | **75.00** (8.126) | **37.50** (4.2023) | **45.83** (4.9261) | 1 of 2 |"
    assert ours in lines
    assert "- AlignDiff: 1 of 2 seeds: 1 not run" in lines
    assert "| Caser | not run (1.6118) | not run (2.8166) | not run (0.9758) | not run (1.3602) |  |" in lines


def test_csv_leads_from_each_cell_to_its_records(grid):
    record = grid.write("sasrec", 1)
    table = tables_of(grid, grid.plan([("sasrec", 1), ("sasrec", 2)]))["table2"]
    rows = list(csv.DictReader(io.StringIO(table_formats.as_csv(table))))
    mine = [row for row in rows if (row["method"], row["column"], row["protocol"]) == ("sasrec", "HR@5", "kept")]
    assert mine[0]["records"] == str(record) and mine[0]["measured"] == "50.0" and mine[0]["std"] == ""
    absent = next(row for row in rows if row["method"] == "caser")
    assert (absent["measured"], absent["state"]) == ("", "not run")


def test_json_round_trip(grid, tmp_path):
    grid.write("sasrec", 1)
    tables = list(tables_of(grid, grid.plan([("sasrec", 1)])).values())
    table_formats.write(tables, tmp_path / "out")
    assert table_formats.read(tmp_path / "out") == tables


def test_table_1_compares_counts_with_the_printed_ones(grid, tmp_path):
    folder = tmp_path / "data" / "beauty"
    folder.mkdir(parents=True)
    counts = {"users": 22363, "items": 12101, "actions": 198502, "avg_len": 198502 / 22363, "sparsity_percent": 99.9266}
    (folder / "stats.json").write_text(json.dumps(counts))
    grid.write("sasrec", 1)
    measured = Measurements(load_runs(grid.runs), read_plan(grid.plan([("sasrec", 1)])))
    stats = read_stats(tmp_path / "data", ["beauty", "toys"])
    table = build_tables(measured, paper=load_paper(), stats=stats)[0]
    cells = dict(zip(table.blocks[0].columns, table.blocks[0].rows[0].cells, strict=True))
    assert (cells["Avg. length"].text, cells["Avg. length"].printed) == ("8.88", "8.53")
    assert (cells["Actions"].text, cells["Actions"].printed) == ("198502", "198502")
    assert table.blocks[0].rows[1].cells[0].text == "not processed"


def test_comparisons_carry_records_and_correct_for_their_family(grid):
    for method, ranks in (("aligndiff", BEST), ("sasrec", WORSE), ("aligndiff.b", BEST)):
        for seed in (1, 2):
            grid.write(method, seed, tuple(r + seed for r in ranks))
    plan = grid.plan([(m, s) for m in ("aligndiff", "sasrec", "aligndiff.b") for s in (1, 2)])
    table = comparisons.compare_runs(load_runs(grid.runs), read_plan(plan), resamples=50)
    assert set(zip(table["rival"], table["family"], strict=True)) == {
        ("sasrec", "baselines"),
        ("aligndiff.b", "variants"),
    }
    for p in comparisons.CORRECTED:  # one rival a family, which counts if it has a p
        assert (table[f"{p}_family"] == table[p].notna()).all()
    assert all(len(records.split("; ")) == 4 for records in table["records"])


def test_a_family_counts_the_tests_that_there_are(grid):
    """A rival with one seed has a p over users and none over seeds."""
    for method, seeds in (("aligndiff", (1, 2)), ("sasrec", (1, 2)), ("caser", (1,))):
        for seed in seeds:
            grid.write(method, seed, tuple(r + seed for r in (BEST if method == "aligndiff" else WORSE)))
    plan = grid.plan([("aligndiff", 1), ("aligndiff", 2), ("sasrec", 1), ("sasrec", 2), ("caser", 1)])
    table = comparisons.compare_runs(load_runs(grid.runs), read_plan(plan), resamples=50)
    assert set(table["users_p_family"]) == {2} and set(table["both_p_family"]) == {1}


def test_variants_of_the_tuned_model_are_compared_with_that_and_in_a_family_of_their_own(grid):
    methods = ("aligndiff", "aligndiff.tuned", "aligndiff.tuned.energy_1", "sasrec")
    for method in methods:
        grid.write(method, 1, BEST)
    plan = grid.plan([(method, 1) for method in methods])
    table = comparisons.compare_runs(load_runs(grid.runs), read_plan(plan), resamples=50)
    assert set(zip(table["method"], table["rival"], table["family"], strict=True)) == {
        ("aligndiff", "sasrec", "baselines"),
        ("aligndiff", "aligndiff.tuned", "variants"),
        ("aligndiff.tuned", "aligndiff.tuned.energy_1", "tuned variants"),
    }
    assert set(table["family"]) == comparisons.FAMILIES.keys()


def test_command_line_writes_every_format_and_warns_of_gaps(grid, capsys):
    grid.write("sasrec", 1)
    plan, out = grid.plan([("sasrec", 1), ("sasrec", 2)]), grid.folder / "tables"
    arguments = ["--runs", str(grid.runs), "--data", str(grid.folder), "--plan", str(plan), "--out", str(out)]
    assert main(arguments) == 0
    names = {path.name for path in out.iterdir()}
    assert {f"table{n}.{kind}" for n in range(1, 8) for kind in ("csv", "md", "tex", "html")} <= names
    assert {"tables.json", "comparisons.csv"} <= names
    assert "1 of 2 planned runs are not there, e.g. beauty/sasrec/seed2" in capsys.readouterr().err
    text = summary(out, grid.folder / "report.html")
    assert "50.00" in text and "not there yet" in text


def test_a_figure_of_a_run_that_was_cut_off_says_so_in_every_format(grid):
    """AlignDiff was ended by its five epochs, SASRec stopped by itself; what is made of both is marked, too."""
    budget = {"model": {}, "training": TRAINING | {"max_epochs": 5}}
    grid.write("aligndiff", settings=budget)
    grid.write("sasrec")
    grid.write("aligndiff.correction_8", best_epoch=None, epochs_run=0)  # ranks the weights of AlignDiff again
    planned = [("aligndiff", 1), ("sasrec", 1), ("aligndiff.correction_8", 1)]
    tables = tables_of(grid, grid.plan(planned))
    assert row_of(tables["table6"], "aligndiff.correction_8")["HR@10"].text == "75.00†"
    table = tables["table2"]
    block = next(block for block in table.blocks if block.is_measured)
    text = {row.method: row.cells[0].text for row in block.all_rows if row.cells[0].value is not None}
    assert text["aligndiff"] == "50.00†" and text["sasrec"] == "50.00"
    assert text[""] == "0.0†", "the improvement over the best baseline"
    for written in (table_formats.as_markdown(table), table_formats.as_html(table)):
        assert CUT_OFF_MEANS in written and "50.00†" in written
    assert "ended by its limit of epochs" in table_formats.as_latex(table)
    assert r"50.00$\dagger$" in table_formats.as_latex(table)
    rows = list(csv.DictReader(io.StringIO(table_formats.as_csv(table))))
    assert {row["cut_off"] for row in rows if row["method"] == "aligndiff" and row["measured"]} == {"1"}
