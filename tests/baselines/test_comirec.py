"""ComiRec: attention and routing in closed form, the selected interest, sampled softmax, padding, overfitting."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import comirec
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import Sequences, TrainingView
from harness.streams import Streams, UserNoise

SMALL = {"embedding_dim": 6, "max_len": 8, "num_interests": 3, "num_negatives": 10, "batch_size": 16}
ROWS = [[1, 2, 3, 4], [5, 6, 7, 8, 9, 1], [2, 4]]
BOTH = pytest.mark.parametrize("interests", ["attention", "routing"])
SLOTS = pytest.mark.parametrize("slots", ["start", "end"])


def build(rows=ROWS, num_items=12, **settings):
    view = TrainingView(Sequences.from_lists(rows, num_items))
    learner = comirec.build(SMALL | settings, view, Streams(0), Compute())
    torch.nn.init.normal_(learner.module.items.weight[1:])
    return learner


def scores(learner, history):
    learner.module.eval()
    with torch.no_grad():
        return learner.score(torch.tensor(history), torch.zeros(len(history)), UserNoise.single(1, 1))


def extract(learner, h_BLD):
    length = h_BLD.shape[1]
    return learner.module.extract(h_BLD, torch.ones(h_BLD.shape[:2], dtype=torch.bool), slice(length))


def test_one_attention_interest_is_attention_pooling():
    learner = build(num_interests=1)
    part, h_BLD = learner.module.extract, torch.randn(2, 5, 6)
    weight_BL = part.outer(torch.tanh(part.inner(h_BLD + part.positions[:5])))[..., 0].softmax(1)
    pooled_BD = torch.einsum("bl,bld->bd", weight_BL, h_BLD)
    interest_BKD = extract(learner, h_BLD)
    torch.testing.assert_close(interest_BKD[:, 0], pooled_BD)
    torch.testing.assert_close(comirec.best_interest(interest_BKD, torch.randn(2, 6)), pooled_BD)


def test_attention_does_not_depend_on_order_beyond_positions():
    learner = build()
    h_BLD, order = torch.randn(1, 5, 6), torch.tensor([3, 0, 4, 2, 1])
    before = extract(learner, h_BLD)
    learner.module.extract.positions.data[:5] = learner.module.extract.positions.data[order]
    torch.testing.assert_close(extract(learner, h_BLD[:, order]), before)


def test_values_carry_no_position():
    learner = build()
    torch.nn.init.zeros_(learner.module.extract.outer.weight)
    h_BLD = torch.randn(1, 5, 6)
    torch.testing.assert_close(extract(learner, h_BLD), h_BLD.mean(1, keepdim=True).expand(-1, 3, -1))


def test_one_routing_round_with_equal_maps_splits_evenly():
    learner = build(interests="routing", routing_rounds=1)
    weight = learner.module.extract.weight
    weight.data[:] = torch.randn(6, 6).repeat(1, 3)
    h_BLD = torch.randn(2, 5, 6)
    interest_BKD = extract(learner, h_BLD)
    expected = comirec.squash((h_BLD @ weight[0, :, :6]).sum(1) / 3)
    torch.testing.assert_close(interest_BKD, expected[:, None].expand(-1, 3, -1))


def test_routing_against_a_loop():
    learner = build(interests="routing")
    h_LD, weight = torch.randn(4, 6), learner.module.extract.weight
    u = torch.stack([torch.stack([h_LD[j] @ weight[j, :, 6 * k : 6 * k + 6] for k in range(3)]) for j in range(4)])
    logits = torch.zeros(4, 3)
    for _ in range(3):
        c = logits.exp() / logits.exp().sum(1, keepdim=True)  # over interests: each item splits itself
        y = torch.stack([sum(c[j, k] * u[j, k] for j in range(4)) for k in range(3)])
        v = torch.stack([(y_k @ y_k) / (1 + y_k @ y_k) * y_k / (y_k @ y_k + 1e-9).sqrt() for y_k in y])
        logits = logits + torch.stack([torch.stack([u[j, k] @ v[k] for k in range(3)]) for j in range(4)])
    torch.testing.assert_close(extract(learner, h_LD[None])[0], v, rtol=1e-4, atol=1e-5)


def test_only_the_last_routing_round_carries_gradient():
    learner = build(interests="routing")
    h_BLD = torch.randn(1, 4, 6, requires_grad=True)
    extract(learner, h_BLD).sum().backward()
    part = learner.module.extract
    with torch.no_grad():
        u = torch.einsum("bld,lde->ble", h_BLD, part.weight[:4]).unflatten(-1, (3, 6))
        logits = torch.zeros(1, 4, 3)
        for _ in range(2):
            v = comirec.squash(torch.einsum("blk,blkd->bkd", logits.softmax(2), u))
            logits = logits + torch.einsum("blkd,bkd->blk", u, v)
    again = h_BLD.detach().clone().requires_grad_()
    u = torch.einsum("bld,lde->ble", again, part.weight[:4]).unflatten(-1, (3, 6))
    comirec.squash(torch.einsum("blk,blkd->bkd", logits.softmax(2), u)).sum().backward()
    torch.testing.assert_close(h_BLD.grad, again.grad)


def test_coupling_sums_to_one_over_interests_and_to_zero_for_padding():
    is_item_BL = torch.tensor([[True, True, False]])
    total_BL = comirec.coupling(torch.randn(1, 3, 4), is_item_BL).sum(2)
    torch.testing.assert_close(total_BL, torch.tensor([[1.0, 1.0, 0.0]]))


@pytest.mark.parametrize("loss", ["sampled", "softmax"])
def test_only_the_selected_interest_has_a_gradient(loss):
    learner = build(loss=loss)
    interest_BKD = torch.randn(4, 3, 6, requires_grad=True)
    target_B = torch.tensor([1, 2, 3, 4])
    table = learner.module.items.weight
    chosen_B = torch.einsum("bkd,bd->bk", interest_BKD, table[target_B]).argmax(1)
    query_BD = comirec.best_interest(interest_BKD, table[target_B])
    if loss == "softmax":
        comirec.softmax_cross_entropy(query_BD, table, target_B).backward()
    else:
        comirec.sampled_softmax(query_BD, table, target_B, torch.tensor([7, 8, 9]), learner._log_q_I).backward()
    moved_BK = interest_BKD.grad.abs().sum(-1) > 0
    assert moved_BK.int().tolist() == F.one_hot(chosen_B, 3).tolist()


@BOTH
def test_score_is_that_of_the_best_interest(interests):
    learner = build(interests=interests)
    history_BL = torch.tensor([[3, 1, 4], [5, 9, 2]])
    score_BI = scores(learner, history_BL.tolist())
    interest_BKD, table = learner.module(history_BL), learner.module.items.weight
    for user in range(2):
        for item in range(1, 13):
            best = max((interest_BKD[user, k] @ table[item]).item() for k in range(3))
            assert float(score_BI[user, item]) == pytest.approx(best, rel=1e-4, abs=1e-5)


@BOTH
@SLOTS
def test_padding_and_batch_mates_change_no_score(interests, slots):
    learner = build(interests=interests, slots=slots)
    alone = scores(learner, [[3, 1]])
    torch.testing.assert_close(scores(learner, [[0, 0, 3, 1], [4, 5, 6, 7]])[:1], alone, rtol=1e-5, atol=1e-5)


@BOTH
def test_slots_are_tied_to_the_chosen_end(interests):
    """Dropping the oldest item moves the others by a slot only if slots count from the start."""
    for slots, moved in (("start", 0), ("end", -1)):
        learner = build(interests=interests, slots=slots)
        before = learner.module(torch.tensor([[3, 1, 4]]))
        part = learner.module.extract
        (part.positions if interests == "attention" else part.weight).data[moved] += 1.0
        assert not torch.allclose(learner.module(torch.tensor([[3, 1, 4]])), before)


def test_an_empty_history_is_finite():
    assert torch.isfinite(scores(build(), [[0, 0]])).all()


def test_sampled_loss_of_a_zero_table():
    """ln(1 + negatives), where a negative that is the row's own target does not count."""
    learner = build(sampling="uniform")
    table, query = torch.zeros(13, 6), torch.randn(2, 6)
    negative_N = torch.tensor([5, 6, 7, 2])
    loss = comirec.sampled_softmax(query, table, torch.tensor([1, 2]), negative_N, learner._log_q_I)
    torch.testing.assert_close(loss, torch.tensor((math.log(5) + math.log(4)) / 2))


