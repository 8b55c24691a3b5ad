"""The chunked cross-entropy equals torch's own, with its gradients, at any chunk size, precision and scale."""

import math

import pytest
import torch

from harness import losses
from harness.losses import binary_cross_entropy, plain_softmax_cross_entropy, softmax_cross_entropy


def example(rows=50, items=83, dim=8, scale=1.0, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = (scale * torch.randn(rows, dim, generator=generator)).to(dtype).requires_grad_()
    table = torch.randn(items, dim, generator=generator).to(dtype).requires_grad_()
    return query, table, torch.randint(1, items, (rows,), generator=generator)


def with_gradients(function, query, table, target, weight=1.0, **options):
    loss = function(query, table, target, **options)
    return loss.detach(), *torch.autograd.grad(weight * loss, (query, table))


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("budget", [1, 4 * 83 * 17, 4 << 20])
@pytest.mark.parametrize("rows", [1, 16, 50])
def test_chunked_equals_plain(monkeypatch, padding, budget, rows):
    monkeypatch.setitem(losses.CHUNK_BYTES, "cpu", budget)
    monkeypatch.setattr(losses, "LEAST_ROWS", 16)
    arguments = example(rows)
    found = with_gradients(softmax_cross_entropy, *arguments, weight=3.0, padding=padding)
    expected = with_gradients(plain_softmax_cross_entropy, *arguments, weight=3.0, padding=padding)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_gradients_agree_with_finite_differences():
    """Scores are fp32 by design, so the steps are coarse; gradcheck's own tolerance would ask for float64."""
    query, table, target = example(6, 9, 3)
    _, grad_query, grad_table = with_gradients(softmax_cross_entropy, query, table, target)
    for leaf, grad in ((query, grad_query), (table, grad_table)):
        for place in range(leaf.numel()):
            values = []
            for step in (1e-2, -1e-2):
                with torch.no_grad():
                    leaf.view(-1)[place] += step
                    values.append(float(softmax_cross_entropy(query, table, target)))
                    leaf.view(-1)[place] -= step
            assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(grad.view(-1)[place]), abs=2e-4)


def test_by_hand():
    query = torch.tensor([[1.0]])
    table = torch.tensor([[5.0], [0.0], [math.log(3.0)]])
    assert float(softmax_cross_entropy(query, table, torch.tensor([2]))) == pytest.approx(math.log(4 / 3))
    everything = math.log((math.exp(5) + 4) / 3)
    assert float(softmax_cross_entropy(query, table, torch.tensor([2]), padding=True)) == pytest.approx(everything)


def test_padding_row_gets_a_gradient_only_as_a_class():
    arguments = example()
    assert (with_gradients(softmax_cross_entropy, *arguments)[2][0] == 0).all()
    assert (with_gradients(softmax_cross_entropy, *arguments, padding=True)[2][0] != 0).any()


def test_zero_scores_cost_the_logarithm_of_the_catalogue():
    query, table, target = torch.zeros(5, 4), torch.randn(101, 4), torch.arange(1, 6)
    assert float(softmax_cross_entropy(query, table, target)) == pytest.approx(math.log(100))


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_scores_stay_finite(scale):
    arguments = example(scale=scale)
    found = with_gradients(softmax_cross_entropy, *arguments)
    expected = with_gradients(plain_softmax_cross_entropy, *arguments)
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * scale)


def test_autocast_and_half_precision_stay_close():
    arguments = example(rows=20, dim=16)
    expected = with_gradients(softmax_cross_entropy, *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradients(softmax_cross_entropy, *arguments)
        half = with_gradients(softmax_cross_entropy, arguments[0].bfloat16(), *arguments[1:])
    for name, one in (("autocast", found), ("bf16 queries", half)):
        assert one[0].dtype == torch.float32, name
        assert float(one[0]) == pytest.approx(float(expected[0]), rel=2e-2), name
        assert one[2].dtype == torch.float32
        torch.testing.assert_close(one[2], expected[2], rtol=0.1, atol=5e-3)


def test_nothing_is_kept_when_no_gradient_is_asked_for():
    query, table, target = example()
    with torch.no_grad():
        assert not softmax_cross_entropy(query, table, target).requires_grad


def test_nan_reaches_the_loss():
    query, table, target = example()
    with torch.no_grad():
        query[3, 0] = float("nan")
    assert math.isnan(float(softmax_cross_entropy(query, table, target).detach()))


def test_binary_cross_entropy_by_hand_and_at_extremes():
    zero = torch.zeros(3)
    torch.testing.assert_close(binary_cross_entropy(zero, zero), torch.full((3,), 2 * math.log(2)))
    loss = binary_cross_entropy(torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4]))
    assert loss.tolist() == [0.0, 2e4]
    positive, negative = torch.tensor([0.3]), torch.tensor([-0.7])
    expected = -torch.log(torch.sigmoid(positive)) - torch.log(1 - torch.sigmoid(negative))
    torch.testing.assert_close(binary_cross_entropy(positive, negative), expected)
