"""GRU4Rec: session-parallel schedule and state, losses in closed form, padding, causality, overfitting."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import gru4rec
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import Sequences, TrainingView
from harness.streams import Streams, UserNoise

PLAIN = {"embedding_dim": 8, "embedding_dropout": 0.0, "hidden_dropout": 0.0, "num_sampled": 4, "batch_size": 2}
TUNED = {"embedding_dim": 8, "hidden_dim": 12, "samples": "sequences", "loss": "softmax", "optimizer": "adam"}
TUNED |= {"embedding_dropout": 0.0, "hidden_dropout": 0.0, "output_bias": False, "max_len": 10}
ROWS = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [3, 1, 7, 2], [4]]


def build(rows=ROWS, num_items=10, **settings):
    view = TrainingView(Sequences.from_lists(rows, num_items))
    return gru4rec.build(settings, view, Streams(0), Compute())


def scores(learner, history):
    history_BL = torch.tensor(history)
    learner.module.eval()
    with torch.no_grad():
        return learner.score(history_BL, torch.zeros(len(history_BL), dtype=torch.long), UserNoise.single(1, 1))


def test_each_pair_of_every_session_is_used_once_and_in_order():
    start_S, end_S = np.array([0, 5, 7, 10, 20]), np.array([4, 6, 9, 13, 29])
    seen, last = [], {}
    for slots, positions, is_first in gru4rec.session_parallel(start_S, end_S, 2):
        for slot, position, first in zip(slots, positions, is_first, strict=True):
            assert position in start_S if first else position == last[slot] + 1
            last[slot] = position
            seen.append(position)
    assert sorted(seen) == [p for s, e in zip(start_S, end_S, strict=True) for p in range(s, e)]


def test_batch_shrinks_when_no_session_is_left():
    sizes = [len(slots) for slots, _, _ in gru4rec.session_parallel(np.array([0, 10]), np.array([2, 15]), 8)]
    assert sizes == [2, 2, 1, 1, 1]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_slot_starts_every_session_from_a_zero_state(slots):
    learner = build(**PLAIN | {"batch_size": slots})
    prefix, successors = {}, {tuple(pair) for row in ROWS for pair in zip(row, row[1:], strict=False)}
    for step in learner.batches():
        learner.loss(step)
        for row in range(len(step.slot_B)):
            slot, item = int(step.slot_B[row]), int(step.input_B[row])
            prefix[slot] = [item] if step.is_first_B[row] else [*prefix[slot], item]
            assert (item, int(step.target_B[row])) in successors
            alone = learner.module(gru4rec.pack(torch.tensor([prefix[slot]])))[1][0]
            torch.testing.assert_close(learner._state[slot], alone, rtol=0, atol=1e-6)
    assert not learner._state.requires_grad


def test_dropped_state_is_what_the_next_event_receives():
    learner = build(**PLAIN | {"hidden_dropout": 0.5})
    learner.module.train()
    learner.loss(next(iter(learner.batches())))
    assert (learner._state == 0).any()


@pytest.mark.parametrize("settings", [PLAIN, TUNED])
def test_padding_changes_no_score(settings):
    learner = build(**settings)
    for bias in (learner.module.gru.bias_ih_l0, learner.module.gru.bias_hh_l0):
        torch.nn.init.normal_(bias)  # zero inputs leave a zero state alone only while the biases are zero
    plain, padded = scores(learner, [[3, 1, 4]]), scores(learner, [[0, 0, 3, 1, 4], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(padded[:1], plain, rtol=0, atol=1e-6)


def test_an_item_changes_no_earlier_output():
    module = build(**TUNED).module
    first, second = (module(gru4rec.pack(torch.tensor([row])))[0] for row in ([1, 2, 3, 4], [1, 2, 3, 9]))
    torch.testing.assert_close(first[:3], second[:3], rtol=0, atol=1e-6)
    assert not torch.allclose(first[3], second[3])


def test_bpr_max_with_one_negative():
    score = torch.tensor([[0.3, -1.2]])
    expected = F.softplus(score[0, 1] - score[0, 0]) + 1.95 * score[0, 1] ** 2
    torch.testing.assert_close(gru4rec.bpr_max(score, 1.95), expected[None])


def test_bpr_max_against_a_loop():
    score = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    for row, loss in enumerate(gru4rec.bpr_max(score, 0.9)):
        negative = torch.cat([score[row, :row], score[row, row + 1 :]])  # the target is not among its negatives
        weight = negative.softmax(0)
        expected = -(weight * torch.sigmoid(score[row, row] - negative)).sum().log()
        torch.testing.assert_close(loss, expected + 0.9 * (weight * negative.square()).sum())


def test_cross_entropy_of_two_rows():
    score = torch.tensor([[0.5, 1.0], [-0.2, 0.1]])
    expected = torch.stack([F.softplus(score[0, 1] - score[0, 0]), F.softplus(score[1, 0] - score[1, 1])])
    torch.testing.assert_close(gru4rec.sampled_softmax(score, torch.zeros(2), 1.0), expected)


def test_logq_corrects_nothing_when_all_counts_are_equal():
    score, equal = torch.randn(3, 5), torch.full((5,), 2.7)
    torch.testing.assert_close(
        gru4rec.sampled_softmax(score, equal, 1.0), gru4rec.sampled_softmax(score, equal, 0.0), rtol=1e-5, atol=1e-6
    )
    skewed = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    expected = F.cross_entropy(score - 0.5 * skewed, torch.arange(3), reduction="none")
    torch.testing.assert_close(gru4rec.sampled_softmax(score, skewed, 0.5), expected)


@pytest.mark.parametrize("kind", ["bpr_max", "sampled_softmax"])
def test_loss_of_a_step_is_put_together_as_the_authors_do(kind):
    """Columns are the rows' targets, then shared samples; ELU for BPR-max; logQ knows how each column was drawn."""
    settings = PLAIN | {"loss": kind, "batch_size": 3, "sample_alpha": 0.5, "logq": 0.7, "elu": 0.5}
    learner, twin = build(**settings), build(**settings)
    for module in (learner.module, twin.module):
        torch.manual_seed(0)
        torch.nn.init.normal_(module.items.weight)  # scores of both signs, for ELU
        torch.nn.init.normal_(module.bias)
    step = next(iter(learner.batches()))
    step = gru4rec.Step(*(part[:2] for part in (step.slot_B, step.input_B, step.target_B, step.is_first_B)))
    found = learner.loss(step)["loss"]
    column_N = torch.cat([step.target_B, twin._sample()])
    state_BH = twin.module.step(step.input_B, torch.zeros(2, 8))
    score_BN = state_BH @ twin.module.items.weight[column_N].T + twin.module.bias[column_N]
    if kind == "bpr_max":
        expected_B = gru4rec.bpr_max(F.elu(score_BN, 0.5), 1.95)
    else:
        count = torch.bincount(torch.tensor([item for row in ROWS for item in row])).float()
        drawn_N = torch.cat([count[step.target_B], count[column_N[2:]] ** 0.5])
        expected_B = F.cross_entropy(score_BN - 0.7 * drawn_N.log(), torch.arange(2), reduction="none")
    torch.testing.assert_close(found, expected_B.sum() / 3)  # two of three slots are active; the divisor stays


