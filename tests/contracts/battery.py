"""The battery every method passes: build a toy run from a method's configuration and check what all must keep."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from harness.compute import Compute
from harness.fit import FitPlan, evaluate, fit
from harness.learner import Learner
from harness.methods import Method, build_learner
from harness.ranking import BLOCK, Evaluator, Ranks
from harness.split import Split, leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import chain


def toy_split(num_users: int = 60, num_items: int = 20, seed: int = 0) -> Split:
    return leave_one_out(chain(num_users=num_users, num_items=num_items, seed=seed), dataset="toy")


def build(method: Method, split: Split, seed: int = 1) -> tuple[Learner, Streams]:
    streams = Streams(seed)
    settings = {"builder": method.builder, "model": method.model}
    return build_learner(settings, split.training_view(), streams, Compute()), streams


def train(method: Method, split: Split, *, seed: int = 1, **plan: object) -> Learner:
    learner, streams = build(method, split, seed)
    fit(learner, split, replace(FitPlan(max_epochs=2), **plan), streams)
    return learner


def scores(learner: Learner, history_BL: torch.Tensor, user_B: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    """Scores of all real items with dropout off and the noise of one block."""
    noise = UserNoise.single(len(user_B), int((history_BL > 0).sum(1).max()), seed=seed)
    learner.module.eval()
    with torch.no_grad():
        return learner.score(history_BL, user_B, noise)[:, 1:]


def require_same(
    found: Mapping[str, torch.Tensor] | torch.Tensor,
    expected: Mapping[str, torch.Tensor] | torch.Tensor,
    message: str,
    *,
    tolerance: float = 0.0,
) -> None:
    """Scores, or weights by name.  message: what they depend on if they differ, and where to look."""
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance, msg=lambda details: f"{message}\n{details}"
    )


def ranks(learner: Learner, split: Split, *, part: str = "test", batch_size: int = 1024) -> Ranks:
    evaluator = Evaluator(
        split.history(part),
        split.target_U(part),
        seed=7,
        part=part,
        max_len=learner.max_len,
        batch_size=batch_size,
    )
    learner.module.eval()
    return evaluator.ranks(learner.score)


def histories(split: Split, users: list[int], max_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [split.history("test").of_user(user)[-max_len:] for user in users]
    width = max(map(len, rows))
    history = np.zeros((len(rows), width), dtype=np.int64)
    for row, items in zip(history, rows, strict=True):
        row[width - len(items) :] = items
    return torch.from_numpy(history), torch.tensor(users)


def check_scores_are_finite(method: Method) -> None:
    split = toy_split()
    learner, _ = build(method, split)
    history, users = histories(split, [0, 1, 2], learner.max_len)
    result = scores(learner, history, users)
    assert result.shape == (3, split.num_items), "one score per item, after a column for padding"
    assert torch.isfinite(result).all()


def check_padding_and_batch_mates_do_not_matter(method: Method) -> None:
    """A user alone, with others, and with more padding scores the same, up to rounding."""
    split = toy_split(num_users=150)  # three blocks of users
    learner, _ = build(method, split)
    width = max(1, min(learner.max_len - 1, 9))  # one less than it may be, for padding to be added
    history, users = histories(split, [3, 4, 5, 6], width)
    history[1, :-1] = 0  # a short one among longer ones
    together = scores(learner, history, users)
    padded = torch.nn.functional.pad(history, (min(3, learner.max_len - history.shape[1]), 0))
    more = "the width of the padding changes a score: does score() count, average or attend to items 0?"
    require_same(scores(learner, padded, users), together, more, tolerance=1e-4)
    in_one_batch = score_user_by_user(learner, history, users, slice(0, 4))
    for row in range(4):
        alone = score_user_by_user(learner, history, users, slice(row, row + 1))
        mates = "a user's score changes with who else is in the batch, or with the padding that they bring"
        require_same(alone, in_one_batch[row : row + 1], mates, tolerance=1e-4)
    small, large = (ranks(learner, split, batch_size=size).kept_U for size in (64, 1024))
    np.testing.assert_array_equal(small, large)


def score_user_by_user(learner: Learner, history_BL: torch.Tensor, user_B: torch.Tensor, rows: slice) -> torch.Tensor:
    """Scores of some rows in one batch, where every user has a noise generator of its own."""
    history_BL, user_B = history_BL[rows], user_B[rows]
    lengths = (history_BL > 0).sum(1).tolist()
    generators = [torch.Generator().manual_seed(user) for user in user_B.tolist()]
    with torch.no_grad():
        noise = UserNoise(generators, [1] * len(lengths), lengths)
        return learner.score(history_BL[:, -max(lengths) :], user_B, noise)[:, 1:]


def check_item_ids_carry_no_meaning(method: Method) -> None:
    """Other numbers for the items, in data and tables, give the same scores under those numbers."""
    split = toy_split(num_items=41)  # no layer of a toy has 41 to 43 rows, only what belongs to items
    new_I = torch.cat(
        [torch.zeros(1, dtype=torch.long), torch.randperm(41, generator=torch.Generator().manual_seed(0)) + 1]
    )
    renumbered = renumber(split, new_I.numpy())
    (learner, _), (other, _) = build(method, split), build(method, renumbered)
    other_state = other.module.state_dict()
    for name, table in learner.module.state_dict().items():
        other_state[name].copy_(table)
        if table.dim() and 41 <= len(table) <= 43:
            first = 1 if len(table) == 41 else 0  # a table without a row for padding
            other_state[name][new_I[first:] - first] = table[: 42 - first]
    history, users = histories(split, [3, 4, 5, 6], min(learner.max_len, 9))
    before, after = scores(learner, history, users), scores(other, new_I[history], users)
    same = "items under other numbers get other scores: does score() use an id as a number?"
    require_same(after[:, new_I[1:] - 1], before, same, tolerance=1e-4)


def renumber(split: Split, new_I: np.ndarray) -> Split:
    return replace(
        split,
        train=replace(split.train, items=new_I[split.train.items].astype(np.int32)),
        val_target_U=new_I[split.val_target_U].astype(np.int32),
        test_target_U=new_I[split.test_target_U].astype(np.int32),
    )


def check_evaluation_is_deterministic(method: Method) -> None:
    split = toy_split()
    learner, _ = build(method, split)
    np.testing.assert_array_equal(ranks(learner, split).kept_U, ranks(learner, split).kept_U)


def check_threads_do_not_matter(method: Method) -> None:
    """Several threads rank batches of users side by side: nobody finds what one thread would not have found."""
    split = toy_split(num_users=4 * BLOCK + 9)
    learner, _ = build(method, split)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(ranks(learner, split, batch_size=BLOCK))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0].kept_U, found[1].kept_U)
    np.testing.assert_array_equal(found[0].hidden_U, found[1].hidden_U)


def check_build_is_seeded(method: Method) -> None:
    """Two builds with one seed start from the same weights, whatever was drawn before; else other checks fail, too."""
    split = toy_split()
    first, second = (build(method, split)[0].module.state_dict() for _ in range(2))
    seeded = (
        "weights differ before training: does build() call streams.seed_global('init') before it makes the network?"
    )
    require_same(second, first, seeded)


def check_seed_decides(method: Method) -> None:
    """Same seed, same weights after training; another seed, other weights."""
    split = toy_split()
    first, second, other = (train(method, split, seed=seed).module.state_dict() for seed in (1, 1, 2))
    require_same(second, first, "the same seed trains other weights: is something drawn outside streams.torch(name)?")
    learned = [name for name, value in first.items() if value.is_floating_point()]
    assert not learned or any(not torch.equal(first[name], other[name]) for name in learned)


def check_evaluation_frequency_does_not_change_training(method: Method) -> None:
    split = toy_split()
    often, streams = build(method, split)
    rarely, other = build(method, split)
    for learner, source, times in ((often, streams, 3), (rarely, other, 0)):
        source.seed_global("dropout")
        evaluator = Evaluator(split.history("val"), split.target_U("val"), seed=1, part="val", max_len=learner.max_len)
        for _ in range(2):
            learner.module.train()
            for batch in learner.batches():
                learner.training_step(batch)
            for _ in range(times):
                evaluate(learner, evaluator, "kept")
    changed = "validating changed the training: does score() draw from a stream of the training, or change the learner?"
    require_same(rarely.module.state_dict(), often.module.state_dict(), changed)


def check_state_round_trips(method: Method) -> None:
    """A learner restored from another's state goes on exactly as the other does."""
    split = toy_split()
    learner, streams = build(method, split)
    streams.seed_global("dropout")
    _epoch(learner)
    saved = copy.deepcopy((learner.state_dict(), streams.state_dict()))
    _epoch(learner)
    restored, other = build(method, split)
    restored.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    _epoch(restored)
    lost = (
        "a resumed training takes another way: does state_dict() hold all that training_step() and end_epoch() change?"
    )
    require_same(restored.module.state_dict(), learner.module.state_dict(), lost)


