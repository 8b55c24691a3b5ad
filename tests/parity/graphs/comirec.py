"""ComiRec: loss and gradients of a batch with given negatives, interests of histories."""

import session

arrays = session.prepare()

import model  # noqa: E402, the reference's
import tensorflow as tf  # noqa: E402

sampled_softmax_loss = tf.nn.sampled_softmax_loss
sampled = (
    tf.constant(arrays["negative"], tf.int64),
    tf.constant(arrays["target_probability"][:, None], tf.float64),
    tf.constant(arrays["negative_probability"], tf.float64),
)
tf.nn.sampled_softmax_loss = lambda *arguments: sampled_softmax_loss(*arguments, sampled_values=sampled)

max_len, dim = arrays["history"].shape[1], int(arrays["embedding_dim"])
batch_size = len(arrays["negative"]) // 10  # only tells how many negatives there are, ten per sample
make = {"attention": model.Model_ComiRec_SA, "routing": model.Model_ComiRec_DR}[str(arrays["interests"])]
network = make(int(arrays["num_items"]) + 1, dim, dim, batch_size, int(arrays["num_interests"]), max_len)
feeds = {
    network.mid_his_batch_ph: arrays["history"],
    network.mask: arrays["history"] > 0,
    network.mid_batch_ph: arrays["target"],
}
ranked = {network.mid_his_batch_ph: arrays["ranked"], network.mask: arrays["ranked"] > 0}
session.save(network.loss, feeds, interests=(network.user_eb, ranked))
