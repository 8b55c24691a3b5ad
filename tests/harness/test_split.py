"""Sequences and the leave-one-out split: every interaction lands exactly once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.split import Sequences, TrainingView, append_item, drop_first_item, leave_one_out

ROWS = st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=8), min_size=1, max_size=8)


def rows_of(sequences: Sequences) -> list[list[int]]:
    return [sequences.of_user(user).tolist() for user in range(sequences.num_users)]


@given(ROWS)
def test_every_interaction_lands_exactly_once(rows):
    split = leave_one_out(Sequences.from_lists(rows, 9))
    parts = zip(rows_of(split.train), split.val_target_U.tolist(), split.test_target_U.tolist(), strict=True)
    assert [[*train, val, test] for train, val, test in parts] == rows


@given(ROWS)
def test_histories_grow_by_the_item_just_predicted(rows):
    split = leave_one_out(Sequences.from_lists(rows, 9))
    assert rows_of(split.history("val")) == [row[:-2] for row in rows]
    assert rows_of(split.history("test")) == [row[:-1] for row in rows]
    assert split.target_U("val").tolist() == [row[-2] for row in rows]
    assert split.target_U("test").tolist() == [row[-1] for row in rows]


@given(ROWS, st.data())
def test_append_item_adds_one_at_each_end(rows, data):
    items = data.draw(st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows)))
    longer = append_item(Sequences.from_lists(rows, 9), np.array(items, dtype=np.int32))
    assert rows_of(longer) == [[*row, item] for row, item in zip(rows, items, strict=True)]
    assert longer.items.dtype == np.int32


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=8))
def test_drop_first_item_keeps_rows_of_one(rows):
    assert rows_of(drop_first_item(Sequences.from_lists(rows, 9))) == [row[1:] if len(row) > 1 else row for row in rows]


def test_drop_first_item_survives_empty_rows():
    assert rows_of(drop_first_item(Sequences.from_lists([[], [1, 2], []], 2))) == [[], [2], []]


def test_the_training_view_holds_no_target():
    split = leave_one_out(Sequences.from_lists([[1, 2, 3, 9]], 9))
    view = split.training_view()
    assert isinstance(view, TrainingView)
    assert vars(view).keys() == {"train"}
    assert view.train.items.tolist() == [1, 2]


def test_user_with_two_items_is_named_with_a_remedy():
    with pytest.raises(ValueError, match=r"toy: 1 user.*user 2 with 2; raise filter.min_user to at least 3"):
        leave_one_out(Sequences.from_lists([[1, 2, 3], [1, 2]]), dataset="toy")


def test_unknown_part_names_the_legal_ones():
    split = leave_one_out(Sequences.from_lists([[1, 2, 3]]))
    for method in (split.history, split.target_U):
        with pytest.raises(ValueError, match="'val' and 'test'"):
            method("train")


@pytest.mark.parametrize(
    ("items", "offsets", "message"),
    [
        ([1, 2], [0, 1], "offsets must start"),
        ([1, 2], [1, 2], "offsets must start"),
        ([1, 2], [0], "offsets must start"),
        ([1, 2], [0, 3, 2], "not decrease"),
        ([], [0, 0], "empty"),
        ([0, 1], [0, 2], "span 0..1, legal are 1..5"),
        ([1, 6], [0, 2], "span 1..6, legal are 1..5"),
        ([-1, 1], [0, 2], "span -1..1"),
    ],
)
def test_arrays_that_are_no_sequences_are_refused(items, offsets, message):
    with pytest.raises(ValueError, match=message):
        Sequences(np.array(items, dtype=np.int32), np.array(offsets, dtype=np.int64), 5)


def test_digest_depends_on_items_offsets_and_catalogue_only(tmp_path):
    base = Sequences.from_lists([[1, 2], [3]], 5)
    others = [
        Sequences.from_lists([[1], [2, 3]], 5),
        Sequences.from_lists([[2, 1], [3]], 5),
        Sequences.from_lists([[1, 2], [3]], 6),
    ]
    assert len({base.sha256, *(each.sha256 for each in others)}) == 4
    assert Sequences(base.items.astype(np.int64), base.offsets.astype(np.int32), 5).sha256 == base.sha256


def test_the_digest_of_a_split_covers_the_targets():
    ends = ([7, 8], [6, 8], [7, 9])
    assert len({leave_one_out(Sequences.from_lists([[1, 2, 3, *end]], 9)).sha256 for end in ends}) == 3


def test_archives_round_trip(tmp_path):
    base = Sequences.from_lists([[1, 2], [3]], 5)
    base.save(tmp_path / "a.npz")
    again = Sequences.load(tmp_path / "a.npz")
    assert again.sha256 == base.sha256 and again.num_items == 5


def test_an_archive_cut_anywhere_is_named(tmp_path):
    path = tmp_path / "sequences.npz"
    Sequences.from_lists([[1, 2, 3], [3]], 5).save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="sequences.npz.*delete it and run again"):
            Sequences.load(path)


def test_a_flipped_byte_is_never_taken_for_other_data(tmp_path):
    path = tmp_path / "sequences.npz"
    base = Sequences.from_lists([[1, 2, 3], [3]], 5)
    base.save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            assert Sequences.load(path).sha256 == base.sha256  # a byte of zip metadata that nobody reads
        except ValueError as error:
            assert "sequences.npz" in str(error)


def test_a_pickle_in_an_archive_is_not_loaded(tmp_path):
    path = tmp_path / "sequences.npz"
    np.savez(path, items=np.array([print], dtype=object), offsets=np.array([0, 1]), num_items=1)
    with pytest.raises(ValueError, match="sequences.npz"):
        Sequences.load(path)


def test_arrays_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "sequences.npz"
    for items in (np.array([1.5, 2.0]), np.array([[1], [2]]), np.array(["1", "2"])):
        np.savez(path, items=items, offsets=np.array([0, 2]), num_items=2)
        with pytest.raises(ValueError, match="sequences.npz"):
            Sequences.load(path)


def test_a_missing_archive_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Sequences.load(tmp_path / "none.npz")
