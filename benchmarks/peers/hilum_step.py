"""One training step of hilum's own learner on films in memory.

python hilum_step.py FILMS.npz float32|bfloat16|auto
"""

from __future__ import annotations

import sys
from itertools import cycle
from typing import Any

from hilum import machine

machine.default_threads()
machine.keep_memory()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from protocol import serve  # noqa: E402

from hilum.machine import Place  # noqa: E402
from hilum.networks import kernels  # noqa: E402
from hilum.training.graph import scale  # noqa: E402
from hilum.training.learner import TorchLearner  # noqa: E402
from hilum.training.parts import Films  # noqa: E402
from hilum.training.placement import settle_precision  # noqa: E402
from hilum.training.recipe import Recipe  # noqa: E402


class InMemory(TorchLearner):
    """The learner without augmentation: its batches are ready."""

    ready: Any

    def prepare(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return next(self.ready)


def main(path: str, precision: str) -> None:
    given = np.load(path)
    pixels, labels = given["pixels"], given["labels"]
    recipe = Recipe.load("paper2021", [f'training.precision="{precision}"'])
    films = Films(pixels, np.arange(len(pixels)), labels, np.arange(len(pixels)))
    place = Place.parse("cpu" if precision == "auto" else f"cpu@{precision}").resolved()
    place, probed = settle_precision(place, recipe, films, (1.0, 1.0))
    learner = InMemory(recipe, place, (1.0, 1.0))
    batches = []
    for i in range(0, len(pixels), recipe.training.batch):
        x = torch.from_numpy(pixels[i : i + recipe.training.batch])[:, None].float()
        x = scale(x, learner.model.input_scaling).contiguous(memory_format=torch.channels_last)
        batches.append((x, torch.from_numpy(labels[i : i + recipe.training.batch]).float()))
    learner.ready = cycle(batches)
    learner.begin(films, 0)
    batch = np.arange(recipe.training.batch)

    def step() -> None:
        learner.step(batch, recipe.optimiser.lr)

    step()
    # Gradients of units that ReLU cut off cost nothing, so their share belongs to the record.
    with torch.no_grad():
        a, alive = batches[0][0], []
        for layer in (m for m in learner.model.children() if isinstance(m, torch.nn.Conv2d)):
            a = kernels.relu_pool(torch.nn.functional.conv2d(a, layer.weight, layer.bias))
            alive.append(round(float((a > 0).float().mean()), 3))
    serve(
        {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "precision": place.precision,
            "probed_ms": probed,
            "kernels": kernels.status(),
            "alive_after_first_step": alive,
        },
        step,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
