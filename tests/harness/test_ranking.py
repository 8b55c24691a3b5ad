"""Ranks: ties, NaN, padding, seen items, and everything about batches that must not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import ranking
from harness.metrics import summarise
from harness.ranking import BLOCK, Evaluator, rank_of_target, seen_above
from harness.split import Sequences, leave_one_out
from harness.synthetic import random_walk

INF = float("inf")
SPLIT = leave_one_out(random_walk(num_users=3 * BLOCK + 17, num_items=40, min_length=4, max_length=30))


def evaluator(split=SPLIT, part="test", **options):
    options = {"seed": 3, "max_len": 12} | options
    return Evaluator(split.history(part), split.target_U(part), part=part, **options)


def table_score(split=SPLIT, seed=0):
    """Fixed scores per user with ties, independent of history."""
    table = torch.from_numpy(np.random.default_rng(seed).integers(0, 9, (split.num_users, split.num_items + 1)))
    return lambda history_BL, user_B, noise: table[user_B].float()


def noisy_score(history_BL, user_B, noise):
    per_position = noise.normal_per_position(history_BL.shape[1], 3).sum((1, 2))
    return noise.normal(SPLIT.num_items + 1) + per_position[:, None] * torch.arange(SPLIT.num_items + 1) / 50


def test_rank_by_hand():
    score = torch.tensor([[-INF, 3.0, 2.0, 1.0], [-INF, 3.0, 2.0, 1.0]])
    assert rank_of_target(score, torch.tensor([1, 3])).tolist() == [1, 3]


def test_ties_count_against_the_target():
    score = torch.tensor([[-INF, 1.0, 1.0, 1.0, 0.0]])
    assert rank_of_target(score, torch.tensor([1])).tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counting_few_rows_at_a_time_equals_comparing_all_at_once(monkeypatch, dtype):
    score = torch.randint(0, 9, (50, 41), generator=torch.Generator().manual_seed(0)).to(dtype)
    target = torch.randint(1, 41, (50,), generator=torch.Generator().manual_seed(1))
    expected = (score[:, 1:] >= score.gather(1, target[:, None])).sum(1)
    for rows in (1, 7, 50, 1000):
        monkeypatch.setitem(ranking.COUNT_BYTES, "cpu", 4 * 40 * rows)
        assert rank_of_target(score, target).equal(expected)


def test_nan_is_refused_even_far_from_the_target():
    score = torch.tensor([[-INF, 1.0, 2.0, float("nan")]])
    with pytest.raises(ValueError, match="NaN"):
        rank_of_target(score, torch.tensor([1]))


def test_nan_is_refused_in_whichever_rows_it_stands(monkeypatch):
    """Rows are counted few at a time, here one."""
    monkeypatch.setitem(ranking.COUNT_BYTES, "cpu", 4 * 3)
    for row in range(3):
        score = torch.ones(3, 4)
        score[row, 2] = float("nan")
        with pytest.raises(ValueError, match="NaN"):
            rank_of_target(score, torch.tensor([1, 1, 1]))


def test_a_rank_in_the_thousands_is_counted_to_the_unit():
    """A buffer in half precision would count up to 256 only."""
    score = torch.rand(8, 5001, generator=torch.Generator().manual_seed(0))
    target = torch.arange(1, 9)
    expected = (score[:, 1:] >= score.gather(1, target[:, None])).sum(1, dtype=torch.int64)
    assert expected.max() > 2000 and rank_of_target(score, target).equal(expected)


def test_infinite_scores_are_ranked():
    score = torch.tensor([[-INF, INF, 1.0, -INF]])
    assert rank_of_target(score, torch.tensor([1])).tolist() == [1]
    assert rank_of_target(score, torch.tensor([2])).tolist() == [2]


def test_a_target_scored_minus_infinity_is_last_among_items_not_behind_padding():
    score = torch.tensor([[-INF, 1.0, -INF, 0.0]])
    assert rank_of_target(score, torch.tensor([2])).tolist() == [3]


def test_padding_never_outranks_the_target():
    def score(history_BL, user_B, noise):
        result = table_score()(history_BL, user_B, noise)
        result[:, 0] = INF
        return result

    np.testing.assert_array_equal(evaluator().ranks(score).kept_U, evaluator().ranks(table_score()).kept_U)


def test_a_nan_in_the_padding_column_is_no_divergence():
    def score(history_BL, user_B, noise):
        result = table_score()(history_BL, user_B, noise)
        result[:, 0] = float("nan")
        return result

    np.testing.assert_array_equal(evaluator().ranks(score).kept_U, evaluator().ranks(table_score()).kept_U)


def test_scores_of_another_width_are_refused():
    with pytest.raises(
        ValueError, match=f"where .*, {SPLIT.num_items + 1}. belongs: .* column per item after one for padding"
    ):
        evaluator().ranks(lambda history_BL, user_B, noise: torch.zeros(len(user_B), SPLIT.num_items))


def test_constant_scorer_comes_last_and_oracle_first():
    constant = evaluator().ranks(lambda history_BL, user_B, noise: torch.zeros(len(user_B), SPLIT.num_items + 1))
    assert (constant.kept_U == SPLIT.num_items).all()
    assert max(summarise(constant.kept_U).values()) == 0.0
    one = evaluator()
    oracle = one.ranks(one.oracle_score)
    assert (oracle.kept_U == 1).all() and (oracle.hidden_U == 1).all()
    assert set(summarise(oracle.kept_U).values()) == {1.0}


def naive_ranks(score_UI, split, part):
    """Kept and hidden ranks by Python sets, one user at a time."""
    kept, hidden = [], []
    for user, target in enumerate(split.target_U(part)):
        above = {i for i in range(1, split.num_items + 1) if score_UI[user, i] >= score_UI[user, target]}
        seen = set(split.history(part).of_user(user).tolist()) - {int(target)}
        kept.append(len(above))
        hidden.append(len(above - seen))
    return kept, hidden


@pytest.mark.parametrize("part", ["val", "test"])
def test_ranks_equal_a_naive_count(part):
    table = np.random.default_rng(0).integers(0, 9, (SPLIT.num_users, SPLIT.num_items + 1))
    found = evaluator(part=part).ranks(table_score())
    kept, hidden = naive_ranks(table, SPLIT, part)
    assert found.kept_U.tolist() == kept
    assert found.hidden_U.tolist() == hidden


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_repeated_histories_and_seen_targets_equal_a_naive_count(seed):
    """Duplicates in a history count once, and a target seen before is never hidden."""
    rng = np.random.default_rng(seed)
    split = leave_one_out(Sequences.from_lists([rng.integers(1, 7, 9).tolist() for _ in range(5)], 6))
    table = rng.integers(0, 4, (5, 7))
    found = evaluator(split).ranks(lambda history_BL, user_B, noise: torch.from_numpy(table)[user_B].float())
    kept, hidden = naive_ranks(table, split, "test")
    assert found.kept_U.tolist() == kept
    assert found.hidden_U.tolist() == hidden
    assert (found.hidden_U >= 1).all()


def test_seen_above_counts_duplicates_once_and_never_the_target():
    score = torch.tensor([[-INF, 4.0, 3.0, 2.0, 1.0]])
    seen = torch.tensor([[0, 0, 1, 2, 1, 3, 2, 4]])
    assert seen_above(score, torch.tensor([3]), seen).tolist() == [2]


def test_relabelling_items_leaves_ranks_alone():
    rng = np.random.default_rng(1)
    new_id = np.concatenate([[0], rng.permutation(SPLIT.num_items) + 1])
    table = rng.integers(0, 9, (SPLIT.num_users, SPLIT.num_items + 1)).astype(np.float32)
    renamed_table = np.empty_like(table)
    renamed_table[:, new_id] = table
    history = SPLIT.history("test")
    renamed = Sequences(new_id[history.items].astype(np.int32), history.offsets, history.num_items)
    pairs = ((history, SPLIT.test_target_U, table), (renamed, new_id[SPLIT.test_target_U], renamed_table))
    found = [
        Evaluator(rows, target_U, seed=1, part="test", max_len=9).ranks(
            lambda history_BL, user_B, noise, scores=scores: torch.from_numpy(scores)[user_B]
        )
        for rows, target_U, scores in pairs
    ]
    np.testing.assert_array_equal(found[0].kept_U, found[1].kept_U)
    np.testing.assert_array_equal(found[0].hidden_U, found[1].hidden_U)


@pytest.mark.parametrize("batch_size", [1, 64, 65, 128, 200, 4096])
def test_batch_size_does_not_change_ranks_even_with_noise(batch_size):
    expected = evaluator(batch_size=1024).ranks(noisy_score)
    found = evaluator(batch_size=batch_size).ranks(noisy_score)
    np.testing.assert_array_equal(found.kept_U, expected.kept_U)
    np.testing.assert_array_equal(found.hidden_U, expected.hidden_U)


def test_noise_depends_on_seed_and_part_and_differs_between_users():
    base = evaluator().ranks(noisy_score).kept_U
    assert (evaluator(seed=4).ranks(noisy_score).kept_U != base).mean() > 0.5
    drawn = []
    evaluator().ranks(lambda h, u, noise: drawn.append(noise.normal(SPLIT.num_items + 1)) or drawn[-1])
    assert len(torch.cat(drawn)[:, 1].unique()) == SPLIT.num_users
    other = []
    evaluator(part="val").ranks(lambda h, u, noise: other.append(noise.normal(SPLIT.num_items + 1)) or other[-1])
    assert not torch.equal(torch.cat(drawn), torch.cat(other))


def test_users_come_back_in_the_order_asked_for():
    users = np.random.default_rng(2).permutation(SPLIT.num_users)[:100]
    every = evaluator().ranks(table_score())
    some = evaluator(users=users).ranks(table_score())
    np.testing.assert_array_equal(some.kept_U, every.kept_U[users])
    np.testing.assert_array_equal(some.hidden_U, every.hidden_U[users])


def test_each_user_is_scored_once_with_their_own_last_items():
    seen = {}

    def score(history_BL, user_B, noise):
        for user, row in zip(user_B.tolist(), history_BL.tolist(), strict=True):
            assert user not in seen
            seen[user] = [item for item in row if item]
        return torch.zeros(len(user_B), SPLIT.num_items + 1)

    evaluator().ranks(score)
    history = SPLIT.history("test")
    assert seen == {user: history.of_user(user)[-12:].tolist() for user in range(SPLIT.num_users)}
    assert all(items[-1] == SPLIT.val_target_U[user] for user, items in seen.items())


def test_inputs_may_differ_from_what_counts_as_seen():
    history = Sequences.from_lists([[1, 2], [3, 1]], 4)
    inputs = Sequences.from_lists([[2], [1]], 4)
    read = []

    def score(history_BL, user_B, noise):
        read.append(history_BL.tolist())
        return torch.tensor([[0.0, 9.0, 8.0, 7.0, 1.0]]).repeat(2, 1)

    one = Evaluator(history, np.array([4, 4]), seed=0, part="test", max_len=5, inputs=inputs)
    found = one.ranks(score)
    assert read == [[[2], [1]]]
    assert found.kept_U.tolist() == [4, 4]
    assert found.hidden_U.tolist() == [2, 2]


def test_running_out_of_gpu_memory_shrinks_the_batch_and_says_so(caplog):
    sizes = []

    def score(history_BL, user_B, noise):
        if len(user_B) > BLOCK:
            raise torch.cuda.OutOfMemoryError("pretended")
        sizes.append(len(user_B))
        return noisy_score(history_BL, user_B, noise)

    found = evaluator(batch_size=1024).ranks(score)
    np.testing.assert_array_equal(found.kept_U, evaluator().ranks(noisy_score).kept_U)
    assert max(sizes) == BLOCK and sum(sizes) == SPLIT.num_users
    assert "out of GPU memory" in caplog.text


def test_every_pass_over_the_users_survives_a_full_gpu(caplog):
    """Representations and averages shrink their batch as ranking does, midway too, and lose or repeat nobody."""

    def draws(history_BL, user_B, noise):
        return noise.normal(3)

    def full_after(first, function):
        calls = []

        def call(*arguments):
            calls.append(len(arguments[1]))
            if len(calls) > first and len(arguments[1]) > BLOCK:
                raise torch.cuda.OutOfMemoryError("pretended")
            return function(*arguments)

        return call

    def probe(history_BL, target_B, user_B, noise):
        return {"draw": noise.normal(1)[:, 0], "user": user_B}

    for first in (0, 1):
        found, target_U = evaluator(batch_size=128).representations(full_after(first, draws))
        plain, same_U = evaluator(batch_size=128).representations(draws)
        np.testing.assert_array_equal(found, plain)
        np.testing.assert_array_equal(target_U, same_U)
        means = evaluator(batch_size=128).averages(full_after(first, probe))
        assert means == pytest.approx(evaluator(batch_size=128).averages(probe), abs=1e-12)
    assert caplog.text.count("out of GPU memory") == 4


@pytest.mark.parametrize("way", ["ranks", "representations", "averages"])
def test_memory_too_small_for_one_block_is_not_hidden(way):
    def fails(*arguments):
        raise torch.cuda.OutOfMemoryError("pretended")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        getattr(evaluator(), way)(fails)


def test_a_huge_catalogue_lowers_the_batch(monkeypatch):
    monkeypatch.setitem(ranking.SCORE_BYTES, "cpu", 4 * (SPLIT.num_items + 1) * 70)
    sizes = []
    evaluator().ranks(lambda h, user_B, noise: sizes.append(len(user_B)) or torch.zeros(len(user_B), 41))
    assert max(sizes) == BLOCK


def test_averages_are_over_users_not_batches():
    lengths = SPLIT.history("test").lengths
    found = evaluator(batch_size=64).averages(lambda h, target_B, user_B, noise: {"user": user_B, "target": target_B})
    assert found["user"] == pytest.approx((SPLIT.num_users - 1) / 2)
    assert found["target"] == pytest.approx(SPLIT.test_target_U.mean())
    whole = evaluator(batch_size=64, max_len=99).averages(lambda h, t, u, noise: {"length": (h > 0).sum(1)})
    assert whole["length"] == pytest.approx(lengths.mean())


def test_half_precision_scores_are_ranked_without_new_ties():
    """float64 scores keep their precision; bf16 ones are at least not rounded further."""
    close = torch.tensor([0.0, 1.0, 1.0 + 1e-12], dtype=torch.float64)
    rows = Sequences.from_lists([[1]], 2)
    one = Evaluator(rows, np.array([2]), seed=0, part="val", max_len=3)
    assert one.ranks(lambda h, u, noise: close.expand(1, 3).clone()).kept_U.tolist() == [1]
    assert one.ranks(lambda h, u, noise: close.expand(1, 3).bfloat16()).kept_U.tolist() == [2]