def _epoch(learner: Learner) -> None:
    learner.module.train()
    for batch in learner.batches():
        learner.training_step(batch)
    learner.end_epoch(None)


def check_learns_a_deterministic_chain(
    method: Method, *, epochs: int = 60, at_least: float = 0.9, within: int = 1
) -> None:
    """HR@`within` on the validation items of "next = current + 1" sequences.

    Losses with sampled negatives need a wider `within`: a user's own items are never negatives, so nothing tells
    the next item from the one after it.
    """
    split = toy_split(num_users=200, num_items=40)
    learner = train(method, split, max_epochs=epochs, eval_every=10, patience=100)
    hit = (ranks(learner, split, part="val").kept_U <= within).mean()
    assert hit >= at_least, (
        f"HR@{within} is {hit:.2f}, not {at_least}, on a fully predictable chain after {epochs} epochs; if the method "
        "is right, `chain` in its file of tests/contracts/toy has epochs, at_least and within"
    )


def check_held_out_targets_are_not_read(method: Method) -> None:
    """Updates see neither validation nor test targets: changing both changes no weight."""
    split = toy_split()
    changed = replace(
        split,
        val_target_U=np.full_like(split.val_target_U, 1),
        test_target_U=np.full_like(split.test_target_U, 2),
    )
    first, second = (_weights_after_one_epoch(method, each) for each in (split, changed))
    require_same(second, first, "held-out targets change the training: what beside view.train does it read?")


def _weights_after_one_epoch(method: Method, split: Split) -> dict[str, torch.Tensor]:
    learner, streams = build(method, split)
    streams.seed_global("dropout")
    _epoch(learner)
    return learner.module.state_dict()
