"""DiffuRec: schedule and chain against the sheet's figures, and each fast way against the plain one."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.diffurec import Config, Network, build
from harness.compute import Compute
from harness.gaussian import GaussianProcess, truncated_linear
from harness.layers import merge_heads, split_heads
from harness.learner import num_parameters
from harness.packing import Packing
from harness.split import Sequences, leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import random_walk
from harness.windows import pad_left

SPLIT = leave_one_out(random_walk(num_users=40, num_items=30, min_length=4, max_length=16))
SMALL = {"embedding_dim": 16, "num_blocks": 2, "num_heads": 4, "max_len": 12, "num_steps": 8, "batch_size": 64}
QUIET = {"dropout": 0.0, "embedding_dropout": 0.0}
PROCESS = GaussianProcess(truncated_linear(32))


def make(split=SPLIT, seed=1, **changes):
    return build(SMALL | changes, split.training_view(), Streams(seed), Compute())


def first_batch(learner):
    return next(iter(learner.batches()))


def test_schedule_values():
    assert PROCESS.beta_T[0] == pytest.approx(0.013125, abs=1e-9)
    assert PROCESS.beta_T[31] == pytest.approx(0.635, abs=1e-9)
    np.testing.assert_allclose(np.diff(PROCESS.beta_T), 0.0200605, atol=1e-6)
    for t, value in {0: 0.986875, 1: 0.954125, 7: 0.493516, 15: 0.051983, 23: 0.000805, 31: 9.9e-7}.items():
        assert PROCESS.alpha_bar_T[t] == pytest.approx(value, abs=1e-6), t


def test_item_vectors_start_as_asked_and_the_rest_as_ever():
    usual, small = make().module.state_dict(), make(embedding_std=0.02).module.state_dict()
    for name, value in usual.items():
        torch.testing.assert_close(small[name], value * (0.02 if name == "items.weight" else 1.0))


def test_with_small_item_vectors_the_first_loss_knows_nothing():
    small, usual = make(embedding_std=0.02, padding_class=False), make(padding_class=False)
    ignorant = math.log(SPLIT.num_items)
    assert small.loss(first_batch(small))["loss"].item() == pytest.approx(ignorant, abs=0.02)
    assert usual.loss(first_batch(usual))["loss"].item() > 2 * ignorant


def test_reverse_coefficients():
    posterior = PROCESS.posterior
    for t, (c1, c2) in {1: (0.718628, 0.281317), 15: (0.091188, 0.807441), 31: (0.0010459, 0.604151)}.items():
        assert posterior.from_x0[t] == pytest.approx(c1, abs=1e-6), t
        assert posterior.from_xt[t] == pytest.approx(c2, abs=1e-6), t
    assert posterior.variance[1] == pytest.approx(0.009495, abs=1e-6)
    assert posterior.variance[15] == pytest.approx(0.306149, abs=1e-6)


def test_parameter_count_is_the_references_without_its_unused_layers():
    """Reference on Beauty: 2,579,584, of which 105,216 (positions, four leftover layers) never get a gradient."""
    assert num_parameters(Network(Config(), 12101)) == 2_579_584 - 105_216


def test_every_parameter_learns():
    learner = make()
    learner.module.train()
    learner.loss(first_batch(learner))["loss"].backward()
    for name, parameter in learner.module.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def beauty(shared_dir):
    lines = (shared_dir / "data" / "beauty.sequences.txt").read_text().splitlines()
    return leave_one_out(Sequences.from_lists([[int(i) for i in line.split()[1:]] for line in lines]))


def test_first_loss_on_beauty_is_as_in_the_reference(shared_dir):
    split = beauty(shared_dir)
    learner = build({"mask": "released", "batch_size": 64}, split.training_view(), Streams(1), Compute())
    learner.module.train()
    assert learner.sampler.num_samples == 131_413
    with torch.no_grad():
        assert 48 < float(learner.loss(first_batch(learner))["loss"]) < 58


def encode(one, history, mixed=None):
    packing = Packing([history])
    return one(one.tokens(packing.item_N), packing, mixed)


def still(**changes):
    torch.manual_seed(0)
    return Network(Config(**(SMALL | changes)), 30).eval()


@pytest.mark.parametrize("mask", ["released", "keys"])
def test_order_blind_but_for_the_last_item(mask):
    one = still(mask=mask)
    history = torch.tensor([[0, 0, 1, 2, 3, 4, 5]])
    shuffled, other_last = torch.tensor([[0, 0, 4, 1, 3, 2, 5]]), torch.tensor([[0, 0, 1, 2, 3, 5, 4]])
    torch.testing.assert_close(encode(one, shuffled), encode(one, history), rtol=0, atol=1e-5)
    assert float((encode(one, other_last) - encode(one, history)).abs().max().detach()) > 0.1


def test_padding_counts_under_the_released_mask_only():
    short, long = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, 0, 0, 0, 0, 1, 2, 3]])
    released, keys = still(mask="released"), still(mask="keys")
    torch.testing.assert_close(encode(keys, short), encode(keys, long), rtol=0, atol=1e-5)
    assert float((encode(released, short) - encode(released, long)).abs().max().detach()) > 1e-3


def explicit_released(one, history):
    """The reference's mask written out: rows of padded queries are filled with -1e9, keys are never hidden."""
    x = one.tokens(history)
    padded_rows = (history == 0)[:, None, :, None]
    for block in one.blocks:
        normed, layer = block.norm_attention(x), block.attention
        q, k, v = (split_heads(part(normed), layer.num_heads) for part in (layer.query, layer.key, layer.value))
        logits = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(padded_rows, -1e9)
        x = x + layer.output(merge_heads(logits.softmax(-1) @ v))
        x = x + block.feed_forward(block.norm_feed_forward(x))
    return one.norm(x[:, -1])


