"""Training steps and epochs of hilum's own learner, alone or as one process of a group.

python scaling_worker.py RECIPE PLACE FILMS.npy

In a group RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set, as by a launcher. Says hello with
a line of JSON, then answers lines: ``{"batch": 16, "steps": 2}`` with the milliseconds of the
steps, ``{"films": 512}`` with the seconds of an epoch over so many films,
``{"exchange": [bytes, ...], "times": 5}`` with the milliseconds of an all-reduce of each size.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from typing import Any

from hilum import heap, machine

machine.default_threads()
heap.keep()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import distributed  # noqa: E402

from hilum.machine import Place  # noqa: E402
from hilum.training import group  # noqa: E402
from hilum.training.learner import TorchLearner  # noqa: E402
from hilum.training.loop import fit, order, steps_in_epoch  # noqa: E402
from hilum.training.parts import Films  # noqa: E402
from hilum.training.recipe import Recipe  # noqa: E402
from hilum.training.schedule import LearningRate  # noqa: E402


class Timed(TorchLearner):
    """Notes when the way forward ends and, at each step, the memory that is this process's own."""

    forward_ended = 0.0
    private_kib = 0

    def loss(self, x: torch.Tensor, y: torch.Tensor, films: int) -> torch.Tensor:
        found = super().loss(x, y, films)
        self.forward_ended = time.perf_counter()
        return found

    def step(self, batch: Any, learning_rate: float) -> float | None:
        found = super().step(batch, learning_rate)
        self.private_kib = max(self.private_kib, memory("RssAnon"))
        return found


def memory(field: str) -> int:
    """KiB by the kernel: ``RssAnon`` is this process's own, ``RssFile`` mapped from files."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":"))


def some(pixels: np.ndarray, count: int) -> Films:
    """The first films, every second one positive."""
    labels = np.arange(count, dtype=np.int8) % 2
    return Films(pixels, np.arange(count), labels, np.arange(count))


def steps(learner: Timed, films: Films, batch: int, count: int) -> dict[str, Any]:
    found, after = [], []
    # As in an epoch: in the films' own order the classes alternate, and each of two processes would
    # have one to itself, of which one takes longer.
    mixed = order(0, 0, len(films))
    plan = [mixed[(np.arange(batch) + k * batch) % len(films)] for k in range(count + 2)]
    learner.begin(films, learner.recipe.training.epochs - 1, plan)
    # The weights stay: what the way back costs hangs on which units live, and sides that learn
    # from other batches would soon differ in that.
    learner.step(plan[0], 0.0)  # a learner that prepares ahead is ahead from here to the end
    cpu = time.process_time()
    for chosen in plan[1 : count + 1]:
        began = time.perf_counter()
        learner.step(chosen, 0.0)
        found.append(1e3 * (time.perf_counter() - began))
        after.append(1e3 * (time.perf_counter() - learner.forward_ended))
    return {"ms": found, "backward_ms": after, "cpu_ms": 1e3 * (time.process_time() - cpu)}


def epoch(learner: Timed, recipe: Recipe, films: Films, validation: Films) -> dict[str, Any]:
    """Seconds of one epoch of hilum's own loop, validation included, after one that warms up."""
    rows: list[Any] = []
    last = recipe.training.epochs - 1
    rate = LearningRate(recipe, steps_in_epoch(len(films), recipe))
    learner.private_kib = 0
    cpu = time.process_time()
    fit(learner, recipe, films, validation, rate=rate, first=last, ended=rows.append)
    return {
        "seconds": rows[0].seconds,
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "private_mib": round(learner.private_kib / 1024, 1),
        "mapped_mib": round(memory("RssFile") / 1024, 1),
    }


def exchange(sizes: list[int], times: int) -> dict[str, Any]:
    found = []
    for size in sizes:
        values, taken = torch.ones(max(1, size // 4)), []
        for _ in range(times):
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(values)
            taken.append(1e3 * (time.perf_counter() - began))
        found.append(taken)
    return {"ms": found}


def main(name: str, on: str, path: str) -> None:
    recipe = Recipe.load(name, ['training.precision="float32"'])
    place = Place.parse(on).resolved()
    torch.set_num_threads(place.threads)
    pixels = np.load(path, mmap_mode="r")
    films = some(pixels, len(pixels))
    with ExitStack() as held:
        together = held.enter_context(group.joined(place)) if "RANK" in os.environ else None
        learner = Timed(recipe, place, (1.0, 1.0), together)
        held.callback(learner.leave)
        learner.begin(films, recipe.training.epochs - 1)
        shared = sum(p.numel() * p.element_size() for p in learner.model.parameters())
        print(json.dumps({"torch": torch.__version__, "gradient_bytes": shared}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if "exchange" in asked:
                answer = exchange(asked["exchange"], asked["times"])
            elif "films" in asked:
                few = some(pixels, min(asked["films"], 64))
                answer = epoch(learner, recipe, some(pixels, asked["films"]), few)
            else:
                answer = steps(learner, films, asked["batch"], asked["steps"])
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
