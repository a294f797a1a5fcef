"""One training step of hilum's own learner on films in memory.

    python hilum_step.py FILMS.npz float32|bfloat16|auto [RECIPE]

The paper's network gets batches that are ready, as its peers do. Another recipe, ``fast``, does
its whole step: its own size, batch, shards and augmentation.
"""

from __future__ import annotations

import sys
from itertools import cycle
from typing import Any

from hilum import heap, machine

machine.default_threads()
heap.keep()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from protocol import serve  # noqa: E402

from hilum.experiments.compare import breakdown  # noqa: E402
from hilum.machine import Place  # noqa: E402
from hilum.networks import kernels  # noqa: E402
from hilum.training.backends import make_learner  # noqa: E402
from hilum.training.graph import scale  # noqa: E402
from hilum.training.learner import shrink  # noqa: E402
from hilum.training.parts import Films  # noqa: E402
from hilum.training.placement import settle_precision  # noqa: E402
from hilum.training.recipe import Recipe  # noqa: E402
from hilum.training.shards import ShardedLearner  # noqa: E402


class InMemory(ShardedLearner):
    """The learner without augmentation: the shards of its batches are ready."""

    def __init__(self, recipe: Recipe, place: Place, films: Films) -> None:
        super().__init__(recipe, place, (1.0, 1.0))
        x = scale(torch.from_numpy(films.pixels)[:, None].float(), self.model.input_scaling)
        y = torch.from_numpy(films.labels).float()
        whole = torch.arange(len(y)).split(recipe.training.batch)
        self.ready: list[Any] = []
        for k in range(self.count):
            own = [batch[k :: self.count] for batch in whole]
            given = [(x[i].contiguous(memory_format=torch.channels_last), y[i]) for i in own]
            self.ready.append(cycle(given))

    def _prepared(self, k: int, films: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return next(self.ready[k])


def alive(learner: InMemory) -> list[float]:
    """Share of living units behind each block: gradients of the others cost hilum nothing."""
    found = []
    with torch.no_grad():
        a, _ = next(learner.ready[0])
        for layer in (m for m in learner.model.children() if isinstance(m, torch.nn.Conv2d)):
            a = kernels.relu_pool(torch.nn.functional.conv2d(a, layer.weight, layer.bias))
            found.append(round(float((a > 0).float().mean()), 3))
    return found


def main(path: str, precision: str, name: str = "paper2021") -> None:
    given = np.load(path)
    recipe = Recipe.load(name, [f'training.precision="{precision}"'])
    small = shrink(torch.from_numpy(given["pixels"]), recipe.preprocessing.size)
    count = np.arange(len(small))
    films = Films(small.numpy(), count, given["labels"], count)
    place = Place.parse("cpu" if precision == "auto" else f"cpu@{precision}").resolved()
    place, probed = settle_precision(place, recipe, films, (1.0, 1.0))

    def make() -> Any:
        if name == "paper2021":
            return InMemory(recipe, place, films)
        return make_learner(recipe, place, (1.0, 1.0))

    parts = breakdown.of_learner(make(), films, recipe)  # a profiler leaves its marks
    learner = make()
    learner.begin(films, 0)
    batch = np.arange(recipe.training.batch)

    def step() -> None:
        learner.step(batch, recipe.optimiser.lr)

    step()
    hello = {
        "torch": torch.__version__,
        "recipe": name,
        "threads": torch.get_num_threads(),
        "precision": place.precision,
        "probed_ms": probed,
        "kernels": kernels.status(),
        "breakdown": parts,
    }
    if name == "paper2021":
        hello["alive_after_first_step"] = alive(learner)
    serve(hello, step)


if __name__ == "__main__":
    main(*sys.argv[1:])
