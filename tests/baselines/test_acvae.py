"""ACVAE: the adversarial divergence, the contrastive term, causality, who updates what."""

import math

import pytest
import torch

from baselines import acvae
from baselines.acvae import Config, ContrastCritic, Generator, KLCritic
from harness.compute import Compute
from harness.learner import num_parameters
from harness.losses import binary_cross_entropy
from harness.split import leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import chain
from harness.windows import SequenceBatch

SMALL = {"embedding_dim": 12, "hidden_dim": 10, "latent_dim": 6, "critic_dim": 8, "max_len": 12, "batch_size": 8}


def learner(num_users=40, num_items=20, **settings):
    view = leave_one_out(chain(num_users=num_users, num_items=num_items)).training_view()
    return acvae.build({**SMALL, **settings}, view, Streams(1), Compute())


def fixed_noise(x):
    """The same values at the same positions, however long the sequence."""
    rows = [torch.randn(x.shape[2], generator=torch.Generator().manual_seed(row)) for row in range(x.shape[1])]
    return torch.stack(rows).expand(len(x), -1, -1)


def latents(model, *history):
    model.module.eval()
    with torch.no_grad():
        return model.generator(torch.tensor(history), fixed_noise)[1]


def test_numbers_of_parameters():
    """The reference's at 3,416 items; nobody uses two linear layers of its generator, 100 -> 128 and 100 -> 64."""
    unused = 101 * 128 + 101 * 64
    assert num_parameters(Generator(Config(), 3416)) == 1_121_845 - unused
    assert num_parameters(KLCritic(Config())) == 99_008
    assert num_parameters(ContrastCritic(Config())) == 123_777


def test_latents_do_not_see_later_items():
    model = learner()
    first, second = latents(model, [1, 2, 3, 4, 5, 6]), latents(model, [1, 2, 3, 4, 5, 9])
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5], second[:, 5])


def test_the_encoder_is_its_formula():
    """Position by position: noise, width 1, noise, causal width 5, width 1, residual."""
    model = learner()
    encoder, history = model.generator.encoder.eval(), [1, 2, 3, 4, 5, 6]
    found = latents(model, history)[0]
    state = model.generator.gru(model.generator.items(torch.tensor([history])))[0][0]
    noise = fixed_noise(torch.zeros(1, 10, 10))[0, 4:]  # four positions stand before the sequence
    noisy = lambda x: x + torch.tanh(encoder.noise(noise))  # noqa: E731
    softplus = torch.nn.functional.softplus
    x = torch.cat([torch.zeros(4, 10), noisy(softplus(encoder.first(noisy(state))))])
    for t in range(6):
        wide = torch.einsum("oiw,wi->o", encoder.wide.weight, x[t : t + 5]) + encoder.wide.bias
        z = encoder.latent(state[t] + softplus(encoder.last(softplus(wide))))
        torch.testing.assert_close(found[t], z, rtol=1e-4, atol=1e-5)


def test_the_critic_is_its_formula():
    critic, elu = learner().critic.eval(), torch.nn.functional.elu
    item, z = torch.randn(3, 12), torch.randn(3, 6)
    a = critic.enter(torch.cat([item, z], dim=-1))
    for first, second in critic.pairs:
        a = elu(a + second(first(a)))
    torch.testing.assert_close(critic(item, z), critic.leave(a) + z.square() / 2)


def test_the_critic_compares_with_the_prior():
    """Its second argument is drawn from N(0, I), whatever the latents are."""
    model, seen = learner(), []
    critic = model.critic.forward
    model.critic.forward = lambda item, z: seen.append(z) or critic(item, z)
    model._update_critic(torch.randn(2000, 12), 7 + torch.zeros(2000, 6), 2)
    assert (seen[0] == 7).all()
    assert float(seen[1].mean()) == pytest.approx(0, abs=0.05) and float(seen[1].std()) == pytest.approx(1, abs=0.05)


def test_the_critics_loss_is_low_where_it_rates_latents_above_the_prior(monkeypatch):
    model, item, z = learner(critic_dropout=0.0), torch.randn(7, 12), 2 + torch.randn(7, 6)
    monkeypatch.setattr(model, "_draw", lambda x: torch.linspace(-1, 1, x.numel()).view_as(x))
    softplus = torch.nn.functional.softplus
    with torch.no_grad():
        cost = softplus(-model.critic(item, z)) + softplus(model.critic(item, model._draw(z)))
    torch.testing.assert_close(model._update_critic(item, z, 2), cost.mean(-1).sum() / 2)


def test_latents_see_the_noise_of_five_positions_and_no_more():
    model, history = learner(), torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    plain = latents(model, history[0].tolist())[0, -1]
    seen = []
    for place in range(7):  # the first four columns stand before the sequence
        bumped = model.generator(history, lambda x, column=4 + place: _bumped(x, column))[1][0, -1]
        seen.append(not torch.equal(plain, bumped))
    assert seen == [False, False, True, True, True, True, True]


