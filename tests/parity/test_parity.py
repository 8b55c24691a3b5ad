"""Baselines compute what their reference implementations compute; see `python -m tests.parity`."""

import subprocess

import pytest
import torch
from torch import nn

from harness.layers import Dropout
from tests.parity import checkouts, record, tensorflow1
from tests.parity.__main__ import main
from tests.parity.exchange import INITIAL, Tape, Weights, exactly, relative_difference, visible_dropout
from tests.parity.steps import backward_losses


@pytest.mark.parametrize("method", checkouts.METHODS)
def test_method_agrees_with_its_reference(method):
    folder = checkouts.default_folder()
    if obstacle := checkouts.obstacle(method, folder):
        pytest.skip(obstacle)
    for package in getattr(checkouts.module_of(method), "NEEDS", ()):
        pytest.importorskip(package)
    assert record.too_large(checkouts.module_of(method).compare(folder / method)) == {}


@pytest.mark.parametrize("method", checkouts.METHODS)
def test_the_committed_record_is_of_this_commit_and_within_tolerance(method):
    entry, module = record.load()[method], checkouts.module_of(method)
    assert (entry["repository"], entry["commit"]) == (module.REPOSITORY, module.COMMIT)
    assert entry["differences"] and record.too_large(entry["differences"]) == {}
    assert entry["environment"]["cpu"] and entry["environment"]["torch"]


@pytest.mark.parametrize("method", checkouts.METHODS)
def test_sources_name_the_same_commit(method):
    module = checkouts.module_of(method)
    text = (checkouts.ROOT / "baselines" / "SOURCES.md").read_text()
    assert module.REPOSITORY in text and module.COMMIT in text


def test_the_record_keeps_other_methods(tmp_path):
    record.save({"a": {"x": 1}, "b": {"x": 2, "y": 2}}, tmp_path / "parity.json")
    record.save({"b": {"x": 3}}, tmp_path / "parity.json")
    assert record.load(tmp_path / "parity.json") == {"a": {"x": 1}, "b": {"x": 3, "y": 2}}


def test_a_missing_checkout_is_left_out_with_the_command_that_gets_it(tmp_path, capsys):
    assert main(["svae", "--references", str(tmp_path), "--out", str(tmp_path / "parity.json")]) == 0
    assert "git clone https://github.com/noveens/svae_cf" in capsys.readouterr().out
    assert not (tmp_path / "parity.json").exists()
    with pytest.raises(ValueError, match="no comparison of nothing; there are acvae"):
        main(["nothing"])


