"""Planted facts give the expected verdicts: from stubbed figures where only figures matter, else from records."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy import stats

from analysis.audit import counterparts, report
from analysis.audit.__main__ import main
from analysis.audit.judging import Thresholds
from analysis.audit.reproduction import against_runs
from analysis.audit.samples import Samples
from analysis.load import Runs, load_runs
from analysis.plan import Plan, PlannedCell, Sweep, read_plan

SCHEMA = json.loads((Path(report.__file__).parent / "findings.schema.json").read_text())
DATASETS = {"beauty": "Beauty", "toys": "Toys", "ml-1m": "ML-1M"}
RIVALS = ("gru4rec", "caser", "sasrec", "bert4rec", "comirec", "svae", "acvae", "stosa", "cadirec", "diffurec")
NOISE = (-0.01, 0.0, 0.012, -0.004, 0.003)


class Stub(Samples):
    """Figures from a function of dataset, method and metric; no records."""

    def __init__(self, plan, figures):
        super().__init__(Runs(()), plan, Thresholds())
        self._figures = figures

    def by_seed(self, dataset, method, metric, protocol="kept"):
        planned = self.plan.seeds(dataset, method)
        values = self._figures(dataset, method, metric) if planned else None
        return {} if values is None else dict(zip(planned, values, strict=False))


def plan_of(methods, *, seeds=5, datasets=DATASETS, sweeps=()):
    cells = tuple(
        PlannedCell(dataset, method, seed, method)
        for dataset in datasets
        for method in methods
        for seed in range(1, seeds + 1)
    )
    return Plan("stub", cells, DATASETS, (5, 10, 20), tuple(sweeps))


def around(mean, shift=0):
    """Five figures around a mean, whose noise differs between methods."""
    return [mean + each for each in np.roll(NOISE, shift)]


@pytest.fixture
def judged(audit, paper):
    """judged(figures, methods) -> the verdicts from runs by claim."""

    def judge(figures, methods=("aligndiff", *RIVALS), data=None, **options):
        whole = against_runs(audit, paper, Stub(plan_of(methods, **options), figures), data or {})
        return {verdict.claim: verdict for verdict in whole.verdicts if verdict.basis == "runs"}

    return judge


def ours_above(gain):
    return lambda dataset, method, metric: around(10 + gain * (method == "aligndiff"), shift=len(method))


@pytest.mark.parametrize(
    ("gain", "status"),
    [(1.0, "holds"), (-1.0, "contradicted"), (0.004, "holds in direction only"), (-0.004, "not reproduced")],
)
def test_the_main_claim_follows_the_planted_gain(judged, gain, status):
    found = judged(ours_above(gain))
    for claim in ("best-overall", "significant-all"):
        assert found[claim].status == status, found[claim].because
        assert found[claim].runs == 5
        assert found[claim].estimate == pytest.approx(gain)
        assert "180 comparisons" in found[claim].family
        assert "alpha 0.05" in found[claim].rule


def test_one_rival_clearly_above_contradicts_even_before_the_grid_is_complete(judged):
    def figures(dataset, method, metric):
        if dataset != "toys":
            return None
        return around(12 if method == "cadirec" else 10, shift=len(method))

    verdict = judged(figures)["best-overall"]
    assert verdict.status == "contradicted"
    assert "cadirec" in verdict.because and "toys" in verdict.because


@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_one_run_decides_nothing_in_either_direction(judged, gain):
    found = judged(ours_above(gain), seeds=1)
    statuses = {claim: verdict.status for claim, verdict in found.items()}
    assert set(statuses.values()) == {"undecided"}


def test_an_undecided_verdict_names_the_runs_there_are(grid, tmp_path):
    grid.write("aligndiff", 1)
    grid.write("sasrec.tuned", 1)
    plan = grid.plan([("aligndiff", 1), ("aligndiff", 2), ("aligndiff", 3), ("sasrec.tuned", 1)])
    assert main(["paper", "--runs", str(grid.runs), "--plan", str(plan), "--out", str(tmp_path / "a")]) == 0
    verdict = verdict_on(json.loads((tmp_path / "a/findings.json").read_text()), "question/tuned")
    assert verdict["status"] == "undecided"
    assert "aligndiff on beauty (1 of 3 seeds: 2 not run)" in verdict["because"]
    assert "sasrec.tuned on beauty (1 run planned)" in verdict["because"]


def test_a_demonstration_judges_no_claim_by_its_runs(grid, tmp_path, capsys):
    for method in ("aligndiff", "sasrec.tuned"):
        for seed in (1, 2):
            grid.write(method, seed, (seed, 3, 7, 50))
    plan = grid.plan([(m, s) for m in ("aligndiff", "sasrec.tuned") for s in (1, 2)], verdicts=False)
    assert main(["paper", "--runs", str(grid.runs), "--plan", str(plan), "--out", str(tmp_path / "a")]) == 0
    found = json.loads((tmp_path / "a/findings.json").read_text())
    assert {verdict["basis"] for verdict in found["verdicts"]} == {"tables"} and "thresholds" not in found
    assert "is a demonstration and judges nothing" in capsys.readouterr().out


def test_runs_on_other_data_judge_no_claim(grid, tmp_path, capsys):
    grid.write("sasrec.tuned", 1, dataset="shop")
    plan = grid.plan([("sasrec.tuned", 1, "shop")], datasets={"shop": {"display": "Shop"}})
    assert main(["paper", "--runs", str(grid.runs), "--plan", str(plan), "--out", str(tmp_path / "a")]) == 0
    found = json.loads((tmp_path / "a/findings.json").read_text())
    assert {verdict["basis"] for verdict in found["verdicts"]} == {"tables"}
    assert "has none of the paper's datasets and judges nothing" in capsys.readouterr().out


def test_a_missing_rival_leaves_the_claim_undecided_and_is_named(judged):
    found = judged(lambda d, m, metric: None if (d, m) == ("toys", "svae") else ours_above(1.0)(d, m, metric))
    verdict = found["best-overall"]
    assert verdict.status == "undecided"
    assert "174 of 180" in verdict.because and "svae on toys" in verdict.because
    assert found["improvement/T2/Toys/HR@10/AlignDiff"].status == "undecided"
    assert found["improvement/T2/Beauty/HR@10/AlignDiff"].status == "holds"


def test_improvements_are_over_the_best_measured_rival(judged):
    def figures(dataset, method, metric):
        return around({"aligndiff": 10.2, "sasrec": 10.0}.get(method, 8.0), shift=len(method))

    found = judged(figures)["improvement/T2/Toys/HR@20/AlignDiff"]  # printed: 20.4%
    assert found.estimate == pytest.approx(2.0, abs=1e-3)
    assert found.status == "holds in direction only"
    assert "over sasrec" in found.because and "smaller than printed" in found.because


def test_gains_on_sparse_data(judged):
    gain = {"beauty": 1.0, "toys": 2.0, "ml-1m": 0.1}
    found = judged(lambda d, m, metric: around(10 + gain[d] * (m == "aligndiff"), shift=len(m)))["sparse-gains"]
    assert found.status == "holds"
    assert found.estimate == pytest.approx(9.0, abs=0.3)
    gain["ml-1m"] = 3.0
    assert judged(lambda d, m, metric: around(10 + gain[d] * (m == "aligndiff"), len(m)))["sparse-gains"].status == (
        "contradicted"
    )


def test_ablations_and_losses_are_each_their_own_claim(judged):
    means = {"aligndiff.without_guidance": 9.0, "aligndiff.without_energy": 11.0, "aligndiff.gad_gp": 9.0}
    methods = ("aligndiff", *means, "aligndiff.gad_adv")
    found = judged(lambda d, m, metric: around(means.get(m, 10.0), shift=len(m)), methods)
    assert found["guidance-needed"].status == "holds"
    assert found["energy-needed"].status == "contradicted"
    assert found["joint-beats-gp"].status == "holds"
    assert found["joint-beats-adv"].status in ("not reproduced", "holds in direction only")
    assert found["three-layers-best"].status == "undecided"


def test_mmd_takes_the_kindest_reading_and_says_so(judged):
    def figures(dataset, method, metric):
        lower = method == "aligndiff" and metric == "MMD cosine"
        return around(1.0 if lower else 2.0, shift=len(method)) if metric.startswith("MMD") else None

    found = judged(figures, ("aligndiff", "diffurec"))
    assert found["mmd-lower"].status == "holds"
    assert "cosine view, the kindest of 2 readings" in found["mmd-lower"].because
    assert found["mmd-lower"].estimate == pytest.approx(1.0)
    assert "alpha 0.001" in found["p-below-0.001"].rule
    assert found["T5/Beauty/MMD/AlignDiff"].status == "undecided"


def test_the_printed_p_is_judged_by_its_own_level(judged):
    """A difference clear at 0.05 and not at 0.001."""
    values = {"aligndiff": 1.97, "diffurec": 2.0}
    found = judged(lambda d, m, metric: around(values[m], shift=len(m)), tuple(values))
    assert found["mmd-lower"].status == "holds"
    assert found["p-below-0.001"].status == "holds in direction only" and 0.001 < found["p-below-0.001"].p < 0.05


def test_best_values_come_from_sweeps(judged):
    values = (0.1, 0.3, 1.0)
    sweep = Sweep("w", "guidance_weight", "aligndiff", values, tuple(f"aligndiff.w_{value}" for value in values))
    best = {"beauty": "aligndiff.w_0.3", "toys": "aligndiff.w_0.3", "ml-1m": "aligndiff.w_0.1"}

    def figures(dataset, method, metric):
        return around(11.0 if method == best[dataset] else 10.0, shift=values.index(float(method[-3:])))

    assert judged(figures, sweep.cells, sweeps=[sweep])["best-w"].status == "holds"
    best["ml-1m"] = "aligndiff.w_1.0"
    found = judged(figures, sweep.cells, sweeps=[sweep])
    assert found["best-w"].status == "contradicted"
    assert found["best-nu"].status == "undecided" and "no sweep" in found["best-nu"].because


def test_questions_the_paper_does_not_ask(judged):
    means = {"sasrec.tuned": 12.0, "floor.markov": 3.0, "aligndiff.no_diffusion": 9.0}
    found = judged(lambda d, m, metric: around(means.get(m, 10.0), shift=len(m)), ("aligndiff", *means))
    assert found["question/tuned"].status == "contradicted"
    assert found["question/no-diffusion"].status == "holds"
    assert found["question/floors"].status == "holds"
    assert "question/sign" not in found


def test_tuned_against_tuned_and_never_against_oneself(judged):
    means = {"aligndiff.tuned": 11.0, "aligndiff": 10.0, "sasrec.tuned": 9.0}
    found = judged(lambda d, m, metric: around(means[m], shift=len(m)), tuple(means))
    assert found["question/both-tuned"].status == "holds"
    assert found["question/tuned"].status == "holds"  # though its own tuned variant is above it


def test_a_floor_that_draws_nothing_is_a_constant(audit, paper):
    cells = [PlannedCell("beauty", "aligndiff", seed, "A") for seed in (1, 2, 3)]
    plan = Plan("p", (*cells, PlannedCell("beauty", "floor.last", 1, "Last")), {"beauty": "Beauty"}, (5, 10))
    samples = Stub(plan, lambda d, m, metric: [3.0] if m == "floor.last" else around(5.0))
    whole = against_runs(audit, paper, samples, {})
    verdict = next(verdict for verdict in whole.verdicts if verdict.claim == "question/floors")
    assert verdict.status == "holds" and verdict.runs == 3
    assert "against a fixed figure" in verdict.because


@pytest.mark.parametrize(
    ("shift", "status", "inside"), [(0.0, "holds", True), (-3.0, "contradicted", False), (0.008, "holds", True)]
)
def test_printed_cells_beside_measured_ones(audit, paper, shift, status, inside):
    printed = {
        (cell.dataset.lower(), counterparts.METHODS["2", cell.model], cell.metric): cell for cell in paper.table("2")
    }

    def figures(dataset, method, metric):
        cell = printed.get((dataset, method, metric))
        return cell and around(cell.value + shift)

    whole = against_runs(audit, paper, Stub(plan_of(("aligndiff",)), figures), {})
    beside = next(each for each in whole.counterparts if each.claim == "T2/Beauty/HR@10/AlignDiff")
    assert (beside.status, beside.inside, beside.runs) == (status, inside, 5)
    assert beside.difference == pytest.approx(shift, abs=1e-3)
    five = figures("beauty", "aligndiff", "HR@10")
    assert beside.interval == pytest.approx(stats.t.interval(0.95, 4, np.mean(five), stats.sem(five)))
    reaches = [(each.interval[1] - each.interval[0]) / 2 for each in whole.counterparts if each.interval]
    assert any(
        f"over 5 seeds such an interval reaches up to ±{max(reaches):.2f}" in line for line in report.summary(whole)
    )
    absent = next(each for each in whole.counterparts if each.claim == "T2/Beauty/HR@10/SASRec")
    assert (absent.status, absent.measured, absent.state) == ("undecided", None, "not in the plan")


def test_every_claim_that_needs_runs_gets_a_verdict(audit, judged):
    found = judged(ours_above(1.0))
    wanted = {claim.id for claim in audit.claims if "reproduction" in claim.tested_by}
    assert wanted <= set(found)


def test_counts_of_table_1_need_no_runs(judged):
    data = {"beauty": {"users": 22362, "items": 12101, "actions": 198502}, "ml-1m": {"users": 6040, "items": 3706}}
    data["ml-1m"]["actions"] = 1000209
    found = judged(lambda *about: None, data=data)
    assert found["T1/Beauty/items"].status == "holds"
    assert found["T1/Beauty/sequences"].status == "contradicted"
    assert found["T1/ML-1M/items"].status == "contradicted" and "3706" in found["T1/ML-1M/items"].because
    assert found["T1/Toys/items"].status == "undecided"


@pytest.fixture(scope="module")
def finished(grid_at, tmp_path_factory):
    """Records in which AlignDiff is below a tuned baseline and its correction does nothing; one rival diverged."""
    grid = grid_at(tmp_path_factory.mktemp("audited"))
    rng = np.random.default_rng(0)

    def ranks(scale):
        hidden = rng.random(700)
        return 1 + np.floor(-scale * (1 + 0.01 * rng.normal()) * np.log(hidden)).astype(int)

    settings = {"settings": {"model": {"batch_size": 512}}}
    for seed in (1, 2, 3):
        ours = ranks(30)
        terms = {"diagnostics": {"correction_ratio": 1e-6 * seed, "correction_cosine_across": -0.1}}
        grid.write("aligndiff", seed, ours, **settings, **terms)
        grid.write("aligndiff.no_correction", seed, ours, epochs_run=0, best_epoch=None, **settings)
        grid.write("sasrec.tuned", seed, ranks(10))
        grid.write("aligndiff.released", seed, ranks(30), **settings)
        grid.write("aligndiff.released.last_index", seed, ranks(12), **settings)
        grid.write("diffurec.keys.no_diffusion", seed, status="diverged", num_users=700, metrics={}, ranks_sha256=None)
    methods = ["aligndiff", "aligndiff.no_correction", "sasrec.tuned", "diffurec.keys.no_diffusion"]
    methods += ["aligndiff.released", "aligndiff.released.last_index", "aligndiff.released.one_metric"]
    grid.plan([(method, seed) for method in methods for seed in (1, 2, 3)])
    return grid


@pytest.fixture(scope="module")
def written(finished):
    out = finished.folder / "audit"
    arguments = ["paper", "--runs", str(finished.runs), "--plan", str(finished.folder / "plan.json")]
    assert main([*arguments, "--thresholds", "margin_percent=10", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def document(written):
    return json.loads((written / "findings.json").read_text())


def verdict_on(document, claim):
    return next(v for v in document["verdicts"] if v["claim"] == claim and v["basis"] == "runs")


def test_document_follows_its_schema_and_states_its_thresholds(document):
    jsonschema.validate(document, SCHEMA)
    assert document["thresholds"] == {"alpha": 0.05, "margin_percent": 10, "least_seeds": 2}
    assert "margin 10%" in verdict_on(document, "best-overall")["rule"]


def test_no_verdict_rests_on_one_run(document):
    """Table 1's counts are of the data and rest on no run."""
    decided = [v for v in document["verdicts"] if v["basis"] == "runs" and v["status"] != "undecided"]
    runs = [v["runs"] for v in decided if not v["claim"].startswith("T1/")]
    assert runs and all(number is not None and number >= 2 for number in runs)


