"""One training step of Keras 3 on TensorFlow: ``train_on_batch`` on tensors.

    python keras_step.py FILMS.npz float32|mixed_bfloat16

XLA is off, as Keras chooses by itself on a CPU; switched on it was no faster.
"""

from __future__ import annotations

import os
import sys
from itertools import cycle

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow's own choice only with AVX-512

import keras
import numpy as np
import tensorflow as tf
from keras_network import network
from protocol import serve


def main(path: str, policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    keras.utils.set_random_seed(0)
    given = np.load(path)
    x = (given["pixels"][..., None] / 255).astype(np.float32)
    y = given["labels"][:, None].astype(np.float32)
    batches = cycle(
        [(tf.constant(x[i : i + 16]), tf.constant(y[i : i + 16])) for i in range(0, len(x), 16)]
    )
    model = network()
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")

    def step() -> float:
        return model.train_on_batch(*next(batches))

    step()
    serve({"keras": keras.__version__, "tensorflow": tf.__version__, "policy": policy}, step)


if __name__ == "__main__":
    main(*sys.argv[1:])