def test_another_commit_or_an_edited_checkout_is_refused(tmp_path, monkeypatch):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path / "svae"), *who, *command], check=True, capture_output=True)

    (tmp_path / "svae").mkdir()
    with pytest.raises(ValueError, match="no git checkout"):
        checkouts.find("svae", tmp_path)
    git("init")
    (tmp_path / "svae" / "code.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    with pytest.raises(ValueError, match="git checkout 995c293 there"):
        checkouts.find("svae", tmp_path)
    monkeypatch.setattr(checkouts.module_of("svae"), "COMMIT", "")
    assert checkouts.find("svae", tmp_path) == tmp_path / "svae"
    (tmp_path / "svae" / "code.py").write_text("x = 2\n")
    with pytest.raises(ValueError, match="was edited .code.py."):
        checkouts.find("svae", tmp_path)


def test_a_difference_is_relative_to_the_largest_value_and_never_hidden_by_nan():
    assert relative_difference(torch.tensor([1.0, 4.5]), torch.tensor([1.0, 5.0])) == pytest.approx(0.1)
    assert record.too_large({"a": float("nan"), "b": 0.0}).keys() == {"a"}
    with pytest.raises(ValueError, match="finite"):
        relative_difference(torch.tensor([float("nan")]), torch.tensor([1.0]))


def test_every_weight_needs_a_counterpart():
    ours, theirs = (dict(nn.Linear(2, 3).named_parameters()) for _ in range(2))
    Weights(ours, theirs, {"weight": "weight", "bias": "bias"}).copy()
    assert torch.equal(ours["weight"], theirs["weight"])
    with pytest.raises(ValueError, match="ours .'bias'., theirs .'bias'."):
        Weights(ours, theirs, {"weight": "weight"})


def test_a_missing_gradient_is_a_difference():
    ours, theirs = (nn.Linear(2, 3) for _ in range(2))
    weights = Weights(*(dict(one.named_parameters()) for one in (ours, theirs)), {"weight": "weight", "bias": "bias"})
    weights.copy()
    before, x = weights.values(), torch.ones(1, 2)
    for one in (ours, theirs):
        one(x).sum().backward()
        torch.optim.SGD(one.parameters(), lr=0.1).step()
    assert weights.gradient_difference() == 0 and weights.update_difference(before) == 0
    ours.bias.grad = None
    assert weights.gradient_difference() == 1


def test_another_initial_spread_is_seen():
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(100, 100, bias=False) for _ in range(2))
    weights = Weights(*(dict(one.named_parameters()) for one in (ours, theirs)), {"weight": "weight"})
    assert weights.initial_difference() < record.STANDARD_ERRORS
    with torch.no_grad():
        ours.weight *= 1.2
    assert record.too_large({f"a: {INITIAL}": weights.initial_difference()})


def test_dropout_shows_place_and_rate():
    with visible_dropout():
        assert nn.Dropout(0.5)(torch.ones(1)) == Dropout(0.5)(torch.ones(1)) == 0.75
        assert Dropout(0.5).eval()(torch.ones(1)) == 1


def test_casts_and_defaults_are_double_inside_only():
    with exactly():
        assert torch.zeros(1).float().dtype == torch.arange(2, dtype=torch.float32).dtype == torch.float64
    assert torch.zeros(1).float().dtype == torch.float32 and str(torch.float32) == "torch.float32"


def test_draws_are_replayed_by_size_and_protected_from_change():
    tape = Tape()
    with tape.recording():
        first = torch.randn(2, 3)
        other = torch.randn(4)
        kept = first.clone()
        first.mul_(2)
    with tape.replaying():
        assert torch.equal(torch.randn_like(other), other)
        assert torch.equal(torch.randn(6), kept.flatten())
        with pytest.raises(ValueError, match="no draw of 6 values"):
            torch.randn(6)


def test_losses_of_a_foreign_loop_are_seen():
    x, gradients = torch.ones(1, requires_grad=True), []
    with backward_losses(lambda: gradients.append(x.grad.clone())) as losses:
        for factor in (2, 3):
            (factor * x).sum().backward()
    assert [float(loss) for loss in losses] == [2, 3] and [float(gradient) for gradient in gradients] == [2]
    x.sum().backward()
    assert len(losses) == 2


def test_kernels_of_tensorflow_are_laid_out_like_linear_layers():
    kernel, bias = torch.arange(6.0).reshape(1, 2, 3), torch.zeros(3)
    made = {"weight/a/kernel": kernel, "gradient/a/kernel": -kernel, "weight/a/bias": bias, "gradient/a/bias": bias}
    found = tensorflow1.parameters(made | {"initial/a/kernel": 2 * kernel})
    assert torch.equal(found["a/kernel"], kernel[0].T) and torch.equal(found["a/kernel"].grad, -kernel[0].T)
    assert torch.equal(tensorflow1.initial(made | {"initial/a/kernel": 2 * kernel})["a/kernel"], 2 * kernel[0].T)


def test_a_missing_interpreter_is_an_obstacle(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNDIFF_TENSORFLOW1", str(tmp_path / "python"))
    assert "python does not exist" in tensorflow1.obstacle()
    (tmp_path / "python").touch()
    assert tensorflow1.obstacle() is None
