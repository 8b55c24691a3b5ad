"""Mappings to dataclasses: whatever does not belong is named, with the nearest legal name."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from harness.settings import from_mapping, merge, nearest, read_yaml, require


@dataclass(frozen=True)
class Example:
    width: int = 4
    rate: float = 0.1
    name: str = "x"
    flag: bool = False
    mode: Literal["fast", "plain"] = "fast"
    limit: int | None = None
    share: float | None = None
    steps: tuple[int, ...] = (1, 2)
    sizes: list[int] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demanding:
    name: str
    size: int


def test_nothing_given_means_defaults():
    assert from_mapping(Example, None, where="here") == from_mapping(Example, {}, where="here") == Example()


def test_values_of_every_kind_are_taken():
    values = {
        "width": 3,
        "rate": 0.5,
        "name": "y",
        "flag": True,
        "mode": "plain",
        "sizes": [5, 6],
        "limit": 7,
        "share": 1,
        "steps": [3, 4],
        "extra": {"a": 1},
    }
    assert from_mapping(Example, values, where="here") == Example(
        3, 0.5, "y", True, "plain", 7, 1.0, (3, 4), [5, 6], {"a": 1}
    )


@pytest.mark.parametrize(("given", "kind"), [(1, float), ("1e-3", float), ("1", float)])
def test_numbers_that_yaml_reads_otherwise_become_floats(given, kind):
    assert type(from_mapping(Example, {"rate": given}, where="here").rate) is kind


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "-inf"])
@pytest.mark.parametrize("key", ["rate", "share"])
def test_a_number_is_finite(key, value):
    with pytest.raises(ValueError, match=f"here: {key}: .* not a finite number"):
        from_mapping(Example, {key: value}, where="here")


def test_the_callers_mapping_is_left_alone():
    values = {"rate": 1}
    from_mapping(Example, values, where="here")
    assert values == {"rate": 1} and type(values["rate"]) is int


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 3}, r"here: unknown key 'widht' \(did you mean 'width'\?\); legal keys are extra, flag,"),
        ({"zzz": 3}, r"here: unknown key 'zzz'; legal"),
        ({1: 3}, "here: unknown key 1"),
        ({"width": "4"}, "here: width: expected int, got '4'"),
        ({"width": 4.0}, "width: expected int"),
        ({"width": True}, "width: expected int"),
        ({"width": None}, "width: expected int"),
        ({"rate": "fast"}, "rate: expected a number"),
        ({"rate": True}, "rate: expected float"),
        ({"rate": [1]}, "rate: expected float"),
        ({"name": 3}, "name: expected str"),
        ({"flag": 1}, "flag: expected bool"),
        ({"flag": "yes"}, "flag: expected bool"),
        ({"mode": "slow"}, "mode: 'slow' is not one of 'fast', 'plain'"),
        ({"mode": ["fast"]}, "mode: .* is not one of"),
        ({"limit": 1.5}, "limit: expected int"),
        ({"steps": 3}, "steps: expected a list"),
        ({"steps": [1, "2"]}, "steps: expected int, got '2'"),
        ({"extra": [1]}, "extra: expected a mapping"),
        ([1, 2], "here: expected a mapping"),
        ("text", "here: expected a mapping"),
        (3, "here: expected a mapping"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(Example, values, where="here")


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="here: missing key 'size'"):
        from_mapping(Demanding, {"name": "x"}, where="here")


@pytest.mark.parametrize("text", ["a: 1\nb: {c: 1, c: 2}\n", "c: {}\nb: 1\nc: {d: 1}\n"])
def test_a_key_that_stands_twice_is_named(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"x.yaml: not YAML \('c' stands twice(.|\n)*line"):
        read_yaml(tmp_path / "x.yaml")


def test_a_merge_key_may_stand_beside_what_it_gives(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1, y: 2}\nb: {c: &c {<<: *a, x: 3}}\nd: {<<: *c, y: 4}\n")
    found = read_yaml(tmp_path / "x.yaml")
    assert found["b"]["c"] == {"x": 3, "y": 2} and found["d"] == {"x": 3, "y": 4}


def test_nearest_says_nothing_rather_than_something_far_off():
    assert nearest("beuty", ["beauty", "toys"]) == " (did you mean 'beauty'?)"
    assert nearest("qqq", ["beauty", "toys"]) == ""


def test_require_names_field_value_and_legal_values():
    require(True, "width", 1, "anything")
    with pytest.raises(ValueError, match="width: 0 is out of range, legal values are 1 or more"):
        require(False, "width", 0, "1 or more")


def test_merge_lets_later_layers_win_key_by_key():
    base = {"model": {"a": 1, "b": 2}, "x": 1}
    assert merge(base, None, {"model": {"b": 3}}, {"x": 2}) == {"model": {"a": 1, "b": 3}, "x": 2}
    assert base == {"model": {"a": 1, "b": 2}, "x": 1}


def test_merge_does_not_share_nested_mappings_with_its_layers():
    base = {"model": {"a": 1}}
    merged = merge(base, {"model": {"b": 1}})
    merged["model"]["c"] = 1
    assert base == {"model": {"a": 1}}
