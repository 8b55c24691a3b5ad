"""Named random streams: independent, reproducible in another process, and where they stood after a resume."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from harness import streams
from harness.digest import ROOT
from harness.streams import Streams, UserNoise, derive_seed, forked_global_stream


def test_derived_seeds_are_fixed_for_good():
    """By the written rule, spelled out again: a change here changes every number of the suite."""
    assert derive_seed(0, "init") == int.from_bytes(hashlib.sha256(b"0/init").digest()[:8], "big") >> 1
    assert 0 <= derive_seed(2**40, "x") < 2**63


def test_names_and_seeds_give_different_streams():
    assert len({Streams(seed).torch(name).initial_seed() for seed in range(5) for name in ("a", "b", "c")}) == 15


def test_drawing_from_one_stream_leaves_the_others():
    quiet, busy = Streams(1), Streams(1)
    torch.randn(1000, generator=busy.torch("noise"))
    torch.randn(1000)
    assert torch.equal(torch.randn(3, generator=quiet.torch("t")), torch.randn(3, generator=busy.torch("t")))


def test_a_stream_goes_on_where_it_stood():
    def draw(streams):
        return torch.rand(1, generator=streams.torch("a")).item()

    streams = Streams(1)
    first = draw(streams)
    assert draw(streams) != first == draw(Streams(1))


def test_another_process_with_another_hash_salt_draws_the_same():
    code = (
        "from harness.streams import Streams; import torch; "
        "print(torch.rand(1, generator=Streams(3).torch('a')).item())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    there = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True).stdout
    assert there == f"{torch.rand(1, generator=Streams(3).torch('a')).item()}\n"


def test_state_round_trip_continues_every_stream():
    streams = Streams(1)
    streams.seed_global("dropout")
    torch.randn(3, generator=streams.torch("b"))
    torch.randn(3)
    state = streams.state_dict()

    def draws(one):
        tensors = (torch.randn(2, generator=one.torch("b")), torch.randn(2), torch.rand(2, generator=one.torch("new")))
        return [value for tensor in tensors for value in tensor.tolist()]

    expected = draws(streams)
    torch.randn(77)
    other = Streams(1)
    other.load_state_dict(state)
    assert draws(other) == expected


def test_loading_a_state_moves_generators_already_handed_out():
    streams = Streams(1)
    held = streams.torch("b")
    state = streams.state_dict()
    expected = torch.randn(2, generator=held)
    streams.load_state_dict(state)
    assert torch.equal(torch.randn(2, generator=held), expected)


def test_seed_global_decides_initialisation():
    def weights(seed):
        Streams(seed).seed_global("init")
        return torch.nn.Linear(3, 3).weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_forked_global_stream_leaves_no_trace_even_after_an_error():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    with pytest.raises(KeyError), forked_global_stream():
        torch.randn(100)
        raise KeyError
    assert torch.equal(torch.randn(3), expected)


def blocks(seeds, sizes, widths):
    return UserNoise([torch.Generator().manual_seed(seed) for seed in seeds], sizes, widths)


def test_noise_of_a_block_does_not_depend_on_its_companions():
    together = blocks([1, 2, 3], [4, 4, 2], [5, 3, 7])
    alone = blocks([2], [4], [3])
    for _ in range(3):
        assert torch.equal(together.normal(6)[4:8], alone.normal(6))
        wide, narrow = together.normal_per_position(7, 2)[4:8], alone.normal_per_position(3, 2)
        assert torch.equal(wide[:, -3:], narrow)
        assert (wide[:, :-3] == 0).all()


def test_noise_per_position_is_cut_to_a_shorter_window_and_drawn_in_full_on_demand():
    assert blocks([1], [2], [9]).normal_per_position(4, 3).shape == (2, 4, 3)
    full = blocks([1], [2], [3]).normal_per_position(8, 3, full=True)
    assert (full != 0).all()


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("tokens", [1, 5, 100])
def test_packed_users_draw_what_padded_users_draw(monkeypatch, trim, tokens):
    history = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 2], [0, 0, 0, 3], [0, 1, 2, 3], [1, 2, 3, 4]])
    seeds, sizes, widths = [1, 2], [3, 2], [2, 4]
    padded = blocks(seeds, sizes, widths).normal_per_position(4, 2, full=not trim)
    monkeypatch.setattr(streams, "TOKENS_AT_ONCE", tokens)
    seen = []
    for rows, packing, noise in blocks(seeds, sizes, widths).parts(history, trim=trim):
        drawn = noise.normal_per_token(packing, 2, full=not trim)
        real = packing.item_N > 0
        assert torch.equal(drawn[real], padded[rows][history[rows] > 0])
        assert torch.equal(packing.item_N[packing.last_B], history[rows, -1])
        seen += range(5)[rows]
    assert seen == [0, 1, 2, 3, 4]


def test_elsewhere_than_on_a_cpu_a_batch_stays_whole_and_loses_only_common_padding():
    """A single block padded further must still draw what it draws unpadded."""
    history = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 3]])
    for trim, width in ((True, 2), (False, 4)):
        ((rows, packing, _),) = blocks([1], [2], [2]).parts(history.to("meta"), trim=trim)
        assert rows == slice(0, 2) and [part.shape for part in packing.histories] == [(2, width)]


def test_noise_is_standard_normal_and_differs_between_users():
    draw = UserNoise.single(200, 10).normal(50)
    assert abs(float(draw.mean())) < 0.05 and abs(float(draw.std()) - 1) < 0.03
    assert len(np.unique(draw[:, 0].numpy())) == 200