def test_sampled_softmax_corrects_by_log_q():
    learner = build()
    table, query = learner.module.items.weight.detach(), torch.randn(1, 6)
    logits = (query @ table[[3, 5, 6]].T)[0] - learner._log_q_I[[3, 5, 6]]
    loss = comirec.sampled_softmax(query, table, torch.tensor([3]), torch.tensor([5, 6]), learner._log_q_I)
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor(0)))


def test_correction_makes_many_samples_estimate_the_full_softmax():
    learner = build(num_items=12, num_negatives=200_000)
    table, query = learner.module.items.weight.detach(), torch.randn(1, 6) * 0.3
    negative_N = learner._negatives()
    share = torch.bincount(negative_N, minlength=13) / len(negative_N)
    torch.testing.assert_close(share, learner._log_q_I.exp(), rtol=0, atol=0.01)
    score = query @ table[negative_N].T - learner._log_q_I[negative_N]
    estimate = score.logsumexp(1) - math.log(len(negative_N))
    torch.testing.assert_close(estimate, (query @ table[1:].T).logsumexp(1), rtol=0, atol=0.02)


def test_sampling_follows_the_popularity_rank():
    count_I = torch.tensor([99, 1, 7, 3])  # the padding's count is ignored
    p_I = comirec.sampling_distribution(count_I, "popularity_rank")
    expected = torch.tensor([0, math.log(4 / 3), math.log(2), math.log(3 / 2)], dtype=torch.float64) / math.log(4)
    torch.testing.assert_close(p_I, expected)
    uniform = comirec.sampling_distribution(count_I, "uniform")
    torch.testing.assert_close(uniform, torch.tensor([0, 1, 1, 1], dtype=torch.float64) / 3)


