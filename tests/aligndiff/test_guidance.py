"""Guidance: orthogonality that training cannot break, causality, the released reading of h, the null condition."""

from itertools import islice

import numpy as np
import pytest
import torch

from aligndiff.config import read_config
from aligndiff.guidance import query_index, readable_keys
from aligndiff.network import AlignDiff
from harness.methods import load_method
from harness.packing import Packing
from harness.split import Sequences, drop_first_item, leave_one_out
from harness.tiles import tiled
from tests.aligndiff import oracle, toys


def guide(net, history):
    packing = Packing([history])
    return net.guide(net.items(packing.item_N), packing)


def off_identity(matrix):
    return (matrix.T @ matrix - torch.eye(len(matrix))).abs().max().item()


@pytest.mark.parametrize("orthogonal_map", ["cayley", "matrix_exp"])
def test_attention_projections_stay_orthogonal(orthogonal_map):
    learner = toys.learner(orthogonal_map=orthogonal_map, embedding_dim=64)
    guidance = learner.module.guidance
    before = [basis().detach().clone() for basis in (guidance.query_basis, guidance.key_basis)]
    for batch in islice(learner.batches(), 8):
        learner.training_step(batch)
    for basis, old in zip((guidance.query_basis, guidance.key_basis), before, strict=True):
        assert off_identity(basis().detach()) < 1e-5
        assert (basis() - old).abs().max() > 1e-3  # it did learn
        blocks = basis().detach().unflatten(1, (2, -1))  # U_i are column blocks: U_i^T U_j = delta_ij I
        assert (blocks[:, 0].T @ blocks[:, 1]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["orthogonal", "ordinary"])
