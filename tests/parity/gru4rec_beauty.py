"""GRU4Rec on all of Beauty by the authors' official port: its own code and training loop, ranked by a count of its own.

    python -m tests.parity.gru4rec_beauty [--references DIR] [--sequences FILE] [--epochs N]

The baseline of 2018 reaches four times the figure that the paper prints for it, so here the way from sequences to HR
and NDCG is walked once more without ours: only the split and the formulas of the metrics are shared. Adds validation
and test figures after a fixed number of epochs to GRU4Rec's entry in baselines/parity.json. The port takes sessions in
the same order in every epoch and has momentum in its parameter file; ours draws a new order and has none, so both are
turned on and off.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from baselines.gru4rec import Config
from harness import cli
from harness.methods import load_method
from harness.metrics import summarise
from harness.settings import from_mapping
from harness.split import Sequences, Split, leave_one_out
from tests.parity.beauty import Comparison
from tests.parity.checkouts import importing

SEED, USERS = 7, 512  # users scored at a time
PARTS = ("val", "test")
VARIANTS: Final = {  # momentum, a new order of sessions in each epoch
    "as its parameter file": (0.4, False),
    "without momentum": (0.0, False),
    "without momentum, sessions in a new order each epoch": (0.0, True),
}


def sessions(train: Sequences) -> pd.DataFrame:
    """One session per user, timed so that the port takes users in the order of the file."""
    user_N = np.repeat(np.arange(train.num_users), train.lengths)
    return pd.DataFrame({"SessionId": user_N, "ItemId": train.items.astype(np.int64), "Time": np.arange(len(user_N))})


def train_port(port: ModuleType, split: Split, epochs: int, *, momentum: float, shuffled: bool) -> Any:
    """The port's model after `fit`, with the hyperparameters of config/methods/gru4rec.yaml."""
    ours = from_mapping(Config, load_method("gru4rec").resolved("beauty")["model"], where="gru4rec")
    model = port.GRU4Rec(
        layers=[ours.embedding_dim],
        loss="bpr-max",
        batch_size=ours.batch_size,
        dropout_p_embed=ours.embedding_dropout,
        dropout_p_hidden=ours.hidden_dropout,
        learning_rate=ours.learning_rate,
        momentum=momentum,
        sample_alpha=ours.sample_alpha,
        n_sample=ours.num_sampled,
        n_epochs=epochs,
        bpreg=ours.regularisation,
        elu_param=ours.elu,
        device=torch.device("cpu"),
    )
    torch.manual_seed(SEED)
    generator, iterate = np.random.default_rng(SEED), port.SessionDataIterator.__call__

    def in_new_order(iterator: Any, *arguments: Any, **options: Any) -> Any:
        iterator.session_idx_arr = generator.permutation(iterator.session_idx_arr)
        return iterate(iterator, *arguments, **options)

    order = patch.object(port.SessionDataIterator, "__call__", in_new_order) if shuffled else contextlib.nullcontext()
    with order, contextlib.redirect_stdout(io.StringIO()):
        model.fit(sessions(split.training_view().train), compatibility_mode=False)
    model.model.eval()
    return model


def ranks(model: Any, split: Split, part: str) -> NDArray[np.int64]:
    """1-based rank of each user's target; items that training lacks come last, ties count against the target."""
    index_of = model.data_iterator.itemidmap.to_dict()
    history, target_U = split.history(part), split.target_U(part)
    rank_U = np.full(split.num_users, split.num_items, dtype=np.int64)
    with torch.no_grad():
        for first in range(0, split.num_users, USERS):
            users = range(first, min(first + USERS, split.num_users))
            score_BI = _scores(model.model, [[index_of[i] for i in history.of_user(u) if i in index_of] for u in users])
            for user, score_I in zip(users, score_BI, strict=True):
                if target_U[user] in index_of:
                    rank_U[user] = int((score_I >= score_I[index_of[target_U[user]]]).sum())
    return rank_U


def _scores(network: Any, histories: list[list[int]]) -> torch.Tensor:
    """Scores of all items after each whole history, by the port's own cell from a zero state."""
    state_BH = torch.zeros(len(histories), network.layers[-1])
    for step in range(max(map(len, histories))):
        alive = [row for row, history in enumerate(histories) if len(history) > step]
        item_B = torch.tensor([histories[row][step] for row in alive])
        state = [state_BH[alive]]
        network.hidden_step(network.Wy(item_B), state)
        state_BH[alive] = state[0]
    return network.score_items(state_BH, network.Wy.weight, network.By.weight)


def main(argv: Sequence[str] | None = None) -> int:
    # 4 epochs: the best of ours on validation
    comparison = Comparison.start("gru4rec", "tests.parity.gru4rec_beauty", epochs=4, argv=argv)
    split = leave_one_out(comparison.sequences, dataset="beauty")
    with importing(comparison.checkout):
        import gru4rec_pytorch
    figures = {}
    for name, (momentum, shuffled) in VARIANTS.items():
        model = train_port(gru4rec_pytorch, split, comparison.epochs, momentum=momentum, shuffled=shuffled)
        figures[name] = {part: summarise(ranks(model, split, part)) for part in PARTS}
        print(f"{name}: {figures[name]}", flush=True)
    comparison.save("beauty", {"seed": SEED, "metrics, seen items kept, as fractions": figures})
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
