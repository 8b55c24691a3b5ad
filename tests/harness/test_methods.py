"""Method files: every mistake is named before anything runs, and settings are spelled out whole."""

from dataclasses import asdict

import pytest
import yaml

from baselines.sasrec import SASRec
from harness.compute import Compute
from harness.digest import ROOT
from harness.fit import FitPlan
from harness.methods import Method, build_learner, builder_file, generates, known_methods, lineage, load_method
from harness.split import leave_one_out
from harness.streams import Streams
from harness.synthetic import chain


def method(**changes):
    return Method(**({"name": "mine", "builder": "baselines.sasrec", "display": "Mine"} | changes))


def write(folder, text, name="mine"):
    (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("name", known_methods())
def test_every_method_of_the_suite_resolves_on_every_dataset(name):
    one = load_method(name)
    known = yaml.safe_load((ROOT / "config/datasets.yaml").read_text())["datasets"]
    assert set(one.datasets) <= set(known), "a misspelt dataset would be ignored without a word"
    for dataset in known:
        assert set(one.resolved(dataset)) == {"builder", "model", "training", "evaluation"}
    assert one.variant_of is None or one.variant_of in known_methods()
    assert one.reuse_weights is None or one.reuse_weights in known_methods()
    assert one.display and one.summary


def test_a_variant_differs_from_what_it_changes():
    for name in known_methods():
        method = load_method(name)
        if origin := method.extends or method.reuse_weights:
            pairs = [(method.resolved(where), load_method(origin).resolved(where)) for where in ("beauty", "ml-1m")]
            assert any(one != other for one, other in pairs), name


def of_aligndiff_tuned(name):
    """Its own variants; not those of the released reading, nor what ranks the weights of a variant again."""
    own = name.startswith("aligndiff.tuned.") and not name.startswith("aligndiff.tuned.released.keys.")
    return own and load_method(name).reuse_weights in (None, "aligndiff.tuned")


def test_a_variant_is_named_after_what_it_changes():
    """`analysis.seed_by_seed` sets a method beside the one whose name its own continues."""
    # Released with padding hidden: h at the last position is its first step, no reading of its own. The tuned ones take
    # the files of other readings, and are named after what they are compared with.
    otherwise = {"aligndiff.released.keys", "aligndiff.tuned.released.keys", "diffurec.tuned"}
    for name in set(known_methods()) - otherwise:
        method = load_method(name)
        longest = max((other for other in known_methods() if name.startswith(f"{other}.")), key=len, default=None)
        assert (method.extends or method.reuse_weights) in (None, longest), name


@pytest.mark.parametrize("name", list(filter(of_aligndiff_tuned, known_methods())))
def test_a_tuned_variant_of_aligndiff_is_the_variant_from_the_tuned_start(name):
    """And trained for as long as aligndiff.tuned; so what tells it from that is the variant's own switch."""
    start, twin = {"embedding_std": 0.02, "position_std": 0.02, "guidance_gain": 1.0}, name.replace(".tuned", "")
    taken_back = {"small_gain": "guidance_gain", "large_positions": "position_std"}.get(name.rpartition(".")[2])
    if taken_back:  # one part of the start is that of aligndiff
        start, twin = {key: value for key, value in start.items() if key != taken_back}, "aligndiff"
    tuned, variant = load_method("aligndiff.tuned"), load_method(twin)
    for dataset in ("beauty", "toys", "ml-1m"):
        found, plain = load_method(name).resolved(dataset), variant.resolved(dataset)
        assert found["model"] == plain["model"] | start
        if load_method(name).reuse_weights is None:
            assert found["training"] == tuned.resolved(dataset)["training"]
    assert (load_method(name).reuse_weights is None) == (variant.reuse_weights is None)


def test_ml_1m_is_trained_alike_with_and_without_its_filter():
    """The audit compares the two, so nothing but the items may differ."""
    grid = yaml.safe_load((ROOT / "config/config.yaml").read_text())["grid"]
    names = {name for block in grid if "ml-1m-unfiltered" in block["datasets"] for name in block["methods"]}
    assert names >= {"aligndiff", "sasrec.tuned"}
    for name in names:
        assert load_method(name).resolved("ml-1m-unfiltered") == load_method(name).resolved("ml-1m")


BASE = """
builder: baselines.sasrec
model: {dropout: 0.1, max_len: 7}
training: {patience: 3}
evaluation: {test_inputs_without_first: true}
datasets: {toy: {model: {dropout: 0.2, num_blocks: 1}, training: {patience: 4}}}
"""


def test_a_file_that_extends_another_says_only_what_differs_and_wins_where_it_speaks(tmp_path):
    write(tmp_path, BASE, "base")
    write(tmp_path, "extends: base\ndisplay: Mine\nmodel: {dropout: 0.3}", "mine")
    write(tmp_path, "extends: mine\ntraining: {patience: 9}\ndatasets: {toy: {model: {dropout: 0.4}}}", "more")
    base, mine, more = (load_method(name, tmp_path) for name in ("base", "mine", "more"))
    assert mine.display == "Mine" and more.display == "more", "names are not inherited"
    assert (base.variant_of, mine.variant_of, more.variant_of) == (None, "base", "base")
    changed = base.resolved("toy")
    changed["model"]["dropout"] = 0.3
    assert mine.resolved("toy") == changed, "over the section for a dataset, too"
    assert mine.resolved("other")["model"]["dropout"] == 0.3 and mine.resolved("other")["model"]["max_len"] == 7
    assert more.resolved("toy")["model"]["dropout"] == 0.4 and more.resolved("toy")["model"]["num_blocks"] == 1
    assert [more.resolved(name)["training"]["patience"] for name in ("toy", "other")] == [9, 9]
    assert more.resolved("other")["evaluation"]["test_inputs_without_first"]


def test_a_method_that_ranks_anothers_weights_extends_it_but_for_the_training(tmp_path):
    write(tmp_path, BASE, "base")
    write(tmp_path, "reuse_weights: base\nmodel: {dropout: 0.3}", "again")
    found, base = load_method("again", tmp_path).resolved("toy"), load_method("base", tmp_path).resolved("toy")
    assert found["training"] == asdict(FitPlan())
    assert found["model"] == base["model"] | {"dropout": 0.3} and found["evaluation"] == base["evaluation"]


def test_a_section_for_a_dataset_may_be_empty_in_what_is_ranked_again(tmp_path):
    write(tmp_path, "builder: baselines.sasrec\ndisplay: X\ndatasets:\n  toy:\n", "base")  # its lines commented out
    write(tmp_path, "reuse_weights: base", "again")
    base, again = (load_method(name, tmp_path).resolved("toy") for name in ("base", "again"))
    assert again["model"] == base["model"]


@pytest.mark.parametrize(("of_a", "of_b"), [("a", "a"), ("b", "a")])
def test_variants_of_each_other_are_named(tmp_path, of_a, of_b):
    for name, base in (("a", of_a), ("b", of_b)):
        write(tmp_path, f"builder: baselines.sasrec\ndisplay: X\nvariant_of: {base}", name)
    with pytest.raises(ValueError, match=r"[ab].yaml: variant_of '[ab]' leads back to itself"):
        lineage(load_method("a", tmp_path), tmp_path)


def test_files_that_extend_each_other_are_named(tmp_path):
    write(tmp_path, "extends: b", "a")
    write(tmp_path, "extends: a", "b")
    with pytest.raises(ValueError, match=r"b.yaml: extends itself, by way of a and b"):
        load_method("a", tmp_path)
    with pytest.raises(ValueError, match=r"c.yaml: extends: unknown method 'nothing'"):
        load_method("c", write(tmp_path, "extends: nothing", "c"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: [base]", r"mine.yaml: extends: expected the name of a method, got \['base'\]"),
        ("extends: base\nreuse_weights: base", "mine.yaml: 'extends' and 'reuse_weights' together"),
        ("extends: again", "mine.yaml: extends: again is not trained; name base"),
        ("reuse_weights: again", "mine.yaml: reuse_weights: again is not trained; name base"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path, text, message):
    write(tmp_path, BASE, "base")
    write(tmp_path, "reuse_weights: base", "again")
    with pytest.raises(ValueError, match=message):
        load_method("mine", write(tmp_path, text, "mine"))


def test_training_settings_of_a_method_that_trains_nothing_are_checked_all_the_same(tmp_path):
    write(tmp_path, BASE, "base")
    write(tmp_path, "reuse_weights: base\ntraining: {eval_batch_size: 32}", "again")
    assert load_method("again", tmp_path).resolved("toy")["training"]["eval_batch_size"] == 32
    write(tmp_path, "reuse_weights: base\ntraining: {patienc: 1}", "again")
    with pytest.raises(ValueError, match="unknown key 'patienc'"):
        load_method("again", tmp_path).resolved("toy")


def test_later_layers_win():
    one = method(
        model={"dropout": 0.1, "max_len": 7},
        training={"patience": 3},
        datasets={"toy": {"model": {"dropout": 0.2}}},
    )
    assert one.resolved("other")["model"]["dropout"] == 0.1
    assert one.resolved("toy")["model"]["dropout"] == 0.2
    found = one.resolved("toy", {"model": {"dropout": 0.3}}, None, {"training": {"patience": 5}})
    assert found["model"]["dropout"] == 0.3 and found["model"]["max_len"] == 7
    assert found["training"]["patience"] == 5


def test_a_diffusion_that_leaves_no_signal_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"method aligndiff: num_steps: with 1000 steps alpha_bar falls to"):
        load_method("aligndiff").resolved("toy", {"model": {"num_steps": 1000}})


def test_every_default_is_spelled_out():
    found = method().resolved("toy")
    assert found["training"] == asdict(FitPlan())
    assert found["model"]["num_blocks"] == 2 and found["model"]["learning_rate"] == 1e-3
    assert found["evaluation"] == {"test_inputs_without_first": False}


def test_resolved_settings_resolve_to_themselves():
    for name in ("sasrec", "diffurec", "aligndiff", "aligndiff.released", "floor.popularity"):
        once = load_method(name).resolved("beauty")
        layers = {layer: once[layer] for layer in ("model", "training", "evaluation")}
        assert method(builder=once["builder"], **layers).resolved("beauty") == once


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"model": {"droput": 0.1}}, "method mine: model: unknown key 'droput' .did you mean 'dropout'"),
        ({"model": {"dropout": 1.5}}, "method mine: model: dropout: 1.5 is out of range"),
        ({"model": {"num_blocks": "two"}}, "num_blocks: expected int"),
        ({"training": {"patiense": 1}}, "method mine: training: unknown key 'patiense' .did you mean 'patience'"),
        ({"training": {"patience": 0}}, "method mine: training: patience: 0 is out of range"),
        ({"evaluation": {"test_input_without_first": True}}, "did you mean 'test_inputs_without_first'"),
        ({"trainning": {}}, "method mine: unknown section 'trainning' .did you mean 'training'"),
        ({"model": 5}, "expected a mapping"),
        ([1], "expected a mapping"),
    ],
)
def test_mistakes_are_found_before_anything_runs(override, message):
    with pytest.raises(ValueError, match=message):
        method().resolved("toy", override)


