"""BERT4Rec: loss and gradients of masked sequences, log probabilities at the masks of others."""

import sys

import session

arrays = session.prepare()
arguments, sys.argv = sys.argv, sys.argv[:1]  # run.py of the reference parses them when it is imported

import modeling  # noqa: E402, the reference's
import optimization  # noqa: E402, the reference's
import run  # noqa: E402, the reference's
import tensorflow as tf  # noqa: E402

config = modeling.BertConfig(
    vocab_size=int(arrays["num_classes"]),
    hidden_size=int(arrays["embedding_dim"]),
    num_hidden_layers=int(arrays["num_blocks"]),
    num_attention_heads=int(arrays["num_heads"]),
    intermediate_size=int(arrays["inner_dim"]),
    max_position_embeddings=arrays["input"].shape[1],
    type_vocab_size=2,
    hidden_dropout_prob=float(arrays["dropout"]),
    attention_probs_dropout_prob=float(arrays["attention_dropout"]),
)


def outputs(prefix, is_training):
    """Loss and log probabilities of the arrays whose names begin with `prefix`."""
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        ids = tf.constant(arrays[prefix + "input"], tf.int32)
        network = modeling.BertModel(
            config=config,
            is_training=is_training,
            input_ids=ids,
            input_mask=tf.cast(ids > 0, tf.int32),
            use_one_hot_embeddings=False,
            scope="bert",
        )
        loss, _, log_probabilities = run.get_masked_lm_output(
            config,
            network.get_sequence_output(),
            network.get_embedding_table(),
            tf.constant(arrays[prefix + "place"], tf.int32),
            tf.constant(arrays[prefix + "hidden"], tf.int32),
            tf.constant(arrays[prefix + "weight"], tf.float64),
        )
    return loss, log_probabilities


loss, _ = outputs("", True)
_, scores = outputs("ranked_", False)
seen = []
optimization.AdamWeightDecayOptimizer.apply_gradients = lambda *arguments, **_: seen.append(arguments) or tf.no_op()
optimization.create_optimizer(loss, 1e-4, 400000, 100, use_tpu=False)
optimizer, pairs = seen[0]
names = [variable.op.name for _, variable in pairs]
decays = {"decays/" + name: tf.constant(optimizer._do_use_weight_decay(name)) for name in names}
sys.argv = arguments
session.save(loss, {}, scores=scores, **decays)
