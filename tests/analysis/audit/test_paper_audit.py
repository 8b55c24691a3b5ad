"""The audit finds, from the CSV files alone, what a careful reader found by hand; with the same figures."""

import time
from pathlib import Path

import pytest

from analysis.audit import context
from analysis.audit.paper_audit import audit_paper
from analysis.audit.paper_tables import read_facts
from analysis.audit.report import summary
from harness.record import read_record

ROOT = Path(__file__).resolve().parents[3]
RUNS = ROOT / "results/reference/runs"


def test_own_copy_of_the_tables_is_the_transcription(shared_dir):
    ours, transcribed = (
        {path.name: path.read_bytes() for path in folder.glob("*.csv")}
        for folder in (ROOT / "analysis/audit/paper", shared_dir / "paper")
    )
    assert ours.keys() == transcribed.keys() != set()
    assert ours == transcribed


def test_table_1_average_length_of_beauty(found):
    finding = found["dataset_statistics/Beauty/avg_len"]
    assert (finding.printed, finding.expected) == ("8.53", "8.88")
    assert [f for f in found if f.startswith("dataset_statistics/")] == ["dataset_statistics/Beauty/avg_len"]


def test_all_21_improvements_recompute(audit, found):
    (outcome,) = [outcome for outcome in audit.outcomes if outcome.check == "improvements"]
    assert (outcome.checked, outcome.held) == (21, 21)
    assert found["improvements/all"].kind == "holds"


@pytest.mark.parametrize(
    ("dataset", "metric", "difference", "is_round", "gap"),
    [
        ("Beauty", "HR@20", 0.3, True, -0.33),
        ("ML-1M", "HR@5", 1.9480, False, -9.17),
        ("ML-1M", "HR@10", 1.9259, False, -3.23),
        ("ML-1M", "HR@20", 1.0, True, -0.19),
        ("ML-1M", "NDCG@5", 1.5, True, -8.56),
        ("ML-1M", "NDCG@10", 1.6, True, -6.09),
        ("ML-1M", "NDCG@20", 1.5, True, -4.70),
    ],
)
def test_same_cell_in_tables_2_and_3(found, dataset, metric, difference, is_round, gap):
    evidence = found[f"repeated_cells/{dataset}/{metric}/T3"].evidence
    assert evidence["difference"] == pytest.approx(difference)
    assert evidence["is_multiple_of_0.1"] == is_round
    assert evidence["best_rival"] == "DiffuRec"
    assert evidence["rank_with_other_figure"] == 2
    assert evidence["improvement_with_other_figure"] == pytest.approx(gap, abs=0.005)


def test_seven_cells_differ_and_five_differences_are_round(found):
    seven = [finding for name, finding in found.items() if name.startswith("repeated_cells/")]
    assert len(seven) == 7
    assert sum(finding.evidence["is_multiple_of_0.1"] for finding in seven) == 5
    assert all("best-overall" in finding.claims for finding in seven)


INFEASIBLE = {
    "T2/Beauty/SASRec": {10: (0.8316, 0.8660, 1.0672), 20: (0.4258, 0.6180, 0.7571)},
    "T2/Beauty/STOSA": {10: (0.6531, 0.7687, 0.9472), 20: (0.5524, 0.7716, 0.9454)},
    "T2/Beauty/CaDiRec": {10: (0.8291, 0.6134, 0.7559), 20: (0.4384, 0.7356, 0.9013)},
    "T2/Toys/SASRec": {10: (0.7428, 0.5828, 0.7182), 20: (0.5790, 0.6094, 0.7466)},
    "T2/Toys/STOSA": {10: (0.7789, 0.7850, 0.9674), 20: (0.4983, 0.5852, 0.7170)},
    "T2/Toys/CaDiRec": {20: (0.3186, 0.5569, 0.6824)},
    "T2/ML-1M/SVAE": {10: (0.2715, 0.3561, 0.4388)},
    "T2/ML-1M/CaDiRec": {10: (1.1702, 2.1290, 2.6235), 20: (4.2096, 2.0299, 2.4870)},
    "T3/Toys/w/o ML": {10: (0.7070, 0.7242, 0.8924)},
    "T4/Beauty/1-layer MLP": {10: (0.6604, 0.6669, 0.8218), 20: (0.7277, 0.5842, 0.7158)},
}