def test_unknown_methods_are_named_with_the_nearest():
    with pytest.raises(ValueError, match="unknown method 'sasrek' .did you mean 'sasrec'"):
        load_method("sasrek")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("builder: [", "not YAML"),
        ("- 1", "expected a mapping of keys to values"),
        ("", "expected a mapping"),
        ("display: X", "at least 'builder'"),
        ("builder: baselines.sasrec\nmodle: {}", "unknown key 'modle' .did you mean 'model'"),
        ("builder: 3", "builder: expected str"),
        ("builder: baselines.sasrec\nmodel: [1]", "model: expected a mapping"),
    ],
)
def test_broken_method_files_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_method("mine", write(tmp_path, text))
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize("builder", ["baselines.nothing", "nowhere.at.all", ".mine"])
def test_unknown_builders_are_named(builder):
    with pytest.raises(ValueError, match=f"builder '{builder}': no such module"):
        builder_file(builder)
    with pytest.raises(ValueError, match="no such module"):
        method(builder=builder).resolved("toy")


def test_learners_are_built_from_resolved_settings():
    view = leave_one_out(chain(num_users=9, num_items=9)).training_view()
    learner = build_learner(method(model={"embedding_dim": 6}).resolved("toy"), view, Streams(1), Compute())
    assert isinstance(learner, SASRec) and learner.config.embedding_dim == 6
    assert builder_file("baselines.sasrec") == ROOT / "baselines/sasrec.py"


@pytest.mark.parametrize(("text", "missing"), [("class Config: pass", "build"), ("def build(): pass", "Config")])
def test_a_builder_without_its_parts_is_named_before_anything_runs(tmp_path, monkeypatch, text, missing):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"half_a_baseline_without_{missing}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ValueError, match=f"method mine: {name} has no '{missing}'"):
        method(builder=name).resolved("beauty")


def test_a_config_that_is_no_dataclass_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain_config.py").write_text("class Config:\n    width = 3\ndef build(): pass")
    with pytest.raises(ValueError, match="method mine: plain_config.Config needs @dataclass"):
        method(builder="plain_config").resolved("beauty")


def test_who_generates_representations():
    names = [name for name in ("aligndiff", "baselines.diffurec", "baselines.sasrec") if generates(name)]
    assert names == ["aligndiff", "baselines.diffurec"]
