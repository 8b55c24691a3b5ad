"""SASRec: loss and gradients of a batch, scores of histories."""

import argparse

import session

arrays = session.prepare()

import model  # noqa: E402, the reference's

NUM_SCORED = 101  # as many as its evaluation scores at a time

options = argparse.Namespace(
    maxlen=arrays["input"].shape[1],
    hidden_units=int(arrays["embedding_dim"]),
    num_blocks=int(arrays["num_blocks"]),
    num_heads=int(arrays["num_heads"]),
    dropout_rate=float(arrays["dropout"]),
    l2_emb=0.0,
    lr=1e-3,
)
num_items = int(arrays["num_items"])
network = model.Model(1, num_items, options)
feeds = {
    network.input_seq: arrays["input"],
    network.pos: arrays["target"],
    network.neg: arrays["negative"],
    network.is_training: True,
}
ranked = {
    network.input_seq: arrays["history"],
    network.test_item: [item % (num_items + 1) for item in range(NUM_SCORED)],
    network.is_training: False,
}
session.save(network.loss, feeds, scores=(network.test_logits, ranked))