@pytest.mark.parametrize("name", INFEASIBLE)
def test_rows_that_no_ranking_gives(found, name):
    stretches = found[f"feasibility/{name}"].evidence["stretches"]
    seen = {stretch["to"]: (stretch["found"], *stretch["allowed"]) for stretch in stretches}
    assert seen == {k: pytest.approx(v, abs=6e-5) for k, v in INFEASIBLE[name].items()}


def test_no_other_row_is_called_impossible(found):
    assert {name for name in found if name.startswith("feasibility/")} == {f"feasibility/{n}" for n in INFEASIBLE}


@pytest.mark.parametrize(
    ("dataset", "kind", "welch", "runs"),
    [("Beauty", "unsupported", 0.17, 27), ("Toys", "unsupported", 0.04, 13), ("ML-1M", "unsupported", 0.27, 40)],
)
def test_p_values_of_table_5(found, dataset, kind, welch, runs):
    finding = found[f"p_values/T5/{dataset}/MMD/AlignDiff"]
    assert finding.kind == kind
    assert finding.evidence["out_of_reach"] == (dataset == "ML-1M")
    assert "permutation test" in finding.sentence
    assert round(finding.evidence["welch_p"], 2) == welch
    assert finding.evidence["runs_needed_for_welch"] == runs
    assert finding.evidence["exact_paired_floor"] == 0.0625


def test_most_favourable_paired_p_on_ml_1m(found):
    assert found["p_values/T5/ML-1M/MMD/AlignDiff"].evidence["smallest_paired_p"] == pytest.approx(0.011, abs=5e-4)
    assert found["p_caption/T5"].kind == "context"  # 0.001 may have been rounded up


def test_settings(found):
    assert found["settings/Omega"].kind == "inconsistent"
    assert found["settings/nu"].kind == "context"
    assert found["settings/symbol-eta"].evidence["meanings"] == ["loss balance", "learning rate of Adam"]


@pytest.mark.parametrize("dataset", ["Beauty", "Toys", "ML-1M"])
def test_diffurec_row_is_its_own_publication(found, dataset):
    finding = found[f"provenance/T2/{dataset}/DiffuRec=diffurec-paper"]
    assert len(finding.evidence["equal"]) == 6
    assert finding.kind == "context"  # a publication may average five runs, too


def test_stosa_row_on_beauty_is_a_log_plus_round_amounts(found):
    evidence = found["provenance/T2/Beauty/STOSA=stosa-log"].evidence
    assert evidence["equal"] == ["HR@5", "HR@10", "HR@20"]
    assert evidence["offsets"] == pytest.approx({"NDCG@5": 0.8, "NDCG@10": 0.6, "NDCG@20": 0.3})
    assert "SASRec" in evidence["description"]
    assert sum(name.startswith("provenance/") for name in found) == 4


@pytest.mark.parametrize(("dataset", "floor"), [("Beauty", 6.5868), ("Toys", 7.0369)])
def test_counts_beat_six_printed_rows(found, dataset, floor):
    evidence = found[f"floors/{dataset}/Markov"].evidence
    assert evidence["floor"]["HR@10"] == floor
    assert set(evidence["below"]) == {"GRU4Rec", "Caser", "BERT4Rec", "ComiRec", "SVAE", "ACVAE"}


def test_floors_in_the_audit_are_those_of_the_committed_runs():
    """Also where ties count: against the target, as in every figure of this suite."""
    names = {"popularity": "floor.popularity", "Markov": "floor.markov", "kNN": "floor.knn"}
    floors = [f for f in context.figures_of(read_facts("context_figures")) if f.training == context.UNTRAINED]
    assert {figure.model for figure in floors} == set(names)
    for figure in floors:
        run = RUNS / figure.dataset.lower() / names[figure.model] / "seed1" / "record.json"
        measured = read_record(run).metrics[f"test_{figure.seen_items}"][figure.metric]
        assert figure.value == pytest.approx(100 * measured, abs=5e-5), figure


def test_softmax_sasrec_on_ml_1m(found):
    figures = found["best_baselines/ML-1M/SASRec"].evidence["figures"]
    assert {29.52, 31.52} <= {figure["value"] for figure in figures}
    assert [figure["value"] for figure in figures if figure["seen_items"] == "kept"] == [29.52]


def test_a_baseline_above_the_method_in_one_metric_is_shown_in_the_other_too(found):
    sentence = found["best_baselines/Beauty/SASRec"].sentence
    assert "HR@10 8.42 with seen items kept" in sentence and "8.126" in sentence
    assert "NDCG@10 the same runs reach 4.21 with seen items kept" in sentence and "4.9261 is printed" in sentence


