"""Caser: windows, convolutions against torch's own, closed-form losses, user vectors, overfitting."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import caser
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import Sequences, TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences

SMALL = {"embedding_dim": 6, "num_horizontal": 3, "num_vertical": 2, "dropout": 0.0, "batch_size": 8, "num_targets": 1}
ROWS = [list(range(1, 10)), [4, 2, 8], [7]]


def build(rows=ROWS, num_items=12, **settings):
    view = TrainingView(Sequences.from_lists(rows, num_items))
    return caser.build(SMALL | settings, view, Streams(0), Compute())


def scores(learner, history, users):
    learner.module.eval()
    with torch.no_grad():
        return learner.score(torch.tensor(history), torch.tensor(users), UserNoise.single(1, 1))


def windows(rows, **settings):
    data = ResidentSequences.of(Sequences.from_lists(rows, 12))
    sampler = caser.WindowSampler(data, caser.Config(**settings))
    batch = sampler.batch(torch.arange(sampler.num_samples))
    return list(zip(batch.history_BL.tolist(), batch.target_BT.tolist(), strict=True))


def test_windows_of_a_long_user():
    assert windows([list(range(1, 10))], num_targets=3) == [([1, 2, 3, 4, 5], [6, 7, 8]), ([2, 3, 4, 5, 6], [7, 8, 9])]


@pytest.mark.parametrize(
    ("row", "targets", "expected"),
    [
        ([1, 2, 3, 4], 3, ([0, 0, 0, 0, 1], [2, 3, 4])),
        ([1, 2, 3], 3, ([0, 0, 0, 0, 0], [1, 2, 3])),
        ([1, 2], 3, ([0, 0, 0, 0, 0], [0, 1, 2])),
        ([1, 2, 3], 1, ([0, 0, 0, 1, 2], [3])),
        ([1, 2, 3, 4, 5, 6], 1, ([1, 2, 3, 4, 5], [6])),
    ],
)
def test_a_short_user_gives_one_padded_window(row, targets, expected):
    assert windows([row], num_targets=targets) == [expected]


def test_number_of_windows_on_beauty(shared_dir):
    """The sheet's counts, on the training parts."""
    lines = (shared_dir / "data" / "beauty.sequences.txt").read_text().splitlines()
    data = ResidentSequences.of(Sequences.from_lists([[int(item) for item in line.split()[1:-2]] for line in lines]))
    counts = [caser.WindowSampler(data, caser.Config(num_targets=targets)).num_samples for targets in (1, 3)]
    assert counts == [74569, 62957]


def test_filters_equal_convolutions():
    """The linear maps are Conv2d filters of k x d and L x 1, as the reference has them."""
    module = build(max_len=4).module.eval()
    history_BL, user_B = torch.tensor([[1, 2, 3, 4], [0, 5, 6, 2]]), torch.tensor([0, 1])
    image = module.items(history_BL)[:, None]
    vertical = F.conv2d(image, module.vertical.weight[:, None, :, None], module.vertical.bias)
    features = [vertical.squeeze(2).transpose(1, 2).flatten(1)]
    for height, filters in enumerate(module.horizontal, start=1):
        conv = F.conv2d(image, filters.weight.view(-1, 1, height, 6), filters.bias)
        features.append(conv.squeeze(3).relu().amax(2))
    z = module.join(torch.cat(features, 1)).relu()
    torch.testing.assert_close(module(history_BL, user_B), torch.cat([z, module.users(user_B)], 1))


def test_vertical_filters_of_ones_sum_the_item_vectors():
    module = build().module.eval()
    for layer in [*module.horizontal, module.vertical]:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    torch.nn.init.ones_(module.vertical.weight)
    history_BL = torch.tensor([[1, 2, 3, 4, 5]])
    total = module.items(history_BL).sum(1).repeat_interleave(2, dim=1)
    features = F.pad(total, (0, 15))
    torch.testing.assert_close(module(history_BL, torch.tensor([0]))[:, :6], module.join(features).relu())


def test_only_the_last_items_matter():
    learner = build()
    history = [1, 2, 3, 4, 5, 6, 7]
    before = scores(learner, [history], [0])
    torch.testing.assert_close(scores(learner, [[9, 9, *history[2:]]], [0]), before, rtol=0, atol=0)
    for place in range(2, 7):
        changed = [*history[:place], 11, *history[place + 1 :]]
        assert not torch.allclose(scores(learner, [changed], [0]), before)


def test_padding_and_batch_mates_change_no_score():
    learner = build()
    alone = scores(learner, [[3, 1]], [1])
    torch.testing.assert_close(scores(learner, [[0, 3, 1], [4, 5, 6]], [1, 2])[:1], alone, rtol=0, atol=1e-6)