def test_the_gate_equals_the_references_query_row_mask():
    one = still(mask="released")
    history = torch.tensor([[0, 0, 0, 0, 9], [0, 0, 3, 4, 5], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(encode(one, history), explicit_released(one, history), rtol=0, atol=1e-5)


def explicit_keys(one, history):
    x = one.tokens(history)
    hidden = (history == 0)[:, None, None, :]
    for block in one.blocks:
        normed, layer = block.norm_attention(x), block.attention
        q, k, v = (split_heads(part(normed), layer.num_heads) for part in (layer.query, layer.key, layer.value))
        logits = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(hidden, -1e9)
        x = x + layer.output(merge_heads(logits.softmax(-1) @ v))
        x = x + block.feed_forward(block.norm_feed_forward(x))
    return one.norm(x[:, -1])


def test_key_mask_hides_padding_from_every_query():
    one = still(mask="keys")
    history = torch.tensor([[0, 0, 0, 0, 9], [0, 0, 3, 4, 5], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(encode(one, history), explicit_keys(one, history), rtol=0, atol=1e-5)


def test_dropout_comes_before_the_norm_of_tokens():
    """After dropout and then LayerNorm each token still has mean 0 and variance 1."""
    one = still(embedding_dropout=0.5).train()
    tokens = one.tokens(torch.arange(1, 30))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(29), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.var(-1, unbiased=False), torch.ones(29), rtol=0, atol=1e-4)


def test_steps_are_rescaled_before_the_sinusoid():
    one = still(num_steps=32, embedding_dim=128)
    angle = 5 * 31.25 * torch.exp(-math.log(10000) * torch.arange(64) / 64)
    expected = one.time[2](F.silu(one.time[0](torch.cat([angle.cos(), angle.sin()]))))
    torch.testing.assert_close(one.time_embedding(torch.tensor([5]))[0], expected, rtol=1e-4, atol=1e-5)


def test_lambda_has_mean_and_standard_deviation_delta():
    draw = make(delta=0.001)._lambda(Packing([torch.ones(100, 50, dtype=torch.long)]))
    assert draw.shape == (5000, 16)
    draw = draw.view(100, 50, 16)
    assert float(draw.mean()) == pytest.approx(0.001, rel=0.02)
    assert float(draw.std()) == pytest.approx(0.001, rel=0.02)
    assert abs(float(np.corrcoef(draw[:, 0].flatten(), draw[:, 1].flatten())[0, 1])) < 0.1


def test_noisy_targets_have_the_forward_moments_and_uniform_steps(monkeypatch):
    learner = make()
    seen = []
    monkeypatch.setattr(learner.module, "time_embedding", lambda t_B: seen.append(t_B) or torch.zeros(len(t_B), 16))
    with torch.no_grad():
        x_t = learner._noisy_target(torch.full((20_000,), 3))
        clean = learner.module.items.weight[3].detach()
    steps = seen[0]
    assert torch.bincount(steps, minlength=8).min() > 2200 and steps.max() == 7
    for t in (0, 4, 7):
        rows, bar = x_t[steps == t], learner.process.alpha_bar_T[t]
        torch.testing.assert_close(rows.mean(0), clean * math.sqrt(bar), rtol=0, atol=0.1)
        assert float((rows - clean * math.sqrt(bar)).var()) == pytest.approx(1 - bar, rel=0.05)


def test_gradient_flows_into_the_noised_target():
    learner = make()
    learner._noisy_target(torch.tensor([3])).sum().backward()
    assert (learner.module.items.weight.grad[3] != 0).all()


@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("num_steps", [1, 8, 32])
def test_a_constant_network_is_returned_exactly(monkeypatch, variance, num_steps):
    learner = make(variance=variance, num_steps=num_steps)
    constant = torch.randn(3, 16)
    monkeypatch.setattr(learner.module, "forward", lambda *_: constant)
    history = torch.tensor([[1, 2], [0, 3], [4, 5]])
    with torch.no_grad():
        found = learner.represent(history, torch.arange(3), UserNoise.single(3, 2))
    assert torch.equal(found, constant)


def test_the_reverse_chain_step_by_step(monkeypatch):
    """x_{t-1} = c1 x0hat + c2 x_t + sqrt(beta_t) noise, from x_T ~ N(0, I), no noise at the last step."""
    learner = make(delta=1.0, mask="keys")
    tokens, mixed = torch.zeros(6, 16), []
    monkeypatch.setattr(learner.module, "forward", lambda t, p, m: mixed.append(m) or m.view(2, 3, 16).mean(1))
    history = Packing([torch.tensor([[1, 2, 3], [0, 4, 5]])])
    with torch.no_grad():
        found = learner._reverse(tokens, history, UserNoise.single(2, 3, seed=5))
        noise = UserNoise.single(2, 3, seed=5)
        x, process = noise.normal(16), learner.process
        for t in reversed(range(8)):
            lam = 1.0 + noise.normal_per_position(3, 16)
            clean = (lam * (x + learner.module.time_embedding(torch.tensor([t])))[:, None]).mean(1)
            x = process.posterior.from_x0[t] * clean + process.posterior.from_xt[t] * x
            x = x + math.sqrt(process.beta_T[t]) * noise.normal(16) if t else x
    assert len(mixed) == 8
    torch.testing.assert_close(found, x.float(), rtol=1e-5, atol=1e-5)


def quiet_pair(slices, **changes):
    """The same learner twice: in trimmed slices (None: tiles), and one slice with all its padding."""
    fast = make(mask="keys", length_slices=slices, delta=0.0, **QUIET, **changes)
    plain = make(mask="keys", length_slices=1, delta=0.0, **QUIET, **changes)
    plain.sampler._trim = False
    return fast, plain


@pytest.mark.parametrize("slices", [4, None])
def test_fast_training_equals_plain_training(slices):
    fast, plain = quiet_pair(slices)
    found = []
    for learner in (fast, plain):
        batch = first_batch(learner)
        loss = learner.loss(batch)["loss"]
        loss.backward()
        found.append((batch.history_BL.shape, loss.detach(), [p.grad for p in learner.module.parameters()]))
    assert found[1][0][1] == 12
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-5)
    for one, other in zip(found[0][2], found[1][2], strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("slices", [4, None])
def test_fast_training_equals_plain_training_with_fixed_lambda(slices, monkeypatch):
    """With lambda drawn once per position from the right, slices and padding still change nothing."""
    fixed = 0.5 + torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    losses = []
    for learner in quiet_pair(slices):
        monkeypatch.setattr(learner, "_lambda", lambda packing: fixed[11 - packing.age_N])
        losses.append(learner.loss(first_batch(learner))["loss"].detach())
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
    without_lambda = quiet_pair(slices)[0]
    assert abs(float(losses[0] - without_lambda.loss(first_batch(without_lambda))["loss"].detach())) > 1e-3


@pytest.mark.parametrize("mask", ["released", "keys"])
def test_reverse_output_does_not_depend_on_trimming(mask):
    learner = make(mask=mask, delta=0.5)
    learner.module.eval()
    history = torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])
    with torch.no_grad():
        trimmed = learner.represent(history, torch.arange(2), UserNoise.single(2, 4))
        padded = learner.represent(pad_left(history, 12), torch.arange(2), UserNoise.single(2, 4))
    torch.testing.assert_close(trimmed, padded, rtol=0, atol=1e-5)


def test_noise_of_the_chain_reaches_the_output_and_seeds_repeat():
    learner = make(delta=0.5)
    learner.module.eval()
    history = torch.tensor([[0, 0, 3, 4]])
    with torch.no_grad():
        first, again, other = (
            learner.represent(history, torch.tensor([0]), UserNoise.single(1, 4, seed=seed)) for seed in (1, 1, 2)
        )
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_without_diffusion_there_is_no_noise():
    learner = make(diffusion=False)
    learner.module.eval()
    history = torch.tensor([[0, 0, 3, 4]])
    with torch.no_grad():
        found = [learner.represent(history, torch.tensor([0]), UserNoise.single(1, 4, seed=seed)) for seed in (1, 2)]
        assert torch.equal(*found)
        torch.testing.assert_close(found[0], encode(learner.module, pad_left(history, 12)))


def test_one_batch_is_learned_by_heart():
    """The reference needs about 25 steps from 81.6 to 0.001 on a Beauty batch of 64; so does ours, from 81.5."""
    rows = np.random.default_rng(0).permutation(3000)[:96].reshape(12, 8) + 1  # no item twice: one answer per prefix
    split = leave_one_out(Sequences.from_lists(rows.tolist(), 3000))
    learner = make(split, embedding_dim=128, num_steps=32, **QUIET)
    batch = first_batch(learner)
    assert 60 < float(learner.training_step(batch)["loss"]) < 120
    assert any(float(learner.training_step(batch)["loss"]) < 1e-3 for _ in range(60))


def test_the_learning_rate_falls_every_so_many_epochs():
    learner = make(decay_every=2, decay=0.1)
    rates = []
    for _ in range(5):
        rates.append(learner.optimizer.param_groups[0]["lr"])
        learner.training_step(first_batch(learner))
        learner.end_epoch(None)
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


CHANGES = {
    "embedding_dim": 8,
    "num_blocks": 1,
    "num_heads": 2,
    "max_len": 5,
    "dropout": 0.5,
    "embedding_dropout": 0.5,
    "embedding_std": 0.1,
    "num_steps": 4,
    "delta": 0.1,
    "diffusion": False,
    "mask": "keys",
    "variance": "posterior",
    "padding_class": False,
    "batch_size": 32,
    "learning_rate": 1e-2,
    "decay_every": 1,
    "decay": 0.5,
}
WITHOUT_EFFECT = {"length_slices"}  # how a batch is computed, not what comes out


def trace(**changes):
    learner = make(**({"decay_every": 2, "delta": 0.01} | changes))
    torch.manual_seed(1)
    losses = []
    for _ in range(4):
        learner.module.train()
        losses.append(float(learner.training_step(first_batch(learner))["loss"]))
        learner.end_epoch(None)
    learner.module.eval()
    with torch.no_grad():
        score = learner.score(torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([0]), UserNoise.single(1, 6))
    return losses, score.sum().item()


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.name not in WITHOUT_EFFECT])
def test_every_field_matters(name):
    assert trace(**{name: CHANGES[name]}) != trace()


def test_a_variance_touches_the_chain_but_not_training():
    assert trace(variance="posterior")[0] == trace()[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 3}, "num_heads: 3 .* divisors of embedding_dim"),
        ({"embedding_dropout": 1.0}, "embedding_dropout: 1.0"),
        ({"delta": -0.1}, "delta: -0.1"),
        ({"learning_rate": -1.0}, "learning_rate: -1.0"),
        ({"decay": -0.1}, "decay: -0.1"),
        ({"embedding_dim": 15, "num_heads": 5}, "embedding_dim: 15 .* even numbers"),
        ({"mask": "none"}, "mask: 'none' is not one of 'released', 'keys'"),
        ({"num_step": 8}, "diffurec: unknown key 'num_step' .did you mean 'num_steps'"),
    ],
)
def test_mistakes_in_settings_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        make(**values)
