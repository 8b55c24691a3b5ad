from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.interactions import Interactions, read_interactions
from harness.preprocess import core_rows, fingerprint, process, renumbered, stable_order, statistics
from harness.split import Sequences, leave_one_out

ROW = st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(0, 3))
ROWS = st.lists(ROW, min_size=1, max_size=60)


def interactions(rows, *, timed=True, user_name="u{}".format, item_name="i{}".format):
    """Code rows of (user, item, time) by first appearance, as the readers do."""
    users, items = {}, {}
    user_N = [users.setdefault(user, len(users)) for user, _, _ in rows]
    item_N = [items.setdefault(item, len(items)) for _, item, _ in rows]
    time_N = np.array([time for _, _, time in rows], dtype=float) if timed else None
    names = [user_name(user) for user in users], [item_name(item) for item in items]
    return Interactions(np.array(user_N, np.int32), np.array(item_N, np.int32), time_N, *names)


def named_rows(processed):
    """Return the sequences as lists of item labels, by user label."""
    sequences = processed.sequences
    return {
        label: [processed.item_labels[item - 1] for item in sequences.of_user(user)]
        for user, label in enumerate(processed.user_labels)
    }


def naive_core(rows, min_user, min_item):
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if users[row[0]] >= min_user and items[row[1]] >= min_item]
        if len(kept) == len(rows):
            return rows
        rows = kept


@given(ROWS, st.booleans())
def test_every_interaction_lands_exactly_once_in_order(rows, timed):
    expected = {}
    for user, item, time in rows:
        expected.setdefault(f"u{user}", []).append((time if timed else 0, f"i{item}"))
    for user, row in expected.items():
        by_time = sorted(row, key=lambda pair: pair[0])  # stable: ties keep file order
        expected[user] = [item for _, item in by_time]
    processed = process(interactions(rows, timed=timed))
    assert named_rows(processed) == expected
    assert list(named_rows(processed)) == list(expected)  # users in file order


@given(ROWS)
def test_items_are_numbered_by_first_appearance(rows):
    sequences = process(interactions(rows)).sequences
    assert list(dict.fromkeys(sequences.items.tolist())) == list(range(1, sequences.num_items + 1))


@given(ROWS, st.integers(0, 4), st.integers(0, 4))
def test_core_equals_a_naive_loop_and_is_a_fixed_point(rows, min_user, min_item):
    expected = naive_core(rows, min_user, min_item)
    raw = interactions(rows)
    if not expected:
        with pytest.raises(ValueError, match=r"none of \d+ interactions is left"):
            process(raw, min_user=min_user, min_item=min_item)
        return
    processed = process(raw, min_user=min_user, min_item=min_item)
    assert sorted((u, i) for u, row in named_rows(processed).items() for i in row) == sorted(
        (f"u{u}", f"i{i}") for u, i, _ in expected
    )
    assert processed.dropped["actions"] == len(rows) - len(expected)
    sequences = processed.sequences
    user_N = np.repeat(np.arange(sequences.num_users), sequences.lengths)
    assert core_rows(user_N, sequences.items, min_user=min_user, min_item=min_item) is None


def test_core_needs_several_rounds_here():
    """Dropping item 9 leaves user 2 with one action, and dropping that user leaves item 1 with one."""
    rows = [(0, 0, 0), (0, 2, 1), (1, 0, 0), (1, 2, 1), (2, 1, 0), (2, 9, 1), (0, 1, 5)]
    processed = process(interactions(rows), min_user=2, min_item=2)
    assert named_rows(processed) == {"u0": ["i0", "i2"], "u1": ["i0", "i2"]}
    assert processed.dropped == {"duplicates": 0, "users": 1, "items": 2, "actions": 3}


