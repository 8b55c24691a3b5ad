"""The number of threads may change the order of sums in training, and nothing at all of how users are ranked."""

import threading

import pytest
import torch

from harness.compute import Compute, evaluation_mode
from harness.methods import build_learner, load_method
from harness.products import RoundedProducts
from harness.ranking import BLOCK, Evaluator
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


def scores(learner):
    """Scores of all users as the evaluator asks for them, several batches at a time, and their ranks."""
    found = torch.empty(SPLIT.num_users, SPLIT.num_items + 1)

    def score(history_BL, user_B, noise):
        assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
        found[user_B] = learner.score(history_BL, user_B, noise)
        return found[user_B]

    history, target_U = SPLIT.history("test"), SPLIT.target_U("test")
    evaluator = Evaluator(history, target_U, seed=1, part="test", max_len=learner.max_len, batch_size=64)
    with evaluation_mode(learner.module):
        ranks = evaluator.ranks(score)
    return found, torch.from_numpy(ranks.kept_U)


METHODS = ("sasrec.tuned", "diffurec", "diffurec.keys", "aligndiff")


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients(on_threads, method):
    one, two = (on_threads(count, lambda: gradient(method)) for count in (1, 2))
    assert float(one[0]) == pytest.approx(float(two[0]), rel=1e-6)
    assert (one - two).norm() < 1e-5 * one.norm()


@pytest.mark.parametrize("method", METHODS)
def test_scores_and_ranks(on_threads, method):
    learner = learner_of(method)
    (one, rank_U), *others = (on_threads(count, lambda: scores(learner)) for count in (1, 2, 3))
    for other, other_U in others:
        assert torch.equal(one, other) and torch.equal(rank_U, other_U)


@pytest.mark.parametrize("way", ["ranks", "representations", "averages"])
def test_a_failing_batch_ends_the_evaluation_and_leaves_the_threads_as_they_were(on_threads, way):
    asked = []

    def fails(*arguments):
        asked.append(arguments)
        raise ZeroDivisionError

    evaluator = Evaluator(SPLIT.history("val"), SPLIT.target_U("val"), seed=1, part="val", max_len=9, batch_size=1)
    with pytest.raises(ZeroDivisionError):
        on_threads(2, lambda: getattr(evaluator, way)(fails))
    assert 1 <= len(asked) <= -(-SPLIT.num_users // BLOCK)
    assert torch.get_num_threads() == 2


def test_emulated_products_stay_on_the_thread_that_emulates_them(on_threads):
    evaluator = Evaluator(SPLIT.history("val"), SPLIT.target_U("val"), seed=1, part="val", max_len=9, batch_size=64)
    seen = set()

    def score(history_BL, user_B, noise):
        seen.add(threading.current_thread())
        return noise.normal(SPLIT.num_items + 1)

    with RoundedProducts():
        on_threads(2, lambda: evaluator.ranks(score))
    assert seen == {threading.current_thread()}
    seen.clear()
    on_threads(2, lambda: evaluator.ranks(score))
    assert threading.current_thread() not in seen
