"""SVAE: the divergence and its weight, the targets, the weighting of users, causality."""

import math

import pytest
import torch
import torch.nn.functional as F

from baselines import svae
from baselines.svae import Config, Network, draw_latent, kl_to_standard_normal, next_items
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import Sequences, leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import chain
from harness.windows import SequenceBatch

SMALL = {"embedding_dim": 8, "hidden_dim": 12, "inner_dim": 10, "latent_dim": 4, "max_len": 12, "weight_decay": 0.0}


def learner(rows=None, **settings):
    sequences = Sequences.from_lists(rows, 9) if rows else chain(num_users=40, num_items=20)
    return svae.build({**SMALL, **settings}, leave_one_out(sequences).training_view(), Streams(1), Compute())


def batch_of(*rows, width):
    padded = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    # As the sampler has it, a target stands one step after its input, and 0 where the input is 0.
    inputs = torch.tensor([[0] * (width - len(row)) + row[:-1] for row in rows])
    targets = padded[:, 1:] * (inputs > 0)
    return SequenceBatch(inputs, targets, torch.arange(len(rows)))


@pytest.mark.parametrize(
    ("form", "mean", "scale", "expected"),
    [
        ("exact", 0.0, 0.0, 0.0),
        ("exact", 1.0, 0.0, 32.0),
        ("exact", 0.0, math.log(2), 64 / 2 * (4 - 2 * math.log(2) - 1)),  # 51.639
        ("released", 0.0, math.log(2), 64 / 2 * (2 - math.log(2) - 1)),  # 9.819
    ],
)
def test_kl_of_64_dimensions(form, mean, scale, expected):
    value = kl_to_standard_normal(torch.full((64,), mean), torch.full((64,), scale), form=form)
    assert float(value) == pytest.approx(expected, abs=1e-4)


def test_exact_kl_is_that_of_the_samples():
    mean, scale = torch.tensor([0.3]), torch.tensor([0.4])
    drawn = torch.distributions.Normal(mean, scale.exp())
    expected = torch.distributions.kl_divergence(drawn, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, scale, form="exact"), expected[0])


def test_kl_form_must_exist():
    with pytest.raises(ValueError, match="exact"):
        kl_to_standard_normal(torch.zeros(1), torch.zeros(1), form="other")


def test_latent_has_standard_deviation_exp_of_scale():
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    z = draw_latent(torch.tensor(5.0), torch.tensor(math.log(2)), noise)
    assert float(z.std()) == pytest.approx(2, rel=0.01)
    assert float(z.mean()) == pytest.approx(5, abs=0.05)


def test_targets_are_the_next_four_items():
    history, target = next_items(batch_of([1, 2, 3, 4, 5, 6], [7, 8, 9], width=6), 4)
    assert history.tolist() == [[1, 2, 3, 4, 5], [7, 8, 0, 0, 0]]
    assert target[0].tolist() == [[2, 3, 4, 5], [3, 4, 5, 6], [4, 5, 6, 0], [5, 6, 0, 0], [6, 0, 0, 0]]
    assert target[1].tolist() == [[8, 9, 0, 0], [9, 0, 0, 0], *[[0] * 4] * 3]


def test_number_of_parameters_on_beauty():
    assert num_parameters(Network(Config(), 12_101)) == 5_259_135


def test_outputs_do_not_see_later_items():
    network = learner().module
    history = torch.tensor([[1, 2, 3, 4, 5]])
    changed = torch.tensor([[1, 2, 3, 9, 5]])
    first, second = (network.posterior(network(each)) for each in (history, changed))
    for before, after in zip(first, second, strict=True):
        torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
        assert (before[:, 3:] != after[:, 3:]).any()


@pytest.mark.parametrize(("anneal", "second_epoch"), [("run", 80 / 200_000), ("epoch", 0.0)])
def test_kl_weight_rises_with_users_seen(anneal, second_epoch):
    model = learner(anneal=anneal, anneal_users=200_000, batch_size=8)
    assert model.kl_weight == 0
    for batch in model.batches():
        model.training_step(batch)
    assert model.users_seen == 40
    model.users_seen = 1000
    assert model.kl_weight == pytest.approx(0.005)
    model.users_seen = 10**6
    assert model.kl_weight == 0.2
    model.users_seen = 80
    next(iter(model.batches()))
    assert model.kl_weight == pytest.approx(second_epoch)