def test_sampled_items_follow_counts_to_the_power_alpha():
    learner = build([[1, 1, 1, 1, 2, 5]], num_items=6, **PLAIN | {"num_sampled": 60_000, "sample_alpha": 0.5})
    share = torch.bincount(learner._sample(), minlength=7) / 60_000
    torch.testing.assert_close(share, torch.tensor([0, 0.5, 0.25, 0, 0, 0.25, 0]), rtol=0, atol=0.01)


def test_softmax_starts_at_the_logarithm_of_the_catalogue():
    learner = build(**TUNED)
    torch.nn.init.zeros_(learner.module.items.weight)
    torch.testing.assert_close(learner.loss(next(iter(learner.batches())))["loss"], torch.tensor(10.0).log())


def test_every_position_has_the_next_item_as_target():
    learner = build([[1, 2, 3, 4], [5, 6]], **TUNED)
    batch = next(iter(learner.batches()))
    pairs = zip(gru4rec.pack(batch.input_BL).data.tolist(), gru4rec.pack(batch.target_BL).data.tolist(), strict=True)
    assert sorted(pairs) == [(1, 2), (2, 3), (3, 4), (5, 6)]


def test_softmax_carries_the_output_bias():
    learner = build(**TUNED | {"output_bias": True})
    torch.nn.init.normal_(learner.module.bias)
    batch = next(iter(learner.batches()))
    query_ND, _ = learner.module(gru4rec.pack(batch.input_BL))
    score = learner.module.score(query_ND, slice(1, None))
    expected = F.cross_entropy(score, gru4rec.pack(batch.target_BL).data - 1)
    torch.testing.assert_close(learner.loss(batch)["loss"], expected)


