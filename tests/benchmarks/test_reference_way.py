"""The fast paths against the reference's way: same weights, same noise, no dropout, relative difference below 1e-5."""

from dataclasses import replace

import pytest
import torch

from benchmarks.measuring.equality import TOLERANCE, differences, relative
from benchmarks.measuring.reference_way import gelu, layer_norm, reference_way
from harness.compute import Compute, evaluation_mode
from harness.methods import build_learner, load_method
from harness.split import leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import random_walk
from harness.windows import PrefixSampler, ResidentSequences, pad_left

VIEW = leave_one_out(random_walk(num_users=40, num_items=30, min_length=4, max_length=16)).training_view()
SMALL = {"embedding_dim": 16, "num_blocks": 2, "max_len": 12, "num_steps": 8, "batch_size": 64}
METHODS = ("diffurec", "diffurec.keys", "aligndiff")


def way_of(method, **changes):
    settings = load_method(method).resolved("beauty", {"model": SMALL | changes})
    return reference_way(build_learner(settings, VIEW, Streams(1), Compute()))


def batches(way, *, count=64):
    """The same samples as the learner gathers them and padded to max_len."""
    padded = PrefixSampler(ResidentSequences.of(VIEW.train), max_len=12, batch_size=count, trim=False)
    return [sampler.batch(torch.arange(count)) for sampler in (way.learner.sampler, padded)]


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_the_fast_paths(method):
    way = way_of(method)
    found = differences(way, *batches(way))
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize(
    ("method", "other"), [("diffurec", "keys"), ("diffurec.keys", "released"), ("aligndiff", "queries")]
)
def test_another_mask_would_be_seen(method, other):
    """The comparison has teeth: padding treated in another way is another loss."""
    way = way_of(method)
    way.config = replace(way.config, mask=other)
    assert max(differences(way, *batches(way)).values()) > 100 * TOLERANCE


@pytest.mark.parametrize("method", METHODS)
def test_the_reverse_chain_ends_where_the_fast_one_does(method):
    way = way_of(method)
    history_BL = ResidentSequences.of(VIEW.train).histories(torch.arange(40), 12)
    width = int((history_BL > 0).sum(1).max())
    with evaluation_mode(way.net):
        expected_BD = way.generate(pad_left(history_BL, 12), UserNoise.single(40, width), full=method == "diffurec")
        with torch.no_grad():
            found_BD = way.learner.represent(history_BL, torch.arange(40), UserNoise.single(40, width))
    assert relative(found_BD, expected_BD) < TOLERANCE


def test_a_step_in_the_references_way_lowers_the_loss():
    way = way_of("aligndiff", dropout=0.0, embedding_dropout=0.0, energy_dropout=0.0)
    padded, noise = batches(way)[1], way.draw(64)
    before = way.loss(padded, noise)
    for _ in range(5):
        way.training_step(padded)
    assert way.loss(padded, noise) < before


def test_written_out_parts_are_torchs():
    x = torch.randn(7, 16)
    norm = torch.nn.LayerNorm(16)
    torch.testing.assert_close(gelu(x), torch.nn.functional.gelu(x, approximate="tanh"))
    torch.testing.assert_close(layer_norm(x, norm), norm(x))
