"""Histories gathered by index equal what a plain Python loop builds."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.split import Sequences
from harness.synthetic import random_walk
from harness.windows import (
    PrefixSampler,
    ResidentSequences,
    SequenceSampler,
    align_left,
    length_slices,
    pad_left,
)

ROWS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=9), min_size=1, max_size=7).filter(
    lambda rows: any(len(row) > 1 for row in rows)
)
WALK = random_walk(num_users=50, num_items=60, min_length=1, max_length=40)


def resident(rows, num_items=9):
    return ResidentSequences.of(Sequences.from_lists(rows, num_items))


def strip(row):
    """The items of a left-padded row; padding between items would be a mistake."""
    items = [item for item in row if item]
    assert row == [0] * (len(row) - len(items)) + items
    return tuple(items)


def naive_prefixes(rows, max_len):
    return Counter(
        (user, tuple(row[max(0, place - max_len) : place]), row[place])
        for user, row in enumerate(rows)
        for place in range(1, len(row))
    )


def prefixes(batch):
    parts = (batch.user_B.tolist(), batch.history_BL.tolist(), batch.target_B.tolist())
    return [(user, strip(row), target) for user, row, target in zip(*parts, strict=True)]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 6), st.integers(1, 9), st.booleans())
def test_prefix_sampler_yields_what_a_naive_loop_does(rows, max_len, batch_size, trim):
    sampler = PrefixSampler(resident(rows), max_len=max_len, batch_size=batch_size, trim=trim)
    batches = list(sampler.epoch(torch.Generator().manual_seed(0)))
    assert Counter(sample for batch in batches for sample in prefixes(batch)) == naive_prefixes(rows, max_len)
    assert len(batches) == sampler.num_batches
    assert sum(len(batch.target_B) for batch in batches) == sampler.num_samples
    for batch in batches:
        assert batch.length_B.tolist() == [len(history) for _, history, _ in prefixes(batch)]
        assert batch.length_B.tolist() == sorted(batch.length_B.tolist())
        assert batch.history_BL.shape[1] == (int(batch.length_B.max()) if trim else max_len)


def walk_batches(trim, seed=0):
    sampler = PrefixSampler(ResidentSequences.of(WALK), max_len=12, batch_size=64, trim=trim)
    return list(sampler.epoch(torch.Generator().manual_seed(seed)))


def test_trimmed_histories_are_the_right_part_of_untrimmed_ones():
    for short, full in zip(walk_batches(True), walk_batches(False), strict=True):
        width = short.history_BL.shape[1]
        assert torch.equal(short.history_BL, full.history_BL[:, -width:])
        assert (full.history_BL[:, :-width] == 0).all()
        assert torch.equal(short.target_B, full.target_B)


def test_epochs_differ_and_seeds_repeat():
    first, again, other = walk_batches(True), walk_batches(True), walk_batches(True, seed=1)
    assert torch.equal(first[0].target_B, again[0].target_B)
    assert prefixes(first[0]) != prefixes(other[0])
    sampler = PrefixSampler(ResidentSequences.of(WALK), max_len=12, batch_size=64)
    generator = torch.Generator().manual_seed(0)
    assert prefixes(next(sampler.epoch(generator))) != prefixes(next(sampler.epoch(generator)))


def test_batches_mix_users():
    """Shuffled over all samples: no batch is the work of a few users."""
    assert all(len(batch.user_B.unique()) > 15 for batch in walk_batches(True)[:-1])


@pytest.mark.parametrize("count", [1, 2, 3, 8, 1000])
def test_slices_cover_each_row_once_and_lose_no_item(count):
    for batch in walk_batches(True):
        covered = []
        for rows, history_BL in batch.slices(count):
            index = range(*rows.indices(len(batch.target_B)))
            covered += index
            assert [strip(row) for row in history_BL.tolist()] == [strip(batch.history_BL[i].tolist()) for i in index]
        assert covered == list(range(len(batch.target_B)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8).map(sorted), st.integers(1, 4))
def test_slices_have_the_least_padding_that_so_many_groups_can_have(lengths, count):
    found = list(length_slices(torch.tensor(lengths), count))
    assert all(width == lengths[rows.stop - 1] for rows, width in found)
    every_way = (
        sum((end - begin) * lengths[end - 1] for begin, end in itertools.pairwise((0, *cuts, len(lengths))))
        for groups in range(1, min(count, len(lengths)) + 1)
        for cuts in itertools.combinations(range(1, len(lengths)), groups - 1)
    )
    assert len(found) <= count
    assert sum((rows.stop - rows.start) * width for rows, width in found) == min(every_way)


def test_one_slice_keeps_untrimmed_padding():
    batch = walk_batches(False)[0]
    ((_, history_BL),) = batch.slices(1)
    assert torch.equal(history_BL, batch.history_BL)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_pieces_all_use_each_target_exactly_once(rows, max_len, batch_size, trim):
    sampler = SequenceSampler(resident(rows), max_len=max_len, batch_size=batch_size, pieces="all", trim=trim)
    used = Counter()
    for batch in sampler.epoch(torch.Generator().manual_seed(0)):
        assert torch.equal(batch.input_BL > 0, batch.target_BL > 0)
        for user, source, target in zip(
            batch.user_B.tolist(), batch.input_BL.tolist(), batch.target_BL.tolist(), strict=True
        ):
            source, target = strip(source), strip(target)
            assert len(source) <= max_len and source[1:] == target[:-1]
            used.update((user, pair) for pair in zip(source, target, strict=True))
    assert used == Counter((user, pair) for user, row in enumerate(rows) for pair in zip(row, row[1:], strict=False))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 6))
def test_pieces_last_equal_the_last_items(rows, max_len):
    sampler = SequenceSampler(resident(rows), max_len=max_len, batch_size=3, pieces="last")
    found = {}
    for batch in sampler.epoch(torch.Generator().manual_seed(0)):
        for user, source, target in zip(
            batch.user_B.tolist(), batch.input_BL.tolist(), batch.target_BL.tolist(), strict=True
        ):
            assert user not in found
            found[user] = [*strip(source), strip(target)[-1]]
    assert found == {user: row[-max_len - 1 :] for user, row in enumerate(rows) if len(row) > 1}


def test_unknown_pieces_are_refused():
    with pytest.raises(ValueError, match="'all', 'last'"):
        SequenceSampler(resident([[1, 2]]), max_len=2, batch_size=1, pieces="some")


@pytest.mark.parametrize("sampler", [PrefixSampler, SequenceSampler])
def test_users_with_one_training_item_each_leave_nothing_to_learn_from(sampler):
    with pytest.raises(ValueError, match="more than one training item"):
        sampler(resident([[1], [2]]), max_len=3, batch_size=2)


def test_window_never_reads_a_neighbour():
    data = resident([[1, 2], [3, 4, 5], [6]])
    window = data.window(torch.tensor([2, 0, 5]), torch.tensor([5, 2, 6]), 4)
    assert window.tolist() == [[0, 3, 4, 5], [0, 0, 1, 2], [0, 0, 0, 6]]
    assert data.window(torch.tensor([2]), torch.tensor([5]), 2).tolist() == [[4, 5]]
    assert data.window(torch.tensor([2]), torch.tensor([2]), 2).tolist() == [[0, 0]]


def test_histories_are_as_wide_as_needed():
    data = resident([[1, 2], [3, 4, 5], [6]])
    assert data.histories(torch.tensor([0, 2]), 10).tolist() == [[1, 2], [0, 6]]
    assert data.histories(torch.tensor([1, 0]), 2).tolist() == [[4, 5], [1, 2]]
    assert data.lengths_U.tolist() == [2, 3, 1]


def test_pad_left_pads_or_keeps_the_last():
    rows = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert pad_left(rows, 5).tolist() == [[0, 0, 0, 1, 2], [0, 0, 3, 4, 5]]
    assert pad_left(rows, 3).tolist() == rows.tolist()
    assert pad_left(rows, 2).tolist() == [[1, 2], [4, 5]]


def test_align_left_moves_padding_to_the_right():
    rows, lengths = align_left(torch.tensor([[0, 0, 7], [1, 2, 3], [0, 4, 5], [0, 0, 0]]))
    assert rows.tolist() == [[7, 0, 0], [1, 2, 3], [4, 5, 0], [0, 0, 0]]
    assert lengths.tolist() == [1, 3, 2, 0]
