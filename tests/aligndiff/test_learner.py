"""Training step against the equations, controls, probes, and that every field matters."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from aligndiff.config import RELEASED, Config, read_config
from aligndiff.probe import correction_terms, energy_terms
from harness.compute import Compute
from harness.methods import known_methods, load_method
from harness.packing import Packing
from harness.streams import UserNoise
from harness.windows import pad_left
from tests.aligndiff import oracle, toys


def fixed_noise(learner, size):
    """One table of lambda draws for every layout of the batch, right-aligned."""
    table = torch.randn(size, learner.max_len, learner.config.embedding_dim)
    noise = learner.draw(size)
    return dataclasses.replace(noise, normal_for=lambda p: table[p.row_N, learner.max_len - 1 - p.age_N])


def gradients(module, value):
    module.zero_grad(set_to_none=True)
    value.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("slices", [3, None])  # None: tiles
def test_loss_and_gradients_equal_the_equations(slices):
    learner = toys.learner(**toys.STILL, delta=0.1, eta=0.3, null_probability=0.3, slices=slices)
    batch = toys.batch(learner)
    noise = fixed_noise(learner, len(batch.target_B))
    assert noise.null_B.any() and not noise.null_B.all()
    fast = learner.terms(batch, noise)["loss"]
    plain = oracle.loss(learner.module, batch, noise, eta=0.3)
    assert abs(fast.item() - plain.item()) / plain.item() < 1e-5
    got, expected = gradients(learner.module, fast), gradients(learner.module, plain)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        # The floor is for gradients that are 0 but for rounding, such as those of key biases.
        assert (got[name] - value).abs().max() / value.abs().max().clamp(min=1e-3) < 1e-4, name
    total = [torch.cat([g.flatten() for g in each.values()]) for each in (got, expected)]
    assert (total[0] - total[1]).norm() / total[1].norm() < 1e-5


def test_both_variants_learn():
    for variant in ("paper", "released"):
        learner = toys.learner(variant=variant)
        first = [learner.training_step(batch)["cross_entropy"] for batch in learner.batches()][0]
        for _ in range(6):
            last = [learner.training_step(batch)["cross_entropy"] for batch in learner.batches()][-1]
        assert last < 0.6 * first


# What each field is flipped to, and what must be set beside it for the field to have a meaning.
FLIPS = {
    "embedding_dim": 32,
    "max_len": 4,
    "num_blocks": 1,
    "num_heads": 1,
    "dropout": 0.5,
    "embedding_dropout": 0.0,
    "batch_size": 16,
    "learning_rate": 0.02,
    "weight_decay": 0.1,
    "decay_epochs": 1,
    "decay_factor": (0.5, {"decay_epochs": 1}),
    "embedding_std": 0.1,
    "position_std": 0.1,
    "block_init": "torch",
    "guidance_heads": 1,
    "guidance_bias": True,
    "guidance_expansion": 2,
    "guidance_gain": 1.0,
    "orthogonal_map": "matrix_exp",
    "guidance_index": "length",
    "guidance_keys": "all",
    "null_probability": 0.9,
    "guidance_weight": 1.0,
    "null_branch": "absent",
    "guide_on": "hidden",
    "diffusion": False,
    "num_steps": 7,
    "schedule": "trunc_lin",
    "beta_min": 0.2,
    "beta_max": 0.5,
    "tau": 0.4,
    "alpha_0": 0.3,
    "mask": "queries",
    "nu": 0.5,
    "nu_reading": "delta",
    "delta": 0.5,
    "gamma": (0.5, {"nu_reading": "delta"}),
    "lambda_spread": "variance",
    "energy_layers": 2,
    "energy_expansion": 1,
    "energy_dropout": 0.7,
    "energy_activation": "elu_gelu",
    "energy_init": "xavier_uniform",
    "sigma2_floor": 0.9,
    "gradient_penalty": (1.0, {"alignment": "wgan_gp"}),
    "eta": 1.0,
    "eta_rule": ("adaptive", {"eta_epochs": 1}),
    "eta_epochs": (1, {"eta_rule": "adaptive"}),
    "padding_class": True,
    "reverse_variance": "beta",
    "correction": 1.0,
    "correction_steps": 3,
    "correction_at": "final",
    "correction_sign": "plus",
    "guidance_of": "another",
    "history_order": "shuffled",
    "slices": 1,
}
CHOICES = [
    ("variant", "released", {}),
    *(("guidance", value, {}) for value in ("ordinary", "none")),
    *(("energy", value, {}) for value in ("transformer", "none")),
    *(("alignment", value, {}) for value in ("released", "wgan_gp", "adversarial")),
    *((name, *value) if isinstance(value, tuple) else (name, value, {}) for name, value in FLIPS.items()),
]
# Noise that is felt at once, so that two steps of a toy suffice to see a difference.
AUDIBLE = {"delta": 0.05, "correction": 0.2, "eta": 0.1}


def observe(**settings):
    """Weights and scores after two short epochs, as one vector."""
    learner = toys.learner(**settings)
    for index in range(2):
        learner.module.train()
        for batch in learner.batches():
            learner.training_step(batch)
        learner.end_epoch({"HR@10": 0.1 * index})
    learner.module.eval()
    history_BL, user_B = toys.histories(learner)
    noise = UserNoise.single(len(user_B), history_BL.shape[1])
    weights = [value.flatten().float() for value in learner.module.state_dict().values()]
    return torch.cat([*weights, learner.score(history_BL, user_B, noise).flatten()])


@pytest.fixture(scope="module")
def baseline():
    cache = {}

    def get(context):
        key = tuple(sorted(context.items()))
        if key not in cache:
            cache[key] = observe(**AUDIBLE | context)
        return cache[key]

    return get


def test_every_field_is_flipped():
    assert {name for name, _, _ in CHOICES} == {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize(("name", "value", "context"), CHOICES, ids=lambda v: str(v) if v != {} else "")
def test_field_changes_something(baseline, name, value, context):
    before, after = baseline(context), observe(**AUDIBLE | context | {name: value})
    same_weights = before.shape == after.shape
    assert not same_weights or (after - before).abs().max() > 1e-5, f"{name} changes nothing"


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_each_released_choice_can_be_mended_alone(name):
    default = getattr(Config(), name)
    assert getattr(read_config({"variant": "released"}), name) == RELEASED[name] != default
    mended = dataclasses.asdict(read_config({"variant": "released", name: default}))
    released = dataclasses.asdict(read_config({"variant": "released"}))
    assert {key for key in released if released[key] != mended[key]} == {name}


def test_inference_only_variants_load_the_weights_of_another():
    reusing = [load_method(name) for name in known_methods() if name.startswith("aligndiff.")]
    reusing = [method for method in reusing if method.reuse_weights]
    assert len(reusing) >= 8
    for method in reusing:
        trained = load_method(method.reuse_weights)
        source = toys.learner(**trained.model | toys.SIZES)
        learner = toys.learner(seed=2, **method.model | toys.SIZES)
        learner.module.load_state_dict(source.module.state_dict(), strict=True)


def test_another_user_is_never_oneself_and_does_not_depend_on_batch_mates():
    learner = toys.learner(guidance_of="another")
    users = torch.arange(40)
    other = learner.other_U[users]
    assert (other != users).all() and other.sort().values.equal(users)
    assert learner.other_U[users[3:5]].equal(other[3:5])


def test_shuffling_keeps_padding_in_front_and_every_item():
    learner = toys.learner(history_order="shuffled")
    history_BL, _ = toys.histories(learner)
    shuffled = learner.prepare(history_BL, UserNoise.single(5, history_BL.shape[1]))
    assert ((shuffled == 0) == (history_BL == 0)).all()
    assert shuffled.sort(dim=1).values.equal(history_BL.sort(dim=1).values)
    assert not shuffled.equal(history_BL)


def test_learning_rate_and_eta_follow_the_released_rules():
    learner = toys.learner(variant="released", decay_epochs=2, eta_epochs=1)
    rates, etas = [], []
    for metrics in ({"HR@5": 0.1}, None, {"HR@5": 0.1}, {"HR@5": 0.05}):
        learner.end_epoch(metrics)
        rates.append(learner.optimizer.param_groups[0]["lr"])
        etas.append(learner.eta)
    assert rates == pytest.approx([0.01, 0.001, 0.001, 0.0001])
    assert etas == pytest.approx([0.011, 0.011, 0.0088, 0.00704])
    learner.eta = 0.99
    learner.end_epoch({"HR@5": 0.2})
    assert learner.eta == 1.0
    learner.end_epoch({"HR@5": 0.2})
    assert learner.eta == pytest.approx(0.1)


def test_validating_more_often_does_not_change_eta_more_often():
    """Twice as many validations, the same eta: an improvement at any of them counts at the next look."""
    seldom, often = (toys.learner(variant="released", eta_epochs=4) for _ in range(2))
    values = [0.1, 0.3, 0.2, 0.3, 0.1, 0.4, 0.2, 0.4, 0.1, 0.1, 0.1, 0.1]  # best: 0.3, then 0.4, then none
    for epoch, value in enumerate(values, start=1):
        often.end_epoch({"HR@5": value})
        seldom.end_epoch({"HR@5": value} if epoch % 4 == 0 else None)
    assert often.eta == seldom.eta == pytest.approx(0.01 * 1.1 * 1.1 * 0.8)


@pytest.mark.parametrize(
    ("settings", "present"),
    [
        # Lists, not sets: parallel test processes must collect the same names in the same order.
        ({}, ["correction_cosine_last", "guidance_change", "chain_change", "score_matching", "energy_gap"]),
        ({"variant": "released"}, ["correction_ratio", "padding_above", "predicted_norm", "target_norm"]),
        ({"energy": "transformer"}, ["energy_gap"]),
        ({"energy": "none", "guidance": "none"}, ["cross_entropy", "chain_change"]),
    ],
    ids=str,
)
def test_probe_returns_one_finite_value_per_user(settings, present):
    learner = toys.learner(**settings)
    learner.module.eval()
    history_BL, user_B = toys.histories(learner)
    values = learner.probe(history_BL, user_B + 1, user_B, UserNoise.single(5, history_BL.shape[1]))
    assert set(present) <= values.keys()
    assert all(value.shape == (5,) and torch.isfinite(value).all() for value in values.values())


def test_the_learning_rate_decays_in_both_readings():
    assert {read_config({"variant": name}).decay_epochs for name in ("paper", "released")} == {100}


def test_an_h_that_is_the_same_for_all_is_told_from_one_of_the_user():
    """`guidance_change` cannot: the null condition differs from a constant, too."""
    learner = toys.learner(guidance_gain=1.0)
    learner.module.eval()
    history_BL, user_B = toys.histories(learner)

    def changes():
        values = learner.probe(history_BL, user_B + 1, user_B, UserNoise.single(5, history_BL.shape[1]))
        return [values[name] for name in ("guidance_change", "guidance_change_of_another")]

    assert all((change > 0).all() for change in changes())
    learner.module.guidance.norm.weight.data.zero_()
    of_null, of_another = changes()
    assert (of_null > 0).all() and not of_another.any()


@pytest.mark.parametrize("settings", [{"guidance": "none"}, {"guidance_of": "another"}], ids=str)
def test_without_an_h_of_ones_own_nothing_is_said_of_anothers(settings):
    learner = toys.learner(**settings)
    learner.module.eval()
    history_BL, user_B = toys.histories(learner)
    values = learner.probe(history_BL, user_B + 1, user_B, UserNoise.single(5, history_BL.shape[1]))
    assert "guidance_change_of_another" not in values


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_h_of_another_is_that_of_its_whole_window(variant):
    """Where padding is read, the amount of it must be that of training, also for one user alone."""
    learner = toys.learner(variant=variant, **toys.STILL)
    learner.module.eval()
    user_B = torch.tensor([3])
    window_BL = pad_left(learner.data.histories(learner.other_U[user_B], learner.max_len)[:, -3:], learner.max_len)
    learner.data = SimpleNamespace(histories=lambda *_: window_BL[:, -3:])
    packing = Packing([window_BL])
    expected_BD = learner.module.guide(learner.module.items(packing.item_N), packing)
    torch.testing.assert_close(learner.guide_of_another(user_B), expected_BD)


def test_correction_is_measured_against_the_way_to_the_target():
    before, change, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 2.0]])
    found = correction_terms(before, change, target)
    assert found["correction_cosine"].item() == pytest.approx(1) and found["correction_ratio"].item() == 0.5


def test_what_only_lengthens_the_prediction_goes_nowhere_across_it():
    """A short target, as small item vectors have at first: any shortening of x~ seems to lead there."""
    before = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    sideways = torch.zeros(4, 16)
    sideways[:, :2] = torch.stack([-before[:, 1], before[:, 0]], dim=1)
    target = 0.01 * sideways
    shorter, aside = (correction_terms(before, change, target) for change in (-0.1 * before, 1e-3 * sideways - before))
    assert (shorter["correction_cosine"] > 0.999).all() and not shorter["correction_cosine_across"].any()
    assert aside["correction_cosine_across"].numpy() == pytest.approx(1, abs=1e-5)


def test_probe_measures_what_is_ranked_and_which_energy_is_lower():
    learner = toys.learner(energy_layers=1)
    net = learner.module.eval()
    net.items.weight.data[0] = 50.0  # padding is not ranked, so it must not weigh in the cross-entropy
    net.energy.layers[0].weight.data.zero_()[0, 0] = 1.0  # E(x) = x_1 + b
    history_BL, user_B = toys.histories(learner)
    values = learner.probe(history_BL, user_B + 1, user_B, UserNoise.single(5, history_BL.shape[1]))
    x = learner.represent(history_BL, user_B, UserNoise.single(5, history_BL.shape[1]))
    expected = torch.nn.functional.cross_entropy(x @ net.items.weight[1:].T, user_B, reduction="none")
    torch.testing.assert_close(values["cross_entropy"], expected.detach())
    far = torch.full((5, 16), 1000.0)
    terms = energy_terms(net, None, far, net.items(user_B + 1), UserNoise.single(5, 1))
    assert (terms["energy_gap"] > 500).all()  # E(x~) far above E(y_s)


def test_steps_are_rescaled_before_the_sinusoid():
    denoiser = toys.learner().module.denoiser
    angle = 5 * 1000 / 6 * torch.exp(-math.log(10000) * torch.arange(8) / 8)
    inner = denoiser.time_inner(torch.cat([angle.cos(), angle.sin()]))
    expected = denoiser.time_outer(torch.nn.functional.silu(inner))
    torch.testing.assert_close(denoiser.embed_step(torch.tensor([5]))[0], expected, rtol=1e-4, atol=1e-5)


def test_dropout_comes_before_the_norm_of_tokens():
    """After dropout and then LayerNorm each token still has mean 0 and variance 1."""
    net = toys.learner(embedding_dropout=0.5).module.train()
    token_ND = net.tokens(net.items(torch.arange(1, 20)))
    torch.testing.assert_close(token_ND.mean(-1), torch.zeros(19), rtol=0, atol=1e-5)
    torch.testing.assert_close(token_ND.var(-1, unbiased=False), torch.ones(19), rtol=0, atol=1e-4)


def test_training_noise_is_uniform_in_t_and_independent_in_its_parts():
    noise = toys.learner(null_probability=0.2).draw(12_000)
    counts = torch.bincount(noise.step_B, minlength=6)
    assert len(counts) == 6 and (counts - 2000).abs().max() < 250
    assert noise.null_B.float().mean().item() == pytest.approx(0.2, abs=0.02)
    parts = torch.stack([part.flatten() for part in (noise.start_BD, noise.target_BD, noise.energy_BD)])
    torch.testing.assert_close(torch.corrcoef(parts), torch.eye(3), rtol=0, atol=0.02)


def test_scores_are_inner_products_with_the_generated_vector():
    learner = toys.learner()
    learner.module.eval()
    history_BL, user_B = toys.histories(learner)
    x, scores = (f(history_BL, user_B, UserNoise.single(5, 12)) for f in (learner.represent, learner.score))
    assert x.shape == (5, 16) and learner.item_table().shape == (21, 16)
    torch.testing.assert_close(scores, x @ learner.item_table().T)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidence": "none"}, "guidance"),
        ({"num_heads": 3}, "num_heads"),
        ({"num_steps": 1000}, "num_steps"),
        ({"variant": "printed"}, "variant"),
        ({"correction": -0.1}, "correction_sign"),
        ({"eta": -0.1}, "eta: -0.1 .* 0 or more"),
        ({"learning_rate": -0.1}, "learning_rate"),
        ({"beta_max": 1.0}, "beta_max: 1.0 .* between 0 and 1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        toys.learner(**settings)


@pytest.mark.parametrize(
    "settings", [{}, {"variant": "released"}, {"energy": "transformer"}, {"alignment": "wgan_gp"}], ids=str
)
def test_bf16_stays_close_to_fp32(settings):
    learner = toys.learner(**toys.STILL, **settings)
    batch = toys.batch(learner)
    noise = fixed_noise(learner, len(batch.target_B))
    exact = learner.terms(batch, noise)["loss"]
    learner.compute = Compute(precision="bf16")
    with learner.compute.autocast():
        rough = learner.terms(batch, noise)["loss"]
    rough.backward()
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)
    history_BL, user_B = toys.histories(learner)
    scores = learner.score(history_BL, user_B, UserNoise.single(5, history_BL.shape[1]))
    assert scores.dtype == torch.float32 and torch.isfinite(scores).all()
