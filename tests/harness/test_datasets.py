from pathlib import Path

import pytest
import yaml

from harness.datasets import Address, DatasetSpec, Filter, deciding
from harness.interactions import FORMATS

CONFIG = Path(__file__).resolve().parents[2] / "config" / "datasets.yaml"
ENTRIES = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["datasets"]
OWN = {"display": "Own", "format": "amazon-ratings", "file": "own.csv"}


@pytest.mark.parametrize("name", ENTRIES)
def test_shipped_entries_are_complete(name):
    spec = DatasetSpec.from_mapping(name, ENTRIES[name])
    assert spec.file is None and spec.licence and spec.expected is not None
    assert {address.format for address in spec.urls} <= FORMATS.keys()
    assert spec.raw_path(name, "raw") == Path("raw") / name / spec.urls[0].file_name


def test_an_own_dataset_needs_three_keys():
    spec = DatasetSpec.from_mapping("own", OWN)
    assert spec.raw_path("own", "raw") == Path("own.csv")
    assert spec.filter == Filter(0, 0) and spec.expected is None and spec.urls == ()


@pytest.mark.parametrize(
    ("change", "decides_raw_file", "decides_sequences"),
    [
        ({"display": "Other"}, False, False),
        ({"licence": "Other"}, False, False),
        ({"filter": {"min_user": 9}}, False, True),
        ({"deduplicate": True}, False, True),
        ({"urls": ["https://example.org/own.csv"]}, True, True),
        ({"format": "inter"}, True, True),
    ],
)
def test_what_decides_nothing_is_left_out(change, decides_raw_file, decides_sequences):
    for raw_file, decides in ((True, decides_raw_file), (False, decides_sequences)):
        changed = deciding("own", OWN | change, raw_file=raw_file) != deciding("own", OWN, raw_file=raw_file)
        assert changed is decides
        DatasetSpec.from_mapping("own", deciding("own", OWN | change, raw_file=raw_file))


def test_an_address_may_differ_from_its_dataset():
    first, second = DatasetSpec.from_mapping("ml-100k", ENTRIES["ml-100k"]).urls
    assert (first.format, first.member, first.file_name) == ("inter", None, "ml-100k.inter")
    assert (second.format, second.member, second.file_name) == (
        "movielens-tab",
        "ml-100k/u.data",
        "ml-100k.zip",
    )
    assert second.bytes is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fromat": "inter"}, r"datasets.own: unknown key 'fromat' \(did you mean 'format'"),
        ({"filter": {"min_usr": 5}}, r"datasets.own.filter: unknown key 'min_usr' \(did you mean 'min_user'"),
        ({"filter": {"min_user": -1}}, "datasets.own.filter: min_user: -1 is out of range"),
        ({"filter": [5, 5]}, "datasets.own"),
        ({"filter": {"min_user": "five"}}, "datasets.own.filter: min_user: expected int"),
        ({"expected": {"users": 3}}, "datasets.own.*items"),
        ({"urls": [{"digest": None}]}, "datasets.own.urls: each entry"),
        ({"urls": ["https://x/y"], "digest": "abc"}, "digest: 'abc' is out of range"),
        ({"urls": ["https://x/y"], "digest": "md5:" + "0" * 31}, "digest: "),
        ({"deduplicate": "yes"}, "datasets.own: deduplicate: expected bool"),
    ],
)
def test_mistakes_name_the_key(change, message):
    with pytest.raises(ValueError, match=message):
        DatasetSpec.from_mapping("own", OWN | change)


def test_missing_format_and_missing_source_are_named():
    with pytest.raises(ValueError, match="datasets.own: missing key 'format'"):
        DatasetSpec.from_mapping("own", {"display": "Own"})
    with pytest.raises(ValueError, match="datasets.own: set 'file'"):
        DatasetSpec.from_mapping("own", {"display": "Own", "format": "inter"}).raw_path("own", "raw")


def test_file_name_of_an_address_ignores_the_query():
    assert Address("https://host/a/b.zip?download=1").file_name == "b.zip"
