"""The Keras tutorial's training from start to end, with its wall time.

    python keras_quality.py FOLDER TESTS.npz RESULT.jsonl BEGAN EPOCHS
    (FOLDER/{train,validation}/{0,1}/*)

The recipe is the public tutorial's for the paper's network: ``ImageDataGenerator`` over the folder
at 500 x 500 in batches of 16 (shear 0.2, zoom 0.2, flip), Adam 1e-3, balanced class weights,
``ReduceLROnPlateau`` on the validation loss, float32, 10 epochs.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow's own choice only with AVX-512

import keras
import numpy as np
import tensorflow as tf
from keras_network import network
from PIL import Image
from quality import Clock, Results

SIDE, BATCH = 500, 16


def generators(folder: str) -> tuple[keras.utils.PyDataset, keras.utils.PyDataset]:
    image = tf.keras.preprocessing.image
    learn = image.ImageDataGenerator(
        rescale=1 / 255, shear_range=0.2, zoom_range=0.2, horizontal_flip=True
    )
    look = image.ImageDataGenerator(rescale=1 / 255)
    options = {
        "target_size": (SIDE, SIDE),
        "color_mode": "grayscale",
        "class_mode": "binary",
        "batch_size": BATCH,
    }
    return (
        learn.flow_from_directory(f"{folder}/train", **options),
        look.flow_from_directory(f"{folder}/validation", shuffle=False, **options),
    )


def scorer(model: keras.Model) -> object:
    """Films resized as the generator does it: by the nearest pixel."""

    def score(films: np.ndarray) -> np.ndarray:
        found = []
        for begin in range(0, len(films), BATCH):
            some = [
                Image.fromarray(film).resize((SIDE, SIDE), Image.Resampling.NEAREST)
                for film in films[begin : begin + BATCH]
            ]
            x = np.stack([np.asarray(film, np.float32) for film in some])[..., None] / 255
            found.append(np.asarray(model.predict_on_batch(x))[:, 0])
        return np.concatenate(found)

    return score


def main(folder: str, tests: str, result: str, began: str, epochs: str) -> None:
    results = Results(result, tests, Clock(float(began)))
    keras.utils.set_random_seed(0)
    learn, look = generators(folder)
    positive = float(np.mean(learn.classes))
    model = network()
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])
    score = scorer(model)

    class Epochs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            results.epoch(epoch + 1, score, **{k: float(v) for k, v in (logs or {}).items()})
            print(epoch + 1, round(results.clock.seconds(), 1), logs, file=sys.stderr, flush=True)

    model.fit(
        learn,
        validation_data=look,
        epochs=int(epochs),
        class_weight={0: 0.5 / (1 - positive), 1: 0.5 / positive},
        callbacks=[
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", patience=2, factor=0.3, min_lr=1e-6
            ),
            Epochs(),
        ],
        verbose=0,
    )
    results.finish(
        score, 0.5, keras=keras.__version__, tensorflow=tf.__version__, epochs=int(epochs)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