def test_a_batch_weighs_users_alike():
    """Reconstruction summed over positions by the first position's targets, KL averaged over them, then over users."""
    model = learner(num_targets=3, kl_cap=0.5)
    with torch.no_grad():  # practically no noise, so that a batch and its users see the same latents
        model.module.latent.weight[4:] = 0
        model.module.latent.bias[4:] = -20
    rows = [1, 2, 3, 4, 5, 6], [7, 8, 9]
    together = model.loss(batch_of(*rows, width=6))
    alone = [model.loss(batch_of(row, width=6)) for row in rows]
    for name in ("reconstruction", "kl"):
        torch.testing.assert_close(together[name], sum(each[name] for each in alone) / 2)
    mean, scale = model.module.posterior(model.module(torch.tensor([[7, 8]])))
    torch.testing.assert_close(alone[1]["kl"], kl_to_standard_normal(mean, scale, form="exact").mean())
    log_p = model.module.logits(mean)[0].log_softmax(-1)
    expected = -(log_p[0, 7] + log_p[0, 8] + log_p[1, 8]) / 2  # targets {8, 9} and {9}; column i is item i + 1
    torch.testing.assert_close(alone[1]["reconstruction"], expected)


def test_training_reads_a_sample_of_the_latent():
    model, batch = learner(), batch_of([1, 2, 3, 4, 5], width=5)
    first, second = (model.loss(batch)["reconstruction"] for _ in range(2))  # nothing differs but the draw
    assert not torch.equal(first, second)


def test_skipped_padding_and_chunked_scores_give_the_plain_loss_and_gradients(monkeypatch):
    rows = [9, 2], [1, 2, 3], [7, 8, 9, 4], [1, 2, 3, 4, 5, 6, 7, 8]
    results = []

    def plain(x, weight, bias, target, padding):
        return F.cross_entropy(F.linear(x, weight, bias), target)

    for fast in (True, False):
        model = learner(num_targets=1, kl_cap=0.5)
        model.users_seen = 10**6
        if not fast:
            monkeypatch.setattr(svae, "unroll", lambda gru, x, length: gru(x)[0])
            monkeypatch.setattr(svae, "cross_entropy_with_bias", plain)
        loss = model.loss(batch_of(*rows, width=8))["loss"]
        loss.backward()
        results.append((loss, {name: parameter.grad for name, parameter in model.module.named_parameters()}))
    (fast, fast_gradients), (slow, slow_gradients) = results
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=0)
    for name, gradient in slow_gradients.items():
        atol = 1e-6 * float(gradient.abs().max())
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-5, atol=atol)


def test_one_target_is_the_case_of_several(monkeypatch):
    model, batch = learner(num_targets=1), batch_of([7, 8, 9, 4], [1, 2, 3], width=4)
    mean, _ = model.module.posterior(model.module(next_items(batch, 1)[0]))
    monkeypatch.setattr(svae, "draw_latent", lambda mean, scale, noise: mean)
    history, target = next_items(batch, 1)
    summed = svae._sum_of_cross_entropies(model.module.logits(mean[history > 0]), target[history > 0])
    torch.testing.assert_close(model.loss(batch)["reconstruction"], summed.sum() / 2)


def test_reconstruction_of_one_user_approaches_its_floor():
    """ln m for a position of m targets, not 0: a build that reaches 0 has one target."""
    model = learner([[1, 2, 3, 4, 5, 6, 7, 8]], kl_cap=0.0, learning_rate=0.01, hidden_dim=32, latent_dim=16)
    for _ in range(300):
        for batch in model.batches():
            terms = model.training_step(batch)
    floor = sum(m * math.log(m) / 4 for m in (4, 4, 3, 2, 1))  # six training items
    assert float(terms["reconstruction"]) == pytest.approx(floor, abs=0.05)


def test_whole_history_is_read_at_test_time():
    model = learner(latent_at_test="mean")
    user, noise = torch.tensor([0]), UserNoise.single(1, 4)
    first, second = (model.score(torch.tensor([row]), user, noise) for row in ([1, 2, 3, 4], [1, 2, 3, 5]))
    assert (first - second)[:, 1:].abs().max() > 1e-4


def test_scores_stand_at_their_item():
    model = learner(latent_at_test="mean")
    score = model.score(torch.tensor([[1, 2, 3]]), torch.tensor([0]), UserNoise.single(1, 3))
    logits = model.module.logits(model.module.posterior(model.module(torch.tensor([[1, 2, 3]])))[0])
    assert score[0, 0] == -torch.inf
    torch.testing.assert_close(score[0, 1:], logits[0, -1])


def test_test_time_latent_is_a_sample_or_the_mean():
    history, user = torch.tensor([[1, 2, 3]]), torch.tensor([0])
    for choice, same in (("sample", False), ("mean", True)):
        model = learner(latent_at_test=choice)
        first, second = (model.score(history, user, UserNoise.single(1, 3, seed=seed)) for seed in (0, 1))
        assert torch.equal(first, second) == same


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_targets": 0},
        {"kl": "other"},
        {"anneal": "never"},
        {"dropout": 1.0},
        {"kl_cap": -1.0},
        {"learning_rate": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        learner(**wrong)
