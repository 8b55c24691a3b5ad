"""Made-up settings and files through the command lines: one `error:` line and no output, or a sound run; no traceback.

`harness.cli.run` lets every exception through that is no mistake of the user's, so a traceback fails these tests.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import cli
from harness.record import read_ranks, read_record
from harness.synthetic import random_walk
from workflow.scripts import forecast, preprocess, progress, train, verify

FUZZ = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL = {"model": {"embedding_dim": 4, "max_len": 4, "batch_size": 64}, "training": {"max_epochs": 1}}
# Small numbers only: a mistaken size is refused, a legal one is trained.
numbers = st.integers(-3, 40) | st.floats(-2, 40) | st.sampled_from([float("nan"), float("inf"), -1e30, 1e30])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
MODEL_KEYS = ["embedding_dim", "max_len", "batch_size", "dropout", "learning_rate", "num_heads", "num_blocks", "loss"]
PLAN_KEYS = ["eval_every", "patience", "first_eval", "metric", "seen", "select", "eval_users", "eval_batch_size"]
PLAN_KEYS += ["max_epochs", "checkpoint_seconds", "time_budget_seconds", "epochs"]
sections = {
    "model": st.dictionaries(st.sampled_from(MODEL_KEYS) | st.text(max_size=5), values, max_size=2),
    "training": st.dictionaries(st.sampled_from(PLAN_KEYS) | st.text(max_size=5), values, max_size=2),
    "evaluation": st.dictionaries(st.sampled_from(["test_inputs_without_first"]) | st.text(max_size=5), values),
}
overrides = st.fixed_dictionaries({}, optional=sections | {"modle": values}) | values


def call(main, argv):
    """Exit code and messages of a command line; argparse's own refusals exit with 2."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.run(main, argv)
        except SystemExit as stop:
            code = stop.code
    return code, [line for line in errors.getvalue().splitlines() if line.startswith(("error:", "Traceback"))]


def assert_clean(code, errors, *outputs: Path):
    """A refusal is one line and leaves no output; a success has all of it."""
    if code == 0:
        assert not errors and all(path.exists() for path in outputs)
    else:
        assert code in (1, train.OUT_OF_TIME), code
        assert len(errors) == (code == 1) and not any(line.startswith("Traceback") for line in errors), errors
        assert not any(path.exists() for path in outputs)
        folders = {path.parent for path in outputs}
        assert not [path for folder in folders if folder.exists() for path in folder.iterdir()], (
            "something half-written"
        )


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sequences.npz"
    random_walk(num_users=30, num_items=20, min_length=4, max_length=9).save(path)
    return path


def train_argv(sequences, out, changes, *more):
    argv = ["--sequences", str(sequences), "--dataset", "toy", "--method", "sasrec", "--seed", "1", "--out", str(out)]
    return [*argv, "--compute", '{"device": "cpu", "threads": 1}', "--overrides", json.dumps(changes), *more]


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def kept(section, small):
    """The drawn section over the small one, so that a legal one is trained in no time."""
    return {**small, **section} if small and isinstance(section, dict) else section


@FUZZ
@given(changes=overrides)
def test_any_overrides(sequences, tmp_path, changes):
    if isinstance(changes, dict):
        changes = {name: kept(section, SMALL.get(name)) for name, section in (SMALL | changes).items()}
    out = fresh(tmp_path / "run")
    code, errors = call(train.main, train_argv(sequences, out, changes))
    assert_clean(code, errors, out / "record.json", out / "ranks.npz")
    if code == 0:
        read_ranks(out / "record.json", read_record(out / "record.json"))


@FUZZ
@given(compute=st.dictionaries(st.sampled_from(["device", "precision", "threads", "jobs_per_gpu"]), values) | values)
def test_any_compute_section(sequences, tmp_path, compute):
    out = fresh(tmp_path / "run")
    code, errors = call(train.main, [*train_argv(sequences, out, SMALL), "--compute", json.dumps(compute)])
    assert_clean(code, errors, out / "record.json")


@FUZZ
@given(clock=st.fixed_dictionaries({"sasrec": sections["training"] | values}) | values)
def test_any_clock(sequences, tmp_path, clock):
    out = fresh(tmp_path / "run")
    code, errors = call(train.main, [*train_argv(sequences, out, SMALL), "--clock", json.dumps(clock)])
    assert_clean(code, errors, out / "record.json")


