"""GRU4Rec: one GRU over the item sequence, inner product with the table that also feeds it.

Hidasi et al., ICLR 2016; Hidasi and Karatzoglou, "Recurrent Neural Networks with Top-k Gains", CIKM 2018.
Reference: hidasib/GRU4Rec a4ed5fb (facts only: its licence is for research and education).

Deviations, each an option or pinned by a test:
- One session is one user's training part. Sessions have no start time here, so they come in a new order each epoch.
- The cell is the framework's, which resets after the product, as in the official port's shared mode.
- Adagrad has no momentum (the authors use 0 to 0.4); its epsilon stands inside the root, as theirs.
- `samples: sequences` with `loss: softmax` is the tuned variant: whole sequences, back-propagation through time, every
  position a target, cross-entropy over all items, Adam.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from harness.compute import Compute
from harness.layers import Dropout
from harness.learner import SingleLossLearner
from harness.losses import cross_entropy_with_bias, softmax_cross_entropy
from harness.negatives import draw_weighted
from harness.recurrence import recur
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, SequenceBatch, SequenceSampler, align_left


@dataclass(frozen=True)
class Config:
    """Defaults are the authors' best for RetailRocket: paramfiles/retailrocket_bprmax_shared_best.py."""

    embedding_dim: int = 224
    hidden_dim: int | None = None  # width of the state; null = embedding_dim, as a shared table needs
    max_len: int = 4096  # whole histories at test time: the authors never cut
    embedding_dropout: float = 0.5
    hidden_dropout: float = 0.05
    output_bias: bool = True
    samples: Literal["session_parallel", "sequences"] = "session_parallel"
    loss: Literal["bpr_max", "sampled_softmax", "softmax"] = "bpr_max"  # bpr_max wins on small data, says the README
    num_sampled: int = 512  # theirs 2048, to be lowered below 5 to 10 thousand items (README)
    sample_alpha: float = 0.4  # sampled items are drawn proportionally to count ** alpha
    elu: float = 0.5  # final activation of bpr_max; 0 = none
    regularisation: float = 1.95  # lambda of bpr_max ("bpreg")
    logq: float = 1.0  # weight of the sampling correction of sampled_softmax
    batch_size: int = 80  # parallel sessions, or sequences
    optimizer: Literal["adagrad", "adam"] = "adagrad"
    learning_rate: float = 0.05
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "max_len", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.hidden_dim is None or self.hidden_dim >= 1, "hidden_dim", self.hidden_dim, "null or 1 or more")
        for name in ("embedding_dropout", "hidden_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        for name in ("num_sampled", "sample_alpha", "elu", "regularisation", "logq", "learning_rate", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        whole = self.samples == "sequences"
        legal = "softmax with samples: sequences; bpr_max or sampled_softmax with samples: session_parallel"
        require((self.loss == "softmax") == whole, "loss", self.loss, legal)
        require(whole or self.batch_size + self.num_sampled >= 3, "batch_size", self.batch_size, "2 or more")


@dataclass(frozen=True)
class Step:
    """One event of each active slot. Which slot, its item, the next item, whether a session begins; all [B]."""

    slot_B: Tensor
    input_B: Tensor
    target_B: Tensor
    is_first_B: Tensor


def session_parallel(start_S: NDArray[Any], end_S: NDArray[Any], slots: int) -> Iterator[tuple[NDArray[Any], ...]]:
    """Run sessions side by side: a slot whose session ends takes the next one, until none is left.

    Yields per step the active slots, their position in the data and whether a session begins there.
    """
    taken = min(slots, len(start_S))
    slot, position, end = np.arange(taken), start_S[:taken].copy(), end_S[:taken].copy()
    is_first = np.ones(taken, dtype=bool)
    while len(slot):
        yield slot, position, is_first
        position = position + 1
        is_first = position >= end
        free = np.flatnonzero(is_first)
        if len(free) == 0:
            continue
        filled = free[: len(start_S) - taken]
        position[filled] = start_S[taken : taken + len(filled)]
        end[filled] = end_S[taken : taken + len(filled)]
        taken += len(filled)
        if len(filled) < len(free):
            stays = np.ones(len(slot), dtype=bool)
            stays[free[len(filled) :]] = False
            slot, position, end, is_first = (each[stays] for each in (slot, position, end, is_first))


def bpr_max(score_BN: Tensor, regularisation: float) -> Tensor:
    """BPR-max of each row; column i is the target of row i, all other columns are its negatives.  [B, N] -> [B]"""
    positive_B1 = score_BN.diagonal()[:, None]
    own = torch.eye(*score_BN.shape, dtype=torch.bool, device=score_BN.device)
    log_weight_BN = score_BN.masked_fill(own, -torch.inf).log_softmax(1)
    likelihood_B = (log_weight_BN + F.logsigmoid(positive_B1 - score_BN)).logsumexp(1)
    return regularisation * (log_weight_BN.exp() * score_BN.square()).sum(1) - likelihood_B


def sampled_softmax(score_BN: Tensor, log_count_N: Tensor, logq: float) -> Tensor:
    """Cross-entropy of each row over the columns, corrected for how often they are drawn.  [B, N], [N] -> [B]"""
    target_B = torch.arange(len(score_BN), device=score_BN.device)
    return F.cross_entropy(score_BN - logq * log_count_N, target_B, reduction="none")


class Network(nn.Module):
    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        dim, hidden = config.embedding_dim, config.hidden_dim or config.embedding_dim
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        self.output = nn.Linear(hidden, dim) if hidden != dim else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(num_items + 1)) if config.output_bias else None
        self.embedding_dropout, self.hidden_dropout = Dropout(config.embedding_dropout), Dropout(config.hidden_dropout)
        self._initialise()

    def _initialise(self) -> None:
        """Each gate matrix uniform in +-sqrt(6 / (rows + columns)), the table likewise, biases 0."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                for part in parameter.data.chunk(3 if name.startswith("gru.") else 1):
                    nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.items.weight[:1])

    def step(self, item_B: Tensor, state_BH: Tensor) -> Tensor:
        """The state one event later; dropout included, which the next event therefore receives too."""
        x_BD = self.embedding_dropout(self.items(item_B))
        state = recur(self.gru, x_BD[:, None], state_BH[None])[1][0]
        return self.hidden_dropout(state)

    def forward(self, history: PackedSequence) -> tuple[Tensor, Tensor]:
        """Queries at all positions of packed item ids, from a zero state, and at each row's last: [N, D], [B, D]"""
        x_ND = self.embedding_dropout(self.items(history.data))
        packed = PackedSequence(x_ND, history.batch_sizes, history.sorted_indices, history.unsorted_indices)
        states, last = recur(self.gru, packed)
        return self.output(self.hidden_dropout(states.data)), self.output(self.hidden_dropout(last[0]))

    def score(self, query_BD: Tensor, item_N: Tensor | slice) -> Tensor:
        """[B, N] scores of items; fp32."""
        score = query_BD.float() @ self.items.weight[item_N].T
        return score if self.bias is None else score + self.bias[item_N]