def test_objections_to_released_code_and_data_are_not_counted_as_objections_to_the_print(audit):
    objections = [finding for finding in audit.findings if finding.is_alarm]
    theirs = [f for f in objections if f.check.startswith("released_") or f.id == "equations/correction-sign"]
    line = next(line for line in summary(audit) if " objections: " in line)
    assert f"{len(objections)} objections" in line
    assert (
        f"{len(objections) - len(theirs)} are to what is printed, {len(theirs)} to the released code and data" in line
    )
    assert "12 of these places where the code stops" in line


def test_what_agrees_is_said_beside_what_does_not(found):
    assert found["released_data/ML-1M"].sentence.endswith("The counts of Beauty and Toys agree.")


def test_a_rare_pattern_says_among_how_many_rows_it_was_found(found):
    finding = found["single_run/T2/Beauty/SASRec"]
    assert finding.evidence["rows_looked_at"] == 46 and "46 rows were looked at" in finding.sentence


def test_p_values_say_where_the_number_of_runs_stands(found):
    assert "5 runs (as the caption of Table 2 says)" in found["p_values/T5/Toys/MMD/AlignDiff"].sentence


def test_equations(found):
    assert found["equations/flat-energy"].claims == ("energy-needed",)
    assert "for every sigma_t below 1" in found["equations/correction-sign"].sentence
    assert "away from y_s" in found["equations/correction-sign"].sentence
    schedule = found["equations/schedule-length"].evidence
    assert schedule["steps_above_0.01_of_32"] == 13
    assert schedule["steps_above_0.01_of_1000"] == 37
    assert schedule["alpha_bar_32"] == pytest.approx(1.3e-7, rel=0.05)
    assert schedule["alpha_bar_1000"] == pytest.approx(6e-218, rel=0.1)
    assert schedule["underflows_float32"]
    assert found["equations/schedule-text"].evidence["beta_1"] == pytest.approx(0.125)


def test_released_code_and_data(found):
    effects = [finding.evidence["effect"] for name, finding in found.items() if name.startswith("released_code/")]
    assert {effect: effects.count(effect) for effect in effects} == {
        "stops it": 12,
        "departs from the paper": 7,
        "protocol": 6,
    }
    counts = found["released_data/ML-1M"].evidence["counts"]
    assert counts["items"] == {"printed": 3416, "released": 3706}
    assert counts["actions"] == {"printed": 999611, "released": 1000209}


def test_sasrec_row_on_beauty_is_one_run(found):
    assert found["single_run/T2/Beauty/SASRec"].evidence["hits"] == [731, 1401, 2008]


def test_what_the_tables_say_in_the_papers_favour(found):
    held = {name for name, finding in found.items() if finding.kind == "holds"}
    orders = (
        "guidance-needed",
        "energy-needed",
        "three-layers-best",
        "one-step-best",
        "joint-beats-gp",
        "joint-beats-adv",
    )
    assert {f"orderings/{name}" for name in (*orders, "mmd-lower", "best-overall")} <= held


def test_gains_on_sparse_data(found):
    evidence = found["orderings/sparse-gains"].evidence
    assert len(evidence["metrics_with_larger_gain"]["Toys"]) == 6
    assert evidence["metrics_with_larger_gain"]["Beauty"] == ["HR@5", "NDCG@5"]
    assert found["orderings/sparse-gains"].kind == "context"  # larger on average, as the text may mean it


def test_what_may_be_wrong_in_either_of_two_places_is_undecided(audit):
    verdicts = {verdict.claim: verdict for verdict in audit.verdicts if verdict.basis == "tables"}
    status = {claim: verdict.status for claim, verdict in verdicts.items()}
    assert "mean 3.52%" in verdicts["sparse-gains"].because
    assert {claim for claim, found in status.items() if found == "contradicted"} == {"table1-data", "released-code"}
    for claim in ("best-omega", "best-overall", "significant-all", "p-below-0.001", "sparse-gains"):
        assert status[claim] == "undecided"


def test_wording_names_no_motive(audit):
    text = " ".join(finding.sentence for finding in audit.findings).lower()
    assert not [
        word for word in ("fraud", "fake", "fabricat", "cheat", "dishonest", "manipulat", "deliberate") if word in text
    ]


def test_the_paper_takes_seconds(paper):
    start = time.perf_counter()
    audit_paper(paper)
    assert time.perf_counter() - start < 5