def test_guidance_of_tiles_is_that_of_padded_rows(kind):
    net = toys.learner(guidance=kind, guidance_heads=2, **toys.STILL).module
    history_BL = torch.tensor([[0, 0, 0, 4], [0, 5, 6, 7], [8, 9, 1, 2], [0, 0, 3, 3]])
    tiles = tiled(history_BL, (history_BL > 0).sum(1))
    expected_BD, found_BD = guide(net, history_BL), net.guide(net.items(tiles.item_N), tiles)
    torch.testing.assert_close(found_BD, expected_BD, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(expected_BD)
    parameters = [p for p in net.guidance.parameters() if p.requires_grad]
    gradients = [
        torch.autograd.grad((h_BD * weights).sum(), parameters, allow_unused=True) for h_BD in (expected_BD, found_BD)
    ]
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_free_projections_absorb_the_orthogonal_maps():
    """What the audit says of eq 3: with U and V put into W_Q and W_K, the identity in their place gives the same h."""
    net, history = toys.learner(**toys.STILL).module, torch.tensor([[0, 0, 3, 4, 5, 6], [1, 2, 3, 4, 8, 9]])
    expected = guide(net, history)
    guidance = net.guidance
    for projection, basis in ((guidance.query, guidance.query_basis), (guidance.key, guidance.key_basis)):
        matrix = basis().detach().clone()
        projection.weight.data = matrix.T @ projection.weight.data
        basis.linear.weight = torch.eye(len(matrix))
        assert (matrix - basis()).abs().max() > 0.1
    torch.testing.assert_close(guide(net, history), expected, rtol=1e-5, atol=1e-6)


def test_orthogonal_also_under_bf16_autocast():
    basis = toys.learner(embedding_dim=64).module.guidance.query_basis
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matrix = basis().detach()
    assert matrix.dtype == torch.float32 and off_identity(matrix) < 1e-5


@pytest.mark.parametrize("kind", ["orthogonal", "ordinary"])
def test_guidance_reads_nothing_after_its_position(kind):
    net = toys.learner(guidance=kind, **toys.STILL).module
    history = torch.tensor([[0, 0, 3, 4, 5, 6]])
    changed = history.clone()
    changed[0, 4:] = torch.tensor([9, 10])

    def features(items, index):
        packing = Packing([items])
        x_ND = net.guidance.place(net.items(packing.item_N), packing)
        masks = [readable_keys(items > 0, torch.tensor([index]), "real")]
        return net.guidance.at(packing.first_B + index, x_ND, packing, masks, net.item_norm)

    for index in (2, 3):
        torch.testing.assert_close(features(changed, index), features(history, index))
    for index in (4, 5):
        assert (features(changed, index) - features(history, index)).abs().max() > 1e-4


def test_every_position_matches_the_equations():
    net = toys.learner(**toys.STILL).module
    history = torch.tensor([[0, 0, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]])
    expected = oracle.guidance(net, history)
    packing = Packing([history])
    x_ND = net.guidance.place(net.items(packing.item_N), packing)
    for index in range(2, 6):
        masks = [readable_keys(history > 0, torch.full((2,), index), "real")]
        got = net.guidance.at(packing.first_B + index, x_ND, packing, masks, net.item_norm)
        torch.testing.assert_close(got, expected[:, index], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reading", ["length", "last"])
def test_released_guidance_matches_the_released_code_written_out(reading):
    learner = toys.learner(variant="released", guidance_index=reading, **toys.STILL)
    net = learner.module
    for parameter in (*net.guidance.parameters(), *net.item_norm.parameters()):  # no unit gains, no zero biases
        parameter.data += 0.3 * torch.randn_like(parameter)
    history = torch.zeros(3, learner.max_len, dtype=torch.long)
    history[0, -3:] = torch.tensor([3, 4, 5])
    history[1, -8:] = torch.arange(5, 13)
    history[2] = torch.arange(1, 13)
    expected = oracle.released_guidance(net, history, query_index(history > 0, reading))
    torch.testing.assert_close(guide(net, history), expected, rtol=1e-4, atol=1e-5)


def test_padding_is_read_only_where_that_is_chosen():
    history = torch.tensor([[0, 0, 0, 3, 4, 5]])
    for keys, changes in (("real", False), ("all", True)):
        net = toys.learner(guidance_keys=keys, **toys.STILL).module
        before = guide(net, history)
        net.items.weight.data[0] += 1
        assert bool((guide(net, history) - before).abs().max() > 1e-5) == changes


def test_released_h_is_one_constant_for_short_histories():
    learner = toys.learner(variant="released", **toys.STILL)
    net, width = learner.module, learner.max_len
    history = torch.zeros(3, width, dtype=torch.long)
    history[0, -2:] = torch.tensor([3, 4])
    history[1, -6:] = torch.tensor([7, 8, 9, 10, 11, 12])  # index 5 is still padding in a row of 12
    history[2, -7:] = torch.arange(1, 8)
    h = guide(net, history)
    torch.testing.assert_close(h[0], h[1], rtol=0, atol=0)
    torch.testing.assert_close(h[0], net.guidance.norm.bias, rtol=0, atol=0)
    assert (h[2] - h[0]).abs().max() > 0.1
    assert constant_guidance_fraction(np.array([2, 6, 7]), width) == pytest.approx(2 / 3)
    mended = toys.learner(variant="released", guidance_index="last", **toys.STILL).module
    assert (guide(mended, history).diff(dim=0).abs().max(1).values > 0.1).all()
    assert query_index(history > 0, "length").tolist() == [1, 5, 6]


def constant_guidance_fraction(lengths_N, max_len=50):
    """Share of inputs whose released h is one constant vector: those whose index len - 1 is a padding position."""
    length_N = np.minimum(lengths_N, max_len)
    return float((length_N - 1 < max_len - length_N).mean())


@pytest.mark.parametrize(
    ("dataset", "train", "test", "test_without_first"),
    [("beauty", 91.96, 97.04, 97.29), ("toys", 92.33, 97.16, 97.39), ("ml-1m", 15.08, 9.16, 10.25)],
)
def test_share_of_inputs_with_constant_released_guidance(shared_dir, dataset, train, test, test_without_first):
    with open(shared_dir / "data" / f"{dataset}.sequences.txt", encoding="utf-8") as file:
        split = leave_one_out(Sequences.from_lists([[int(item) for item in line.split()[1:]] for line in file]))
    whole = split.history("test")
    prefixes = np.concatenate([np.arange(1, length) for length in split.train.lengths])
    shares = [constant_guidance_fraction(each) for each in (prefixes, whole.lengths, drop_first_item(whole).lengths)]
    assert [round(100 * share, 2) for share in shares] == [train, test, test_without_first]


def test_null_condition_is_used_in_training_and_inference():
    learner = toys.learner(null_probability=1.0)
    learner.training_step(toys.batch(learner))
    assert learner.module.null.grad.abs().sum() > 0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in learner.module.guidance.parameters())
    learner = toys.learner(null_probability=0.0)
    learner.training_step(toys.batch(learner))
    assert learner.module.null.grad is None or learner.module.null.grad.abs().sum() == 0


def share_of_the_user(method):
    """How much of h differs between random histories at the start: E || h - E h ||^2 / E || h ||^2."""
    torch.manual_seed(0)
    net = AlignDiff(read_config(load_method(method).resolved("beauty")["model"]), num_items=2000).eval()
    with torch.no_grad():
        h_BD = guide(net, torch.randint(1, 2001, (256, 9)))
    return ((h_BD - h_BD.mean(0)).square().sum() / h_BD.square().sum()).item()


@pytest.mark.parametrize(
    ("method", "least"), [("aligndiff", 0.3), ("aligndiff.tuned", 0.1), ("aligndiff.tuned.released.keys", 0.3)]
)
def test_h_is_of_the_user_at_the_start(method, least):
    assert share_of_the_user(method) > least


def test_positions_larger_than_the_items_leave_nothing_of_the_user():
    """Why the tuned start makes both small; the committed runs of before 2026-11-29 had this one."""
    assert share_of_the_user("aligndiff.tuned.large_positions") < 0.001