def test_duplicates_are_kept_unless_asked_and_the_first_in_the_file_stays():
    rows = [(0, 5, 30), (0, 6, 20), (0, 5, 10), (1, 5, 1)]
    assert named_rows(process(interactions(rows))) == {"u0": ["i5", "i6", "i5"], "u1": ["i5"]}
    processed = process(interactions(rows), deduplicate=True)
    assert named_rows(processed) == {"u0": ["i6", "i5"], "u1": ["i5"]}
    assert processed.dropped["duplicates"] == 1 and processed.dropped["actions"] == 0


@given(ROWS, st.permutations(range(9)), st.permutations(range(7)))
def test_fingerprint_does_not_depend_on_names(rows, item_names, user_names):
    original = process(interactions(rows)).sequences
    renamed = [(user_names[user], item_names[item], time) for user, item, time in rows]
    assert fingerprint(process(interactions(renamed)).sequences) == fingerprint(original)
    shuffled = np.array([0, *np.random.default_rng(0).permutation(original.num_items) + 1], dtype=np.int32)
    other = Sequences(shuffled[original.items], original.offsets, original.num_items)
    assert fingerprint(other) == fingerprint(original)


def test_fingerprint_is_the_sha256_of_the_canonical_text():
    """Pinned with `printf '1 2\\n2 1 3\\n' | sha256sum`."""
    sequences = Sequences.from_lists([[9, 4], [4, 9, 7]])
    assert fingerprint(sequences) == "c9852c6f9518d5bcb08475511e71d5a10b67eff62b13487d046026b3f5b3ce3c"


def test_fingerprint_sees_order_users_and_boundaries():
    variants = ([[1, 2], [1, 3]], [[2, 1], [1, 3]], [[1, 3], [1, 2, 2]], [[1, 2, 1], [3]])
    assert len({fingerprint(Sequences.from_lists(rows)) for rows in variants}) == len(variants)


@settings(max_examples=200)
@given(
    st.one_of(
        st.lists(st.integers(0, 2**31 - 1), min_size=1).map(lambda keys: np.array(keys, np.int32)),
        st.lists(st.floats(0, 2**62), min_size=1).map(np.array),
        st.lists(st.floats(0, 3, width=16), min_size=1).map(np.array),
        st.lists(st.integers(0, 3), min_size=1).map(lambda keys: np.array(keys, float)),
    )
)
def test_stable_order_equals_numpys_stable_sort(keys):
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


def test_renumbered_returns_the_old_code_of_each_new_id():
    items, old_codes = renumbered(np.array([7, 3, 7, 0]))
    assert items.tolist() == [1, 2, 1, 3] and old_codes.tolist() == [7, 3, 0]


def test_statistics_by_hand():
    found = statistics(Sequences.from_lists([[1, 2, 3], [1, 2, 4, 5, 6], [6, 1, 2, 3]]))
    del found["fingerprint"]
    assert found == {
        "users": 3,
        "items": 6,
        "actions": 12,
        "avg_len": 4.0,
        "min_len": 3,
        "median_len": 4.0,
        "max_len": 5,
        "sparsity_percent": pytest.approx(100 * (1 - 12 / 18)),
    }


def test_ties_are_counted_within_users_only():
    rows = [(0, 1, 5), (0, 2, 5), (0, 3, 6), (1, 1, 6), (1, 2, 6), (1, 3, 6)]
    assert process(interactions(rows)).tied == 3
    assert process(interactions(rows)).repeated == 0
    assert process(interactions([*rows, (0, 2, 5)])).repeated == 1
    assert process(interactions(rows, timed=False)).tied is process(interactions(rows, timed=False)).repeated is None


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("beauty", (22363, 12101, 198502)),
        ("toys", (19412, 11924, 167597)),
        ("ml-1m", (6040, 3416, 999611)),
    ],
)
def test_table_1_counts(shared_dir, file, counts):
    raw = read_interactions(shared_dir / "data" / f"{file}.sequences.txt", format="sequences")
    sequences = process(raw, min_user=5, min_item=5).sequences
    found = statistics(sequences)
    assert (found["users"], found["items"], found["actions"]) == counts
    leave_one_out(sequences, dataset=file)
