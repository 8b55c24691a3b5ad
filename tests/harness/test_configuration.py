"""The configuration's schema: every mistake in one message, with the nearest legal word."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.configuration import check, check_datasets, options_of, own_sweeps, typed
from harness.digest import ROOT
from harness.grid import Grid
from harness.settings import merge
from workflow.scripts.forecast import load_config

SCHEMA = ROOT / "config/config.schema.yaml"


def read(*names):
    """Merge files as Snakemake does."""
    return merge(*(yaml.safe_load((ROOT / "config" / name).read_text()) for name in names))


PAPER = read("datasets.yaml", "config.yaml")


def changed(path, value):
    config = copy.deepcopy(PAPER)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


OTHERS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
BESIDE_PAPER = [name for name in OTHERS if name not in ("config.schema.yaml", "config.yaml", "datasets.yaml")]


@pytest.mark.parametrize("name", [None, *BESIDE_PAPER])
def test_the_shipped_configurations_are_legal(name):
    config = read("datasets.yaml", "config.yaml", name) if name else PAPER
    check(config, SCHEMA)
    assert Grid(config).cells


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["girds"], [], "top level: unknown key 'girds' .did you mean 'grid'.*; legal keys are analysis, compute"),
        (["compute", "devise"], "cpu", "compute: unknown key 'devise' .did you mean 'device'"),
        (["compute", "device"], "gpu", "compute.device: 'gpu' .did you mean 'cpu'.* is not one of auto, cpu, cuda"),
        (["compute", "threads"], 0, "compute.threads: 0 is less than the minimum"),
        (["grid", 0, "seed"], [1], "grid.0: unknown key 'seed' .did you mean 'seeds'"),
        (["grid", 0, "seeds"], [], "grid.0.seeds"),
        (["grid", 0, "seeds"], [1, 1], "grid.0.seeds"),
        (["grid", 0, "seeds"], [-1], "grid.0.seeds.0"),
        (["grid", 0, "seeds"], [1.0], "grid.0.seeds.0: 1.0 is not of type 'integer'"),
        (["analysis", "cutoffs"], [5, 10, 10], "analysis.cutoffs"),
        (["grid"], [], "grid"),
        (["output"], "~/x", "output: '~/x' becomes part of paths; take letters"),
        (["output"], "results/a;b", "output: 'results/a;b' becomes part of paths"),
        (["datasets", ".."], {}, "'..' becomes part of paths"),
        (["datasets", "-x"], {}, "'-x' becomes part of paths"),
        (["overrides", "sasrec"], {"modle": {}}, "overrides.sasrec: unknown key 'modle' .did you mean 'model'"),
        (["overrides", "sasrec"], 3, "overrides.sasrec: 3 is not of type 'object'"),
        (["sweeps", 0], {"method": "x"}, "sweeps.0: missing key 'name', 'field', 'values', 'retrain', 'datasets'"),
        (["analysis", "cutoffs"], [0], "analysis.cutoffs.0"),
        (["name"], None, "name: None is not of type 'string'"),
        (["output"], "results/my run", "output: 'results/my run' becomes part of paths; take letters"),
        (["output"], "", "output: '' becomes part of paths"),
        (["datasets", "a/b"], {"display": "A"}, "datasets: 'a/b' becomes part of paths"),
        (["datasets", 2014], {"display": "A"}, "datasets: 2014 is not of type 'string'"),
        (["records"], "my runs", "records: 'my runs' becomes part of paths"),
        (["sweeps", 0], {"name": "Omega.x"}, "'Omega.x' becomes part of paths; take lower-case letters, digits, '_'"),
    ],
)
def test_mistakes_are_named_with_place_and_nearest_key(path, value, message):
    with pytest.raises(ValueError, match=message):
        check(changed(path, value), SCHEMA)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "amazon-rating"}, "datasets.shop.format: unknown 'amazon-rating' .did you mean 'amazon-ratings'"),
        ({"urls": "https://host/x"}, "datasets.shop.urls: expected a list of addresses"),
        ({"urls": {"url": "https://host/x"}}, "datasets.shop.urls: expected a list of addresses"),
        ({"urls": [5]}, "datasets.shop"),
    ],
)
def test_mistakes_in_a_dataset_are_found_before_anything_is_fetched(entry, message):
    with pytest.raises(ValueError, match=message):
        check_datasets({"shop": {"display": "Shop", "format": "inter"} | entry})


def test_a_dataset_that_is_needed_and_has_no_source_is_named():
    """Snakemake would have taken a failing input function for nothing to be done."""
    config = PAPER["datasets"] | {"shop": {"display": "Shop", "format": "amazon-ratings"}}
    check_datasets(config)
    with pytest.raises(ValueError, match="datasets.shop: set 'file' to a local file, or 'urls'"):
        check_datasets(config, ["shop"])


def test_options_name_a_configuration_again():
    given = {"output": "results/mine", "compute": {"device": "cpu", "threads": "1"}, "mirror": None}
    *files, config, first, second, third = options_of(["a b.yaml", "c.yaml"], given)
    assert files == ["--configfile", "a b.yaml", "c.yaml"] and config == "--config"
    texts = dict(option.split("=", 1) for option in (first, second, third))
    read = {key: yaml.load(text, Loader=yaml.BaseLoader) for key, text in texts.items()}  # as Snakemake does
    assert typed(read) == typed(given)
    assert options_of([], {}) == []


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="top level: missing key 'grid'"):
        check({key: value for key, value in PAPER.items() if key != "grid"}, SCHEMA)


def test_all_mistakes_come_in_one_message():
    config = changed(["compute", "devise"], 1) | {"girds": 1}
    with pytest.raises(ValueError, match="devise.*|girds.*") as caught:
        check(config, SCHEMA)
    assert "devise" in str(caught.value) and "girds" in str(caught.value)


def test_text_inside_a_command_line_value_is_read_as_in_a_file():
    told = {"seed": 3, "compute": {"threads": "1", "onednn": "true"}, "grid": [{"seeds": ["1", "2"]}], "mirror": "null"}
    assert typed(told) == {
        "seed": 3, "compute": {"threads": 1, "onednn": True}, "grid": [{"seeds": [1, 2]}], "mirror": None
    }  # fmt: skip
    assert typed({"file": "/data/a.txt", "odd": "a: b: c", "empty": ""}) == {
        "file": "/data/a.txt", "odd": "a: b: c", "empty": ""
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([["grid"], ["compute"], ["overrides", "all"], ["sweeps"], ["grid", 0], ["analysis"]]), JSON)
def test_whatever_is_written_there_is_legal_or_a_value_error(path, value):
    config = changed(path, value) if path != ["overrides", "all"] else changed(["overrides"], {"all": value})
    try:
        check(config, SCHEMA)
    except ValueError as error:
        assert str(error).startswith("configuration: ")


@pytest.mark.parametrize(
    ("given", "sweeps"),
    [({}, ["omega"]), ({"grid": []}, []), ({"grid": [], "sweeps": ["mine"]}, ["omega"]), ({"sweeps": []}, ["omega"])],
)
def test_a_grid_of_ones_own_inherits_no_sweeps(given, sweeps):
    """With sweeps of one's own Snakemake has merged them already, so what is there stays."""
    assert own_sweeps({"sweeps": ["omega"]}, [{"name": "mine"}, given])["sweeps"] == sweeps


def test_the_example_of_the_documentation_asks_for_its_own_cells_only(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text("# my.yaml" + text.partition("# my.yaml")[2].partition("```")[0])
    cells = Grid(load_config([path])).cells
    assert {cell.dataset for cell in cells} == {"shop"} and len(cells) == 6