def test_swapped_user_vectors_swap_scores():
    learner = build()
    before = scores(learner, [[1, 2, 3], [1, 2, 3]], [0, 1])
    learner.module.users.weight.data = learner.module.users.weight.data[[1, 0, 2]]
    torch.testing.assert_close(scores(learner, [[1, 2, 3], [1, 2, 3]], [0, 1]), before.flip(0))


@pytest.mark.parametrize(("targets", "negatives"), [(1, 3), (3, 3), (2, 7)])
def test_binary_loss_of_a_zero_output_table(targets, negatives):
    learner = build(num_targets=targets, num_negatives=negatives)
    torch.nn.init.zeros_(learner.module.output.weight)
    loss = learner.loss(next(iter(learner.batches())))["loss"]
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(2)))


@pytest.mark.parametrize("targets", [1, 3])
def test_softmax_loss_of_a_zero_output_table(targets):
    learner = build(num_targets=targets, loss="softmax")
    torch.nn.init.zeros_(learner.module.output.weight)
    torch.testing.assert_close(learner.loss(next(iter(learner.batches())))["loss"], torch.tensor(math.log(12)))


def test_softmax_loss_carries_the_bias_and_skips_missing_targets():
    learner = build([[1, 2]], num_targets=3, loss="softmax")
    torch.nn.init.normal_(learner.module.bias)
    score = scores(learner, [[0]], [0])[:, 1:]  # the input is all padding, targets are (missing, 1, 2)
    expected = F.cross_entropy(score.expand(2, -1), torch.tensor([0, 1]))
    torch.testing.assert_close(learner.loss(next(iter(learner.batches())))["loss"], expected)


def test_missing_targets_carry_no_binary_loss():
    learner = build([[1, 2]], num_targets=3)
    torch.nn.init.zeros_(learner.module.output.weight)
    learner.module.bias.data[0] = -50.0  # the padding id as a target would cost 50
    torch.testing.assert_close(learner.loss(next(iter(learner.batches())))["loss"], torch.tensor(2 * math.log(2)))


def test_negatives_are_outside_the_training_part():
    learner = build(num_negatives=40)
    torch.nn.init.zeros_(learner.module.output.weight)
    learner.module.bias.data[1:10] = 50.0  # the items of user 0: as negatives they would cost 50 each
    batch = learner.sampler.batch(torch.arange(4))
    assert set(batch.user_B.tolist()) == {0}
    torch.testing.assert_close(learner.loss(batch)["loss"], torch.tensor(math.log(2)))


def test_loss_stays_finite_at_extreme_scores():
    learner = build()
    learner.module.bias.data.fill_(200.0)
    assert torch.isfinite(learner.loss(next(iter(learner.batches())))["loss"])


def test_number_of_parameters():
    horizontal = sum(height * 6 * 3 + 3 for height in range(1, 6))
    join = (2 * 6 + 3 * 5) * 6 + 6
    expected = 13 * 6 + 3 * 6 + horizontal + (5 * 2 + 2) + join + 13 * 12 + 13
    assert num_parameters(build().module) == expected


def test_padding_row_is_trained():
    learner = build([[1, 2, 3]])
    before = learner.module.items.weight[0].clone()
    learner.training_step(next(iter(learner.batches())))
    assert not torch.equal(learner.module.items.weight[0], before)


def test_relabelled_items_give_relabelled_scores():
    learner = build()
    order = torch.cat([torch.tensor([0]), torch.randperm(12, generator=torch.Generator().manual_seed(0)) + 1])
    before = scores(learner, [[3, 1, 4]], [0])
    for table in (learner.module.items.weight.data, learner.module.output.weight.data, learner.module.bias.data):
        table[order] = table.clone()
    torch.testing.assert_close(scores(learner, [order[[3, 1, 4]].tolist()], [0])[:, order], before)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_overfits_one_batch_of_64_windows(loss):
    rows = (np.random.default_rng(0).integers(1, 101, (64, 6))).tolist()
    learner = build(rows, 100, loss=loss, embedding_dim=32, batch_size=64, learning_rate=0.01, weight_decay=0.0)
    batch = learner.sampler.batch(torch.arange(64))
    learner.module.train()
    # Fresh negatives each step: the binary loss needs the user vectors to separate the rows, hence more steps.
    losses = [float(learner.training_step(batch)["loss"]) for _ in range(400)]
    assert np.mean(losses[-20:]) < 0.05
    best = scores(learner, [row[:5] for row in rows], list(range(64)))[:, 1:].argmax(1) + 1
    assert best.tolist() == [row[5] for row in rows]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_len", 0),
        ("num_targets", 0),
        ("num_horizontal", 0),
        ("num_negatives", 0),
        ("dropout", 1.0),
        ("loss", "bpr"),
    ],
)
def test_bad_settings_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        build(**{key: value})
