"""The number of threads may change the order of sums and nothing else: loss, gradients and scores agree to rounding."""

import pytest
import torch

from harness.compute import Compute, evaluation_mode
from harness.methods import build_learner, load_method
from harness.ranking import Evaluator
from harness.split import leave_one_out
from harness.streams import Streams
from harness.synthetic import random_walk

# Large enough for torch to share the work out: it keeps fewer than 32768 elements on one thread.
SPLIT = leave_one_out(random_walk(num_users=300, num_items=200, min_length=4, max_length=30))
SIZES = {"embedding_dim": 64, "num_blocks": 2, "batch_size": 512}
CHAIN = {"num_steps": 8}


@pytest.fixture
def on_threads():
    """Run a call on so many threads, and leave torch as it was."""
    before = torch.get_num_threads()

    def run(count, call):
        torch.set_num_threads(count)
        assert torch.get_num_threads() == count
        return call()

    yield run
    torch.set_num_threads(before)


def learner_of(method):
    model = SIZES | ({} if method == "sasrec.tuned" else CHAIN)
    settings = load_method(method).resolved("beauty", {"model": model})
    return build_learner(settings, SPLIT.training_view(), Streams(1), Compute())


def gradient(method):
    """Loss and gradient of a first training batch, dropout included."""
    learner = learner_of(method)
    learner.module.train()
    loss = learner.loss(next(iter(learner.batches())))["loss"]
    loss.backward()
    parts = [p.grad.flatten() for p in learner.module.parameters() if p.grad is not None]
    return torch.cat([loss.detach()[None], *parts])


def scores(method):
    """Scores of all users as the evaluator asks for them, and their ranks."""
    learner, kept = learner_of(method), []

    def score(*arguments):
        kept.append(learner.score(*arguments))
        return kept[-1]

    evaluator = Evaluator(SPLIT.history("test"), SPLIT.target_U("test"), seed=1, part="test", max_len=learner.max_len)
    with evaluation_mode(learner.module):
        ranks = evaluator.ranks(score)
    return torch.cat(kept), torch.from_numpy(ranks.kept_U)


METHODS = ("sasrec.tuned", "diffurec", "diffurec.keys", "aligndiff")


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients(on_threads, method):
    one, two = (on_threads(count, lambda: gradient(method)) for count in (1, 2))
    assert float(one[0]) == pytest.approx(float(two[0]), rel=1e-6)
    assert (one - two).norm() < 1e-5 * one.norm()


@pytest.mark.parametrize("method", METHODS)
def test_scores_and_ranks(on_threads, method):
    (one, rank_U), (two, other_U) = (on_threads(count, lambda: scores(method)) for count in (1, 2))
    assert (one - two).norm() < 1e-5 * one.norm()
    # Only scores that agree to the last digits may swap places.
    assert (rank_U != other_U).float().mean() < 0.02 and (rank_U - other_U).abs().max() <= 1
