"""Negatives: outside the user's sequence, uniform over the rest."""

import pytest
import torch
from scipy.stats import chisquare

from harness.negatives import NegativeSampler
from harness.split import Sequences
from harness.windows import ResidentSequences

ROWS = [[1, 2, 3], [5], [10, 9, 8, 7, 6, 5, 4, 3, 2], [4, 4, 4]]


def sampler(rows=ROWS, num_items=10):
    return NegativeSampler(ResidentSequences.of(Sequences.from_lists(rows, num_items)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_never_an_item_of_the_user():
    drawn = sampler().draw(torch.tensor([0, 1, 2, 3]), (500,), generator())
    for row, own in zip(drawn.tolist(), ROWS, strict=True):
        assert set(row) == set(range(1, 11)) - set(own)


def test_rows_follow_their_users_in_any_order_and_shape():
    drawn = sampler().draw(torch.tensor([2, 0, 2]), (4, 5), generator())
    assert drawn.shape == (3, 4, 5)
    assert (drawn[0] == 1).all() and (drawn[2] == 1).all()
    assert not set(drawn[1].flatten().tolist()) & {1, 2, 3}
    assert sampler().draw(torch.tensor([2, 0]), (), generator()).shape == (2,)


def test_uniform_over_the_rest():
    drawn = sampler().draw(torch.tensor([0]), (20_000,), generator())
    counts = torch.bincount(drawn.flatten(), minlength=11)[4:]
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_ends_of_the_catalogue_are_drawn():
    drawn = sampler([[5]], 6).draw(torch.tensor([0]), (500,), generator())
    assert set(drawn.flatten().tolist()) == {1, 2, 3, 4, 6}


def test_seed_decides():
    first, again, other = (sampler().draw(torch.tensor([0]), (50,), generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_one_free_item_is_found():
    drawn = sampler([[i for i in range(1, 41) if i != 17]], 40).draw(torch.tensor([0]), (50,), generator())
    assert (drawn == 17).all()


def test_a_user_with_every_item_is_named():
    with pytest.raises(ValueError, match="user row 1 leaves no item to draw from 3"):
        sampler([[1], [3, 2, 1]], 3).draw(torch.tensor([0, 1]), (2,), generator())
