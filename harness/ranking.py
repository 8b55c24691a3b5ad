"""From scores to the rank of each user's target, for all users, seen items kept and hidden in one pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.products import emulating
from harness.split import Sequences
from harness.streams import UserNoise, derive_seed
from harness.windows import ResidentSequences

log = logging.getLogger(__name__)

BLOCK = 64  # users that share one noise generator; part of the protocol, not a tuning knob
SCORE_BYTES = {"cpu": 12 << 20, "cuda": 512 << 20}  # most memory that one batch of scores may take
COUNT_BYTES = {"cpu": 2 << 20, "cuda": 512 << 20}  # comparisons at a time: what stays in a cache, what fills a GPU

ScoreFn = Callable[[Tensor, Tensor, UserNoise], Tensor]
ProbeFn = Callable[[Tensor, Tensor, Tensor, UserNoise], dict[str, Tensor]]


class NotFiniteError(ValueError):
    """Scores that cannot be ranked because they hold NaN."""


@dataclass(frozen=True)
class Ranks:
    """1-based rank of each user's target among all items; with seen items as candidates and without them."""

    kept_U: NDArray[np.int32]
    hidden_U: NDArray[np.int32]


def _on(device: torch.device, sizes: dict[str, int]) -> int:
    """The size for this kind of device; unknown ones are taken for GPUs."""
    return sizes.get(device.type, sizes["cuda"])


