"""A learner whose every rank is told in advance, to see what the training loop makes of it."""

import numpy as np
import torch
from torch import nn

from harness.fit import FitPlan, fit
from harness.split import leave_one_out
from harness.streams import Streams
from harness.synthetic import random_walk

NUM_ITEMS = 40
SPLIT = leave_one_out(random_walk(num_users=70, num_items=NUM_ITEMS, min_length=4, max_length=20))


class Scripted:
    """Ranks everyone's target as told: ranks[epoch] once trained for that many epochs."""

    max_len = 10

    def __init__(self, ranks, *, split=SPLIT, batches=2, losses=None):
        self.module = nn.Linear(1, 1)
        self.ranks, self.losses, self.num_batches = ranks, losses or {}, batches
        self.target_U = torch.from_numpy(split.val_target_U.astype(np.int64))
        self.epoch = 0
        self.log = []

    def batches(self):
        self.epoch += 1
        self.log.append(("train", self.module.training))
        with torch.no_grad():
            self.module.weight.fill_(float(self.epoch))
        yield from range(self.num_batches)

    def training_step(self, batch):
        loss = self.losses.get((self.epoch, batch), 1.0 + batch)
        return {"loss": torch.tensor(loss), "other": torch.tensor(0.5)}

    def score(self, history_BL, user_B, noise):
        self.log.append(("score", self.module.training, tuple(user_B.tolist())))
        rank = self.ranks[min(self.epoch, len(self.ranks)) - 1]
        target = self.target_U[user_B]
        score = torch.full((len(user_B), NUM_ITEMS + 1), -1.0)
        score[:, 1:rank] = 1.0
        score[target < rank, rank] = 1.0  # the target itself is among the first: one more takes its place
        return score.scatter(1, target[:, None], 0.0)

    def end_epoch(self, metrics):
        self.log.append(("end", metrics is not None))

    def state_dict(self):
        return {"module": self.module.state_dict(), "epoch": self.epoch}

    def load_state_dict(self, state):
        self.module.load_state_dict(state["module"])
        self.epoch = state["epoch"]


def run(ranks, *, checkpoints=None, learner=None, **plan):
    learner = learner or Scripted(ranks)
    return fit(learner, SPLIT, FitPlan(**plan), Streams(1), checkpoints=checkpoints), learner


def stop_after(learner, epochs):
    """Interrupt the run in the middle of the epoch after `epochs`."""
    batches, step, begun = learner.batches, learner.training_step, []

    def counted():
        begun.append(1)
        return batches()

    def interrupted(batch):
        if len(begun) > epochs:
            raise KeyboardInterrupt
        return step(batch)

    learner.batches, learner.training_step = counted, interrupted
