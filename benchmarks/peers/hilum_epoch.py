"""Whole epochs of hilum's own loop over its cache, without validation.

python hilum_epoch.py FOLDER float32|bfloat16|auto       (FOLDER/0/*.png, FOLDER/1/*.png)

The recipe is paper2021: batches in a drawn order, its augmentation, class weights, the training's
losses and accuracy. The films were decoded once, into the cache that HILUM_CACHE names.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hilum import heap, machine

machine.default_threads()
heap.keep()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from protocol import serve  # noqa: E402

from hilum.datasets.cache import Cache  # noqa: E402
from hilum.datasets.manifest import Manifest  # noqa: E402
from hilum.machine import Place  # noqa: E402
from hilum.networks import kernels  # noqa: E402
from hilum.training.learner import TorchLearner, class_weights  # noqa: E402
from hilum.training.loop import fit, steps_in_epoch  # noqa: E402
from hilum.training.parts import Films, films_of  # noqa: E402
from hilum.training.placement import settle_precision  # noqa: E402
from hilum.training.recipe import Recipe  # noqa: E402
from hilum.training.schedule import LearningRate  # noqa: E402


def manifest_of(folder: Path) -> Manifest:
    """All films of FOLDER/0 and FOLDER/1 as the training part."""
    paths = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.glob("[01]/*.png")))
    labels = np.array([int(path.split("/")[0]) for path in paths], np.int8)
    return Manifest(folder, paths, labels, patient=paths, part=("train",) * len(paths))


def main(folder: str, precision: str) -> None:
    recipe = Recipe.load("paper2021", [f'training.precision="{precision}"'])
    manifest = manifest_of(Path(folder))
    films = films_of(manifest, Cache.fill(manifest, recipe.preprocessing, limit=1.0), "train")
    none = Films(films.pixels, films.rows[:0], films.labels[:0], films.identity[:0])
    weights = class_weights(films.labels, recipe.training.class_weights)
    place = Place.parse("cpu" if precision == "auto" else f"cpu@{precision}").resolved()
    place, probed = settle_precision(place, recipe, films, weights)
    learner = TorchLearner(recipe, place, weights)
    steps, done = steps_in_epoch(len(films), recipe), 0

    def epoch() -> None:
        nonlocal done
        upto = replace(recipe, training=replace(recipe.training, epochs=done + 1))
        # A new one each time: without validation there is no plateau to fall from.
        fit(learner, upto, films, none, rate=LearningRate(upto, steps), first=done)
        done += 1

    serve(
        {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "precision": place.precision,
            "probed_ms": probed,
            "kernels": kernels.status(),
            "films": len(films),
        },
        epoch,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