@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_a_damaged_sequences_file(sequences, tmp_path, data):
    """Cut, flipped or made-up bytes: refused, or so harmless that the run is whole."""
    good = sequences.read_bytes()
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(data.draw(st.binary(max_size=300) | damage(good)))
    out = fresh(tmp_path / "run")
    code, errors = call(train.main, train_argv(damaged, out, SMALL))
    assert_clean(code, errors, out / "record.json")


def damage(good: bytes):
    """Strategies for a cut file and for one with a byte changed."""
    cut = st.integers(0, len(good) - 1).map(lambda end: good[:end])
    places = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))
    return cut | places.map(lambda place: good[: place[0]] + bytes([place[1]]) + good[place[0] + 1 :])


FORMATS = ["sequences", "movielens-tab", "movielens-dat", "amazon-reviews", "amazon-ratings", "inter", "csv"]
rows = st.lists(
    st.lists(st.integers(-2, 9).map(str) | st.sampled_from(["", "x", "1e9", "nan", "é", '"']), max_size=5), max_size=8
)
lines = st.builds(
    lambda table, gap: "\n".join(gap.join(row) for row in table).encode(), rows, st.sampled_from([" ", "\t", "::", ","])
)
json_lines = st.lists(values, max_size=4).map(lambda each: "\n".join(json.dumps(value) for value in each).encode())


@settings(FUZZ, max_examples=200)
@given(raw=lines | json_lines | st.binary(max_size=200), name=st.sampled_from(FORMATS), extra=st.none() | values)
def test_any_raw_file(tmp_path, raw, name, extra):
    source, out = tmp_path / "raw.txt", fresh(tmp_path / "out")
    source.write_bytes(raw)
    spec = {"display": "Toy", "format": name, "file": str(source)} | ({} if extra is None else {"filter": extra})
    argv = ["--dataset", "toy", "--spec", json.dumps(spec), "--source", str(source)]
    outputs = [out / "sequences.npz", out / "stats.json"]
    code, errors = call(preprocess.main, [*argv, "--sequences", str(outputs[0]), "--stats", str(outputs[1])])
    assert_clean(code, errors, *outputs)


CONFIG_KEYS = ["name", "output", "grid", "sweeps", "overrides", "compute", "analysis", "datasets", "records", "gird"]
blocks = st.fixed_dictionaries(
    {},
    optional={
        "datasets": st.lists(st.sampled_from(["beauty", "tou"])) | values,
        "methods": st.lists(st.sampled_from(["sasrec", "sasrek", "aligndiff", "floor.popularity"])) | values,
        "seeds": st.lists(st.integers(-1, 3), max_size=3) | values,
    },
)
configs = st.dictionaries(st.sampled_from(CONFIG_KEYS), values | st.lists(blocks, max_size=2), max_size=3) | values
LITTLE = {"grid": [{"datasets": ["beauty"], "methods": ["sasrec"], "seeds": [1]}], "sweeps": []}
texts = st.text(max_size=40) | configs.map(
    lambda config: yaml.safe_dump(LITTLE | config if isinstance(config, dict) else config)
)


@pytest.mark.parametrize("script", [forecast, progress])
@FUZZ
@given(text=texts)
def test_any_configuration_file(tmp_path, script, text):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    code, errors = call(script.main, ["--configfile", str(path), "--records"])
    assert_clean(code, errors)


@FUZZ
@given(data=st.data(), name=st.sampled_from(["record.json", "ranks.npz"]))
def test_a_damaged_run_is_named_or_harmless(sequences, tmp_path, data, name):
    good = finished_run(sequences, tmp_path)
    bad = fresh(tmp_path / "bad" / "seed1")
    shutil.copytree(good, bad)
    content = (good / name).read_bytes()
    changed = data.draw(damage(content))
    (bad / name).write_bytes(changed)
    code, errors = call(verify.main, ["--runs", str(tmp_path / "bad")])
    assert not errors
    if name == "ranks.npz" and changed != content:
        assert code == 1
    else:
        assert code in (0, 1)  # a changed date or name in a record is legal, only its figures are checked


def finished_run(sequences: Path, folder: Path) -> Path:
    out = folder / "good"
    if not out.exists():
        assert call(train.main, train_argv(sequences, out, SMALL))[0] == 0
    return out