def test_summary_begins_with_what_runs_decided(document):
    lines = document["summary"]["lines"]
    assert len(lines) <= report.SUMMARY_LINES
    assert lines[0].startswith("Contradicted in our runs: AlignDiff is above every tuned baseline.")
    assert any("Against our runs" in line for line in lines[:4])


def test_reused_weights_are_compared_seed_by_seed(document):
    verdict = verdict_on(document, "question/correction")
    assert (verdict["status"], verdict["estimate"], verdict["p"]) == ("not reproduced", 0.0, 1.0)


def test_only_reused_weights_make_runs_pairs(finished):
    samples = Samples(load_runs(finished.runs), read_plan(finished.folder / "plan.json"), Thresholds())
    assert samples.is_paired("aligndiff", "aligndiff.no_correction")
    assert not samples.is_paired("aligndiff", "sasrec.tuned")
    assert not samples.is_paired("aligndiff.no_correction", "sasrec.tuned"), "weights of another training"


def test_diverged_runs_are_shown(document):
    verdict = verdict_on(document, "question/diffurec-no-diffusion")
    assert verdict["status"] == "undecided"
    assert "diverged (3 of 3)" in verdict["because"]


def test_effects_of_released_defects_energy_and_batch_means(document):
    said = {finding["id"]: finding["sentence"] for finding in document["findings"]}
    assert "aligndiff.released.last_index against aligndiff.released" in said["released_defects/1"]
    assert "a difference." in said["released_defects/1"]
    assert "not run" in said["selection_rule/undecided"]
    assert "has a cosine of -0.100" in said["energy/beauty/aligndiff"]
    assert "12 runs" in said["batch_means/beauty"]
    gaps = next(f["evidence"] for f in document["findings"] if f["id"] == "batch_means/beauty")
    assert -3 < gaps["lowest"] < 0 < gaps["highest"] < 3  # 188 of 700 users make half the mean
    assert "0 of 10 pairs" in said["seen_items/beauty"]


def test_pages_show_verdicts_thresholds_and_counterparts(written):
    for name in ("findings.md", "findings.html"):
        text = (written / name).read_text()
        assert "against our runs" in text and "fixed before the runs" in text
        assert "Printed against measured" in text and "aligndiff" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--runs needs --plan"),
        (["--plan", "PLAN", "--thresholds", "alpha"], "is not a number"),
        (["--plan", "PLAN", "--thresholds", "beta=1"], "names are alpha"),
        (["--plan", "PLAN", "--thresholds", "least_seeds=1"], "2 or more"),
        (["--plan", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_arguments_exit_2_in_one_line(finished, capsys, arguments, message):
    arguments = [str(finished.folder / "plan.json") if each == "PLAN" else each for each in arguments]
    assert main(["paper", "--runs", str(finished.runs), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
