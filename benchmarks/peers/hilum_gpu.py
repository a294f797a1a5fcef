"""Training steps of hilum's own learner on a GPU, augmentation and all.

python hilum_gpu.py FOLDER PRECISION

FOLDER as in textbook_gpu.py. One answer of the protocol is ``CHUNK`` steps, waited for at its end.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import numpy as np
import torch
from protocol import serve

from hilum.machine import Place
from hilum.training.backends import make_learner
from hilum.training.loop import batches, order
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

CHUNK = 32


def main(folder: str, precision: str) -> None:
    pixels = np.load(Path(folder) / "pixels.npy", mmap_mode="r")
    labels = np.load(Path(folder) / "labels.npy")
    films = Films(pixels, np.arange(len(labels)), labels, np.arange(len(labels)))
    recipe = Recipe.load("paper2021")
    place = Place("cuda" if torch.cuda.is_available() else "cpu", 1, 1, precision)
    learner = make_learner(recipe, place, (1.0, 1.0))
    epochs, coming = count(), iter(())

    def steps() -> None:
        nonlocal coming
        for _ in range(CHUNK):
            batch = next(coming, None)
            if batch is None:
                epoch = next(epochs)
                plan = batches(order(0, epoch, len(films)), recipe.training.batch, "drop")
                learner.begin(films, epoch, plan)
                coming = iter(plan)
                batch = next(coming)
            learner.step(batch, recipe.optimiser.lr)
        if place.kind == "cuda":
            torch.cuda.synchronize()

    steps()
    serve({"torch": torch.__version__, "precision": precision, "steps": CHUNK}, steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