class GRU4Rec(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        if config.optimizer == "adagrad":
            self.optimizer = torch.optim.Adagrad(
                self.module.parameters(),
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                initial_accumulator_value=1e-6,  # with eps 0 this is the authors' epsilon inside the root
                eps=0.0,
            )
        self.config, self.streams = config, streams
        self.data = ResidentSequences.of(view.train, compute.device)
        self.sampler = SequenceSampler(self.data, max_len=config.max_len, batch_size=config.batch_size)
        lengths = view.train.lengths
        self._sessions = view.train.offsets[:-1][lengths > 1], view.train.offsets[1:][lengths > 1] - 1
        count_I = torch.bincount(self.data.items_N, minlength=view.num_items + 1).double()
        self._log_count_I = count_I.clamp(min=1).log().float()
        weight_I = count_I**config.sample_alpha * (count_I > 0)
        self._cumulative_I = weight_I.cpu().cumsum(0).to(weight_I.device)  # as in ComiRec
        self._state = torch.empty(0)

    def batches(self) -> Iterator[Step] | Iterator[SequenceBatch]:
        if self.config.samples == "session_parallel":
            return self._steps()
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def _steps(self) -> Iterator[Step]:
        start_S, end_S = self._sessions
        order = torch.randperm(len(start_S), generator=self.streams.torch("shuffle")).numpy()
        device, slots = self.compute.device, self.config.batch_size
        self._state = torch.zeros(slots, self.module.gru.hidden_size, device=device)
        for arrays in session_parallel(start_S[order], end_S[order], slots):
            slot_B, position_B, is_first_B = (torch.from_numpy(each).to(device) for each in arrays)
            if len(slot_B) + self.config.num_sampled < 2:
                return  # a last lone session has nothing to be compared with
            items_N = self.data.items_N
            yield Step(slot_B, items_N[position_B], items_N[position_B + 1], is_first_B)

    def loss(self, batch: Step | SequenceBatch) -> dict[str, Tensor]:
        if isinstance(batch, SequenceBatch):
            return {"loss": self._sequence_loss(batch)}
        state_BH = self._state[batch.slot_B] * ~batch.is_first_B[:, None]
        state_BH = self.module.step(batch.input_B, state_BH)
        self._state[batch.slot_B] = state_BH.detach().to(self._state.dtype)
        sampled_N = self._sample()
        score_BN = self.module.score(self.module.output(state_BH), torch.cat([batch.target_B, sampled_N]))
        if self.config.loss == "bpr_max":
            score_BN = F.elu(score_BN, self.config.elu) if self.config.elu else score_BN
            loss_B = bpr_max(score_BN, self.config.regularisation)
        elif self.config.loss == "sampled_softmax":
            log_count_N = torch.cat(
                [self._log_count_I[batch.target_B], self.config.sample_alpha * self._log_count_I[sampled_N]]
            )
            loss_B = sampled_softmax(score_BN, log_count_N, self.config.logq)
        else:
            raise ValueError(f"loss: {self.config.loss!r} is not one of 'bpr_max', 'sampled_softmax'")
        return {"loss": loss_B.sum() / self.config.batch_size}  # the batch may have shrunk; the divisor has not

    def _sample(self) -> Tensor:
        generator = self.streams.torch("negatives", self.compute.device)
        return draw_weighted(self._cumulative_I, self.config.num_sampled, generator)

    def _sequence_loss(self, batch: SequenceBatch) -> Tensor:
        query_ND, _ = self.module(pack(batch.input_BL))
        target_N, table = pack(batch.target_BL).data, self.module.items.weight
        if self.module.bias is None:
            return softmax_cross_entropy(query_ND, table, target_N)
        return cross_entropy_with_bias(query_ND, table, self.module.bias, target_N)

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        with self.compute.autocast():
            _, query_BD = self.module(pack(history_BL))
        return self.module.score(query_BD, slice(None))


def pack(history_BL: Tensor) -> PackedSequence:
    """Left-padded ids as a packed sequence: the recurrence never meets padding."""
    aligned_BL, length_B = align_left(history_BL)
    return pack_padded_sequence(aligned_BL, length_B.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> GRU4Rec:
    config = from_mapping(Config, settings, where="gru4rec")
    streams.seed_global("init")
    return GRU4Rec(config, view, streams, compute)