def test_mean_cosine_against_pairs():
    interest_BKD = torch.randn(2, 4, 6)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = sum(F.cosine_similarity(interest_BKD[:, i], interest_BKD[:, j]) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(comirec.mean_cosine(interest_BKD), expected)
    assert comirec.mean_cosine(interest_BKD[:, :1]).tolist() == [1.0, 1.0]


def test_initial_interests_of_routing_are_not_saturated():
    """Unit-variance maps need small item vectors; the initial loss stays near that of equal scores."""
    rows = np.random.default_rng(0).integers(1, 2001, (50, 6)).tolist()
    view = TrainingView(Sequences.from_lists(rows, 2000))
    learner = comirec.build({"interests": "routing", "loss": "softmax"}, view, Streams(0), Compute())
    assert learner.loss(next(iter(learner.batches())))["loss"].item() == pytest.approx(math.log(2000), rel=0.05)


def test_number_of_parameters():
    attention = 13 * 6 + 8 * 6 + (6 * 24 + 24) + (24 * 3 + 3)
    assert num_parameters(build().module) == attention
    assert num_parameters(build(interests="routing").module) == 13 * 6 + 8 * 3 * 6 * 6
    full = comirec.Routing(comirec.Config(interests="routing", max_len=50))
    assert num_parameters(full) == 819200  # the sheet's figure: L K d^2


def test_relabelled_items_give_relabelled_scores():
    learner = build()
    order = torch.cat([torch.tensor([0]), torch.randperm(12, generator=torch.Generator().manual_seed(0)) + 1])
    before, table = scores(learner, [[3, 1, 4]]), learner.module.items.weight.data
    table[order] = table.clone()
    torch.testing.assert_close(scores(learner, [order[[3, 1, 4]].tolist()])[:, order], before)


@BOTH
def test_overfits_32_users(interests):
    """From a user's own items to the next one: HR@1 = 1 on training targets within 400 steps."""
    rows = [[3 * user + 1, 3 * user + 2, 97 + user] for user in range(32)]
    settings = {"embedding_dim": 32, "num_interests": 2, "loss": "softmax", "learning_rate": 0.01, "batch_size": 64}
    learner = comirec.build(
        SMALL | settings | {"interests": interests, "max_len": 2},
        TrainingView(Sequences.from_lists(rows, 128)),
        Streams(0),
        Compute(),
    )
    learner.module.train()
    for _ in range(400):
        for batch in learner.batches():
            learner.training_step(batch)
    score_BI = scores(learner, [row[:2] for row in rows])
    for user, row in enumerate(rows):
        score_BI[user, [0, *row[:2]]] = -torch.inf  # an interest is a mean of the history, which it resembles itself
    assert score_BI.argmax(1).tolist() == [row[2] for row in rows]


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_interests", 0), ("max_len", 0), ("routing_rounds", 0), ("num_negatives", 0), ("dropout", 1.0),
     ("interests", "capsule"), ("slots", "left"), ("sampling", "zipf"), ("loss", "bce")],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        build(**{key: value})
