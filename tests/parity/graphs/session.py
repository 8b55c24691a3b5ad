"""Runs a graph of TensorFlow 1 on given arrays, in float64; imported by the scripts beside it, under Python 3.7.

Each script is called with a checkout of the reference, a file of arrays to read and a file of arrays to write.
"""

import functools
import sys

import numpy as np
import tensorflow as tf

STD = 0.1  # of what is added to the initial weights, so that no bias is 0 and no gain 1


def prepare():
    """Open the arrays, let the checkout's modules be imported, and make float64 what TensorFlow calls float32.

    Dropout scales by 1 - rate / 2 in training, as exchange.visible_dropout has it on the other side.
    """
    tf.set_random_seed(0)
    tf.float32, tf.to_float = tf.float64, tf.to_double
    for name in ("zeros", "ones", "one_hot", "get_variable"):
        setattr(tf, name, _in_float64(getattr(tf, name)))
    root = tf.sqrt
    tf.sqrt = lambda x: root(tf.convert_to_tensor(x, preferred_dtype=tf.float64))
    tf.layers.dropout = lambda x, rate, training: x * (1 - rate / 2 * tf.cast(training, tf.float64))
    tf.nn.dropout = lambda x, keep: x * (1 - (1 - keep) / 2)
    sys.path.insert(0, sys.argv[1])
    with np.load(sys.argv[2]) as archive:
        return {name: archive[name] for name in archive.files}


def _in_float64(function):
    @functools.wraps(function)
    def wrapped(*arguments, **options):
        options["dtype"] = options.get("dtype") or tf.float64
        return function(*arguments, **options)

    return wrapped


def save(loss, feeds, **results):
    """Write weights as "weight/<variable>", what they began as, gradients of `loss`, loss and `results`.

    results: tensors, or pairs of a tensor and other feeds to compute it with
    """
    variables = tf.trainable_variables()
    gradients = [tf.convert_to_tensor(gradient) for gradient in tf.gradients(loss, variables)]
    rng = np.random.RandomState(0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        made = {}
        for variable in variables:
            made["initial/" + variable.op.name] = initial = session.run(variable)
            variable.load(initial + STD * rng.randn(*variable.shape.as_list()), session)
        made["loss"] = session.run(loss, feeds)
        values = session.run([variables, gradients], feeds)
        for index, variable in enumerate(variables):
            made["weight/" + variable.op.name], made["gradient/" + variable.op.name] = (each[index] for each in values)
        for name, result in results.items():
            tensor, other = result if isinstance(result, tuple) else (result, feeds)
            made[name] = session.run(tensor, other)
    np.savez(sys.argv[3], **made)
