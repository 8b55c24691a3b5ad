"""What the training loop and the evaluation ask of a method, and the usual way to answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.compute import Compute
from harness.streams import UserNoise


class Learner(Protocol):
    """One method, from its first update to its final scores.

    module:  every weight and buffer of the method
    max_len: most history items it reads

    Further methods are used where a learner has them:
    probe(history_BL, target_B, user_B, noise) -> named values [B] for `diagnostics` of the record, averaged over users;
    represent(history_BL, user_B, noise) -> [B, D] with item_table() -> [I, D]: what Table 5 and Figure 4 compare.
    is_oracle: true for the check that is shown the answers, see `harness.ranking.Evaluator.oracle_score`.
    """

    module: nn.Module
    max_len: int

    def batches(self) -> Iterator[Any]:
        """One epoch of examples, built the way this method's paper builds them."""
        ...

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        """Update once; return named loss terms (scalars), "loss" among them, for the history file."""
        ...

    def end_epoch(self, metrics: Mapping[str, float] | None) -> None:
        """React to the end of an epoch: schedules, annealing; `metrics` is None if nothing was evaluated."""
        ...

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        """[B, num_items + 1] next-item scores, larger is better; column 0 (padding) is ignored.

        history_BL: item ids, left-padded with 0 to the longest history of the batch, at most max_len wide.
        A user's scores may depend on neither batch mates nor the amount of padding.
        noise: the only source of randomness allowed here.
        Several threads may ask for different users at once, so nothing of the learner may change.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs beside the random streams."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SingleLossLearner(ABC):
    """The usual training step (zero, forward, backward, clip, update) around one abstract `loss(batch)`."""

    def __init__(
        self,
        module: nn.Module,
        *,
        max_len: int,
        compute: Compute,
        learning_rate: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        clip_norm: float | None = None,
    ) -> None:
        self.module = module.to(compute.device)
        self.max_len = max_len
        self.compute = compute
        self.clip_norm = clip_norm
        self.optimizer = torch.optim.Adam(
            self.module.parameters(),
            lr=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
            fused=True,  # one pass over the parameters instead of about ten
        )

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Named terms of the objective; the one called "loss" is minimised."""

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            terms = self.loss(batch)
        if "loss" not in terms or terms["loss"].dim():
            found = {name: tuple(value.shape) for name, value in terms.items()}
            raise ValueError(f"loss() must return named scalars with 'loss' among them; it returned shapes {found}")
        terms["loss"].backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    def end_epoch(self, metrics: Mapping[str, float] | None) -> None:  # noqa: B027, most methods have nothing to do
        """Nothing by default."""

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