def test_noise_enters_twice():
    model, shapes = learner(), []
    model.generator(torch.tensor([[1, 2, 3]]), lambda x: shapes.append(x.shape) or torch.randn_like(x))
    assert len(shapes) == 2


def _bumped(x, column):
    draw = fixed_noise(x).clone()
    draw[:, column] += 1
    return draw


def test_padding_on_the_right_changes_nothing():
    model = learner()
    short, long = latents(model, [1, 2, 3]), latents(model, [1, 2, 3] + [0] * 10)
    torch.testing.assert_close(long[:, :3], short, rtol=1e-6, atol=1e-6)


class _NoNoise(UserNoise):
    def normal_per_position(self, length, dim, *, full=False):
        return torch.zeros(self._sizes[0], length, dim)


@pytest.mark.parametrize("history", [[1, 2], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_scores_are_those_of_the_last_position_of_a_full_pass(history):
    model = learner()
    model.module.eval()
    left_padded = torch.tensor([[0, 0, *history]])
    with torch.no_grad():
        score = model.score(left_padded, torch.tensor([0]), _NoNoise.single(1, len(history)))
        z = model.generator(torch.tensor([history]), torch.zeros_like)[1][:, -1]
        expected = model.generator.output(model.generator.features(z))
    torch.testing.assert_close(score, expected)


def test_scores_depend_on_the_noise():
    model = learner()
    model.module.eval()
    history, user = torch.tensor([[1, 2, 3]]), torch.tensor([0])
    first, second = (model.score(history, user, UserNoise.single(1, 3, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_trained_critic_estimates_the_divergence():
    """z ~ N(1, 1) against N(0, 1): the best quadratic critic is z - 1/2, with mean 1/2 under the posterior."""
    generator = torch.Generator().manual_seed(0)
    posterior = 1 + torch.randn(200_000, generator=generator)
    prior = torch.randn(200_000, generator=generator)
    coefficients = torch.zeros(3, requires_grad=True)

    def critic(z):
        a, b, c = coefficients
        return a * z.square() + b * z + c + z.square() / 2

    optimizer = torch.optim.LBFGS([coefficients], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = binary_cross_entropy(critic(posterior), critic(prior)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(critic(posterior).mean().detach()) == pytest.approx(0.5, rel=0.05)
    assert coefficients.tolist() == pytest.approx([-0.5, 1.0, -0.5], abs=0.05)


def terms_of(model, num_users=3):
    batch = next(iter(model.batches()))
    real = torch.arange(4) < torch.tensor([4, 2, 3])[:num_users, None]
    history = batch.input_BL.new_tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 0]])[:num_users]
    item, z = model.generator(history, fixed_noise)
    return model.generator_terms(item, z, (history + 1) * real, real, model._others(len(history))), real


def test_contrast_of_a_critic_that_knows_nothing():
    model = learner(contrast_weight=0.1, dropout=0.0)
    torch.nn.init.zeros_(model.contrast.leave.weight)
    torch.nn.init.zeros_(model.contrast.leave.bias)
    terms, real = terms_of(model)
    assert float(terms["contrast"].detach()) == pytest.approx(0.1 * 2 * math.log(2) * int(real.sum()) / 3)


def test_contrast_compares_with_another_user():
    model, pairs = learner(), []
    original = model.contrast.forward
    model.contrast.forward = lambda item, z, length: pairs.append((item, z)) or original(item, z, length)
    terms_of(model)
    (item, own), (same_item, other) = pairs
    assert torch.equal(item, same_item)
    assert any(torch.equal(other, own[rows]) for rows in ([2, 0, 1], [1, 2, 0]))


def test_others_are_drawn_anew_for_each_batch_and_never_oneself():
    """Batches are sorted by length; a user's neighbour there would nearly always have its own length."""
    model = learner()
    draws = torch.stack([model._others(5) for _ in range(400)])
    assert torch.equal(draws.sort(1).values, torch.arange(5).expand(400, 5))
    share = torch.stack([(draws == user).double().mean(0) for user in range(5)])
    assert (share.diagonal() == 0).all()
    torch.testing.assert_close(share, (1 - torch.eye(5, dtype=torch.double)) / 4, rtol=0, atol=0.08)


def test_a_single_user_is_not_contrasted_with_itself():
    terms, _ = terms_of(learner(), num_users=1)
    assert "contrast" not in terms and "kl" in terms


def test_divergence_term_is_the_mean_over_dimensions_summed_over_positions():
    model = learner(kl_weight=0.05, dropout=0.0, critic_dropout=0.0)
    torch.nn.init.zeros_(model.critic.leave.weight)
    torch.nn.init.zeros_(model.critic.leave.bias)  # T = z^2 / 2 is left
    terms, real = terms_of(model)
    z = model.generator(torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 0]]), fixed_noise)[1]
    expected = 0.05 * (z.square() / 2).mean(-1)[real].sum() / 3
    torch.testing.assert_close(terms["kl"], expected)


def test_reconstruction_at_initialisation_is_near_that_of_guessing():
    model = learner(num_users=60, num_items=3416, **{name: getattr(Config(), name) for name in SMALL})
    batch = next(iter(model.batches()))
    per_position = model.training_step(batch)["reconstruction"] * len(batch.user_B) / (batch.input_BL > 0).sum()
    assert float(per_position) == pytest.approx(math.log(3417), abs=0.2)


def test_critic_learns_from_its_own_loss_only():
    """The generator's backward pass reaches the KL critic; those gradients must be gone before its update."""
    model = learner(critic_weight_decay=0.0, critic_learning_rate=1.0, critic_dropout=0.0)
    before = {name: value.clone() for name, value in model.critic.named_parameters()}
    gradients = {}
    step = model.optimizers["critic"].step
    item, z = torch.randn(7, 12), torch.randn(7, 6)
    for parameter in model.critic.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    model.optimizers["critic"].step = lambda: (
        gradients.update({name: value.grad.clone() for name, value in model.critic.named_parameters()}),
        step(),
    )
    model._update_critic(item, z, 2)
    assert all(gradient.abs().max() < 50 for gradient in gradients.values())
    for name, value in model.critic.named_parameters():
        torch.testing.assert_close(value, before[name] - gradients[name])


def test_critic_update_leaves_the_generator_alone():
    model = learner()
    model.training_step(next(iter(model.batches())))
    before = {name: value.clone() for name, value in model.generator.named_parameters()}
    model._update_critic(torch.randn(7, 12), torch.randn(7, 6), 2)
    assert all(torch.equal(before[name], value) for name, value in model.generator.named_parameters())


@pytest.mark.parametrize("slices", [2, 8])
def test_groups_of_similar_length_give_the_loss_and_gradients_of_the_padded_batch(slices, monkeypatch):
    """A shorter user's latents after its end are compared with a longer one's, so both ways must compute them."""
    results = []
    for fast in (False, True):
        weights = {"dropout": 0.0, "critic_dropout": 0.0, "kl_weight": 1.0, "contrast_weight": 1.0}
        model = learner(**weights, length_slices=slices if fast else 1)
        monkeypatch.setattr(model, "_draw", fixed_noise)
        if not fast:
            monkeypatch.setattr(acvae, "unroll", lambda gru, x, length: gru(x)[0])
        batch = unequal_batch(model)
        for optimizer in model.optimizers.values():
            monkeypatch.setattr(optimizer, "step", lambda: None)
        monkeypatch.setattr(model, "_update_critic", lambda item, z, num_users: torch.zeros(()))
        loss = model.training_step(batch)["loss"]
        results.append((loss, {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}))
        monkeypatch.undo()
    (plain, plain_gradients), (fast, fast_gradients) = results
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=0)
    assert fast_gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


