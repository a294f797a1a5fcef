"""The paper's network in Keras 3."""

from __future__ import annotations

import keras
from keras import layers


def network() -> keras.Model:
    """Figure 4 (1,467,137 parameters), its last layer in float32 under any policy."""
    made = [keras.Input((500, 500, 1))]
    for filters in (32, 32, 32, 64, 64):
        made += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D(2)]
    made += [layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(64, "relu")]
    model = keras.Sequential([*made, layers.Dense(1, "sigmoid", dtype="float32")])
    assert model.count_params() == 1_467_137
    return model
