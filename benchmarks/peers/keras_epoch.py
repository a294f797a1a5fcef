"""Whole epochs of Keras 3 on TensorFlow, without validation.

    python keras_epoch.py FOLDER float32|mixed_bfloat16       (FOLDER/0/*.png, FOLDER/1/*.png)

pure    ``train_on_batch`` over tensors in memory, no augmentation, no metrics
data    ``tf.data``: films decoded once and cached, augmentation by one projective transform of each
        batch (what Keras's own layers call, once instead of three times), ``AUTOTUNE``; ``fit``
legacy  the tutorial's ``ImageDataGenerator`` over the folder; ``fit``

Each has a network of its own. The films of an epoch are the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow's own choice only with AVX-512

import keras
import numpy as np
import tensorflow as tf
from keras_network import network
from protocol import serve

BATCH, SIDE = 16, 500
ZOOM, SHEAR = 0.2, 0.2  # a share, and degrees: the tutorial's numbers as its generator takes them


def compiled(metrics: list[str]) -> keras.Model:
    model = network()
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=metrics)
    return model


def decoded(path: tf.Tensor) -> tf.Tensor:
    film = tf.io.decode_png(tf.io.read_file(path), channels=1)
    return tf.ensure_shape(film, (SIDE, SIDE, 1))


def augmented(films: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Flip, zoom of each axis and shear about the centre, in one bilinear sampling."""
    n = tf.shape(films)[0]
    flip = tf.where(tf.random.uniform([n]) < 0.5, -1.0, 1.0)
    wide = flip * tf.random.uniform([n], 1 - ZOOM, 1 + ZOOM)
    high = tf.random.uniform([n], 1 - ZOOM, 1 + ZOOM)
    angle = tf.random.uniform([n], -SHEAR, SHEAR) * (np.pi / 180)
    a, b, d, e = wide, -wide * tf.sin(angle), tf.zeros([n]), high * tf.cos(angle)
    middle = (SIDE - 1) / 2
    c, f = middle * (1 - a - b), middle * (1 - d - e)
    zero = tf.zeros([n])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(films, tf.float32) / 255.0,
        transforms=tf.stack([a, b, c, d, e, f, zero, zero], 1),
        output_shape=tf.constant([SIDE, SIDE]),
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    return moved, labels


def pure(paths: list[str], labels: np.ndarray) -> Callable[[], None]:
    films = tf.stack([tf.cast(decoded(path), tf.float32) / 255.0 for path in paths])
    y = tf.constant(labels[:, None], tf.float32)
    batches = [(films[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(paths), BATCH)]
    model = compiled([])

    def epoch() -> None:
        for x, target in batches:
            model.train_on_batch(x, target)

    return epoch


def data(paths: list[str], labels: np.ndarray) -> Callable[[], None]:
    source = tf.data.Dataset.from_tensor_slices((paths, labels[:, None].astype(np.float32)))
    ready = (
        source.map(lambda path, y: (decoded(path), y), num_parallel_calls=tf.data.AUTOTUNE)
        .cache()
        .shuffle(len(paths))
        .batch(BATCH)
        .map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return fitted(ready)


def legacy(folder: str) -> Callable[[], None]:
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rescale=1 / 255, shear_range=SHEAR, zoom_range=ZOOM, horizontal_flip=True
    )
    return fitted(
        generator.flow_from_directory(
            folder,
            target_size=(SIDE, SIDE),
            color_mode="grayscale",
            class_mode="binary",
            batch_size=BATCH,
        )
    )


def fitted(source: object) -> Callable[[], None]:
    model = compiled(["accuracy"])
    return lambda: model.fit(source, epochs=1, verbose=0, class_weight={0: 1.0, 1: 1.0})


def main(folder: str, policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    keras.utils.set_random_seed(0)
    paths = sorted(str(path) for path in Path(folder).glob("[01]/*.png"))
    labels = np.array([int(Path(path).parent.name) for path in paths])
    order = np.random.default_rng(0).permutation(len(paths))
    paths, labels = [paths[i] for i in order], labels[order]
    hello = {"keras": keras.__version__, "tensorflow": tf.__version__, "policy": policy}
    sys.stdout, out = sys.stderr, sys.stdout  # the generator prints what it found
    works = {
        "pure": pure(paths, labels),
        "data": data(paths, labels),
        "legacy": legacy(folder),
    }
    sys.stdout = out
    serve(hello, works)


if __name__ == "__main__":
    main(*sys.argv[1:])