def test_adagrad_has_its_epsilon_inside_the_root():
    learner = build(**PLAIN)
    parameter = next(p for p in learner.module.parameters() if p.dim() == 1)
    before, gradient = parameter.detach().clone(), torch.full_like(parameter, 2e-3)
    parameter.grad = gradient
    learner.optimizer.step()
    torch.testing.assert_close(parameter.detach(), before - 0.05 * gradient / (gradient.square() + 1e-6).sqrt())


def test_number_of_parameters():
    shared = num_parameters(build(**PLAIN).module)
    assert shared == 11 * 8 + 3 * (8 * 8 + 8 * 8 + 8 + 8) + 11
    assert num_parameters(build(**TUNED).module) == 11 * 8 + 3 * (12 * 8 + 12 * 12 + 12 + 12) + (12 * 8 + 8)


def test_relabelled_items_give_relabelled_scores():
    learner = build(**PLAIN)
    order = torch.tensor([0, 4, 7, 1, 10, 2, 9, 3, 5, 8, 6])  # new id of each old one
    before = scores(learner, [[3, 1, 4]])
    for table in (learner.module.items.weight.data, learner.module.bias.data):
        table[order] = table.clone()
    torch.testing.assert_close(scores(learner, [order[[3, 1, 4]].tolist()])[:, order], before)


@pytest.mark.parametrize("settings", [TUNED | {"learning_rate": 0.01}, PLAIN | {"num_sampled": 40, "batch_size": 32}])
def test_overfits_32_users(settings):
    """HR@1 = 1 on the training targets within 300 steps."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(40)[:5] + 1 for _ in range(32)]
    rows = [[first, *rest] for first, *rest in np.array(rows).tolist()]
    settings = settings | {"embedding_dim": 32, "regularisation": 0.0}
    learner = build([[user + 41, *row] for user, row in enumerate(rows)], num_items=80, **settings)
    learner.module.train()
    steps = 0
    while steps < 300:
        for batch in learner.batches():
            learner.training_step(batch)
            steps += 1
    history = [[user + 41, *row[:-1]] for user, row in enumerate(rows)]
    best = scores(learner, history)[:, 1:].argmax(1) + 1
    assert best.tolist() == [row[-1] for row in rows]


@pytest.mark.parametrize(
    ("key", "value"),
    [("embedding_dim", 0), ("hidden_dim", 0), ("hidden_dropout", 1.0), ("loss", "softmax"), ("loss", "top1"),
     ("samples", "sequences"), ("sample_alpha", -0.1), ("batch_size", 0), ("num_sampled", -1)],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key if key != "samples" else "loss"):
        build(**{key: value})
