"""Every method under config/methods passes the battery, at the toy size of its builder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.methods import Method, known_methods, load_method
from harness.settings import merge
from tests.contracts import battery

TOY = Path(__file__).parent / "toy"


def toy(name: str) -> tuple[Method, dict]:
    """The method with its builder's toy sizes, and how fast it must learn the chain."""
    method = load_method(name)
    path = TOY / f"{method.builder}.yaml"
    assert path.is_file(), f"{path}: give toy sizes for the contract battery here"
    sizes = yaml.safe_load(path.read_text(encoding="utf-8"))
    model = merge(method.model, sizes.get("model"), sizes.get("methods", {}).get(name))
    return replace(method, model=model), sizes.get("chain") or {}


# The oracle is scored by the evaluator itself, which alone knows the targets (tests/harness/test_ranking.py).
METHODS = {name: load_method(name) for name in known_methods() if name != "floor.oracle"}
TRAINED = [name for name, method in METHODS.items() if method.reuse_weights is None]
# An ablation learns like the method it is a variant of; training each of them as well would only cost time.
LEARNING = [name for name in TRAINED if METHODS[name].variant_of is None or name.endswith((".tuned", ".released"))]
CHECKS = [
    battery.check_scores_are_finite,
    battery.check_padding_and_batch_mates_do_not_matter,
    battery.check_evaluation_is_deterministic,
    battery.check_threads_do_not_matter,
    battery.check_build_is_seeded,
    battery.check_seed_decides,
    battery.check_evaluation_frequency_does_not_change_training,
    battery.check_state_round_trips,
    battery.check_held_out_targets_are_not_read,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", TRAINED)
def test_contract(name, check):
    check(toy(name)[0])


@pytest.mark.parametrize("name", [name for name in TRAINED if not name.startswith("floor.")])
def test_item_ids_carry_no_meaning(name):
    """Floors are left out: they break ties by id, on purpose."""
    battery.check_item_ids_carry_no_meaning(toy(name)[0])


@pytest.mark.parametrize("name", LEARNING)
def test_learns_a_deterministic_chain(name):
    method, chain = toy(name)
    if chain.get("at_least") == 0:
        pytest.skip("this method cannot learn transitions, by construction")
    battery.check_learns_a_deterministic_chain(method, **chain)