def rank_of_target(score_BI: Tensor, target_B: Tensor) -> Tensor:
    """1-based rank of each target in its row.  [B, I], [B] -> [B]

    Ties count against the target, so a constant scorer comes last instead of first. Column 0 (padding) is no
    candidate. Raises NotFiniteError on NaN: comparisons with NaN would otherwise put the target first.

    Few rows at a time are compared, into one fp32 buffer: comparing to bool and counting those casts every element once
    more. Sums of ones are exact in fp32 up to 2^24, more items than any catalogue here.
    """
    count = score_BI.shape[1] - 1
    assert count < 2**24, "too many items to be counted in fp32"
    rows = max(1, _on(score_BI.device, COUNT_BYTES) // (4 * count))
    above_RI = score_BI.new_empty(min(rows, len(score_BI)), count, dtype=torch.float32)
    highest, rank = [], []
    for score_RI, own_R1 in zip(score_BI.split(rows), score_BI.gather(1, target_B[:, None]).split(rows), strict=True):
        candidate_RI = score_RI[:, 1:]
        highest.append(candidate_RI.amax(1))  # NaN if any score is
        rank.append(torch.ge(candidate_RI, own_R1, out=above_RI[: len(candidate_RI)]).sum(1))
    if torch.isnan(torch.cat(highest)).any():
        raise NotFiniteError("scores contain NaN; the model has diverged")
    return torch.cat(rank).long()


def seen_above(score_BI: Tensor, target_B: Tensor, seen_BS: Tensor) -> Tensor:
    """How many distinct seen items stand at or above the target.  seen_BS is padded with 0; [B]

    The target itself is never counted, even if it was seen.
    """
    at_or_above_BS = score_BI.gather(1, seen_BS) >= score_BI.gather(1, target_B[:, None])
    ordered_BS, order_BS = seen_BS.sort(dim=1)
    first_BS = torch.ones_like(ordered_BS, dtype=torch.bool)
    first_BS[:, 1:] = ordered_BS[:, 1:] != ordered_BS[:, :-1]
    counts_BS = first_BS & (ordered_BS > 0) & (ordered_BS != target_B[:, None])
    return (at_or_above_BS.gather(1, order_BS) & counts_BS).sum(1)


class Evaluator:
    """Ranks the targets of users; what is the same in every evaluation is prepared once.

    history: items known when the target is predicted. They are the model's input and the seen items.
    inputs:  what the model reads instead of `history`, if it differs (the released AlignDiff drops an item).
    users:   rows to evaluate, default all; results come in this order.
    """

    def __init__(
        self,
        history: Sequences,
        target_U: NDArray[np.integer],
        *,
        seed: int,
        part: str,
        max_len: int,
        batch_size: int = 1024,
        users: NDArray[np.integer] | None = None,
        inputs: Sequences | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._seen = ResidentSequences.of(history, device)
        self._inputs = self._seen if inputs is None else ResidentSequences.of(inputs, device)
        self._target_U = torch.from_numpy(np.asarray(target_U, dtype=np.int64)).to(device)
        users = np.arange(history.num_users) if users is None else np.asarray(users)
        by_length = np.argsort((inputs or history).lengths[users], kind="stable")
        self._order = by_length
        self._users = torch.from_numpy(users[by_length].astype(np.int64)).to(device)
        self._seed, self._part, self._max_len = seed, part, max_len
        fitting = _on(self._device, SCORE_BYTES) // (4 * (history.num_items + 1))
        self._batch_size = max(BLOCK, min(batch_size, fitting) // BLOCK * BLOCK)

    @torch.no_grad()
    def ranks(self, score: ScoreFn) -> Ranks:
        """Rank every target with `score(history_BL, user_B, noise) -> score_BI`."""
        kept, hidden = zip(*self._batches(lambda begin: self._rank_batch(score, begin)), strict=True)
        return Ranks(self._restore(torch.cat(kept)), self._restore(torch.cat(hidden)))

    def oracle_score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        """Scores that know the target: 1 for it, 0 for the rest. Every metric of them must be 1."""
        size = self._seen.num_items + 1
        return torch.nn.functional.one_hot(self._target_U[user_B], size).float()

    @torch.no_grad()
    def representations(self, represent: ScoreFn) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What `represent(history_BL, user_B, noise)` generates for each user, and the users' targets: [U, D], [U]."""

        def represented(begin: int) -> Tensor:
            user_B, history_BL = self._users_from(begin)
            return represent(history_BL, user_B, self._noise(begin, history_BL)).float().cpu()

        generated = torch.cat(self._batches(represented)).numpy()
        result = np.empty_like(generated)
        result[self._order] = generated
        target = np.empty(len(generated), dtype=np.int64)
        target[self._order] = self._target_U[self._users].cpu().numpy()
        return result, target

    @torch.no_grad()
    def averages(self, probe: ProbeFn) -> dict[str, float]:
        """Mean over users of what `probe(history_BL, target_B, user_B, noise)` measures on each."""

        def measured(begin: int) -> dict[str, float]:
            user_B, history_BL = self._users_from(begin)
            found = probe(history_BL, self._target_U[user_B], user_B, self._noise(begin, history_BL))
            return {name: float(value_B.double().sum()) for name, value_B in found.items()}

        sums: dict[str, float] = {}
        for found in self._batches(measured):
            for name, total in found.items():
                sums[name] = sums.get(name, 0.0) + total
        return {name: total / len(self._users) for name, total in sums.items()}

    def _batches(self, work: Callable[[int], Any]) -> list[Any]:
        """`work(begin)` of every batch of users, in their order."""
        # A thread knows nothing of the products that another one emulates.
        at_once = self._device.type == "cpu" and torch.get_num_threads() > 1 and not emulating()
        return self._side_by_side(work) if at_once else list(self._one_by_one(work))

    def _side_by_side(self, work: Callable[[int], Any]) -> list[Any]:
        """As many batches at a time as torch has threads, each on one: a second thread speeds small products up little.

        The longest histories go first, so that no thread is left alone with them in the end. What a batch finds does
        not depend on the number of threads.
        """
        threads, begins = torch.get_num_threads(), range(0, len(self._users), self._batch_size)
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            return list(pool.map(torch.no_grad()(work), reversed(begins)))[::-1]
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # what the workers set is also what later threads start with

    def _one_by_one(self, work: Callable[[int], Any]) -> Iterator[Any]:
        """One batch after the other.

        If the GPU runs out of memory the batch is halved, down to one block, and the evaluation goes on.
        """
        begin = 0
        while begin < len(self._users):
            try:
                result = work(begin)
            except torch.cuda.OutOfMemoryError:
                if self._batch_size == BLOCK:
                    raise
            else:
                yield result
                begin += self._batch_size
                continue
            # Not inside `except`, where the exception still holds the tensors of the failed attempt.
            self._batch_size = max(BLOCK, self._batch_size // 2 // BLOCK * BLOCK)
            torch.cuda.empty_cache()
            log.warning("out of GPU memory: evaluation goes on with %d users at a time", self._batch_size)

    def _users_from(self, begin: int) -> tuple[Tensor, Tensor]:
        """The batch of users that begins there, and what the model reads of them."""
        user_B = self._users[begin : begin + self._batch_size]
        return user_B, self._inputs.histories(user_B, self._max_len)

    def _rank_batch(self, score: ScoreFn, begin: int) -> tuple[Tensor, Tensor]:
        user_B, history_BL = self._users_from(begin)
        score_BI = score(history_BL, user_B, self._noise(begin, history_BL))
        if score_BI.dtype != torch.float64:
            score_BI = score_BI.float()  # bf16 scores tie far too often to be ranked
        expected = (len(user_B), self._seen.num_items + 1)
        if score_BI.shape != expected:
            raise ValueError(
                f"score() returned {tuple(score_BI.shape)} where {expected} belongs: a row per user, and a column per "
                "item after one for padding"
            )
        target_B = self._target_U[user_B]
        kept_B = rank_of_target(score_BI, target_B)
        seen_BS = self._seen.histories(user_B, max_len=2**31)
        return kept_B, kept_B - seen_above(score_BI, target_B, seen_BS)

    def _noise(self, begin: int, history_BL: Tensor) -> UserNoise:
        generators, sizes, widths = [], [], []
        lengths = (history_BL > 0).sum(1).tolist()  # at once: a GPU is waited for here
        for offset in range(0, len(history_BL), BLOCK):
            rows = lengths[offset : offset + BLOCK]
            name = f"evaluate/{self._part}/{(begin + offset) // BLOCK}"
            generator = torch.Generator(device=self._device)
            generators.append(generator.manual_seed(derive_seed(self._seed, name)))
            sizes.append(len(rows))
            widths.append(max(rows))
        return UserNoise(generators, sizes, widths)

    def _restore(self, rank: Tensor) -> NDArray[np.int32]:
        """Undo the sorting by length."""
        result = np.empty(len(rank), dtype=np.int32)
        result[self._order] = rank.cpu().numpy()
        return result