def unequal_batch(model):
    lengths = [1, 1, 2, 4, 4, 7, 9, 12]
    rows = [[3 * place + step for step in range(length + 1)] for place, length in enumerate(lengths)]
    items = torch.tensor([[0] * (13 - len(row)) + [item % 20 + 1 for item in row] for row in rows])
    real = torch.arange(12) >= 12 - torch.tensor(lengths)[:, None]
    return SequenceBatch(items[:, :-1] * real, items[:, 1:] * real, torch.arange(len(rows)))


def test_encoder_has_two_optimisers_and_the_gru_one():
    model = learner()
    held = {name: {id(p) for group in o.param_groups for p in group["params"]} for name, o in model.optimizers.items()}
    encoder = {id(p) for p in model.generator.encoder.parameters()}
    assert encoder <= held["generator"] and encoder <= held["contrast"]
    assert {id(p) for p in model.generator.gru.parameters()}.isdisjoint(held["contrast"])
    assert held["critic"] == {id(p) for p in model.critic.parameters()}


def test_overfits_eight_users_without_critics():
    model = learner(
        num_users=8, num_items=30, dropout=0.0, kl_weight=0.0, contrast_weight=0.0, learning_rate=0.02, hidden_dim=32
    )
    for _ in range(120):
        for batch in model.batches():
            model.training_step(batch)
    model.module.eval()
    batch = model.sampler.batch(torch.arange(8))
    with torch.no_grad():
        score = model.score(batch.input_BL, batch.user_B, UserNoise.single(8, 12))
    assert torch.equal(score.argmax(1), batch.target_BL[:, -1])


def test_inputs_are_the_last_pieces_of_training_parts():
    batch = next(iter(learner().batches()))
    assert isinstance(batch, SequenceBatch)
    torch.testing.assert_close(batch.target_BL[:, -1], batch.input_BL[:, -1] % 20 + 1)


@pytest.mark.parametrize(
    "wrong",
    [{"kl_weight": -1.0}, {"dropout": 1.0}, {"hidden_dim": 0}, {"latent_dim": 0}, {"critic_learning_rate": -1.0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        learner(**wrong)
