"""Where a training runs: the place with its threads and precision."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum import machine
from hilum.errors import PlaceUnavailable
from hilum.machine import Place
from hilum.networks import kernels
from hilum.networks.kernels import gpu
from hilum.storage import resume_command
from hilum.training import memory, sequential
from hilum.training.backends import make_learner
from hilum.training.learner import libraries
from hilum.training.loop import batches, order
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

PROBE_STEPS = 3


def resolve(on: str | None, recipe: Recipe, *, whole: bool = True) -> Place:
    """The place by name, or the best one here, with its threads filled in.

    Without a name, a CPU gets as many threads as cores are idle now: threads that wait for a
    core that another process holds make a step many times slower. The precision is the place's,
    else the recipe's, and may still be ``auto``.

    Parameters
    ----------
    whole : whether all of it must be here, and not one process's part alone

    Raises
    ------
    UsageError
        There is no such place.
    PlaceUnfit
        The reference is asked for what it does not do.
    PlaceUnavailable
    """
    if on is None:
        place = machine.best_place()
        if place.kind == "cpu":
            place = replace(place, threads=max(1, round(machine.free_cores())))
    else:
        place = Place.parse(on).resolved() if whole else of_one(on)
    if place.kind == "reference":
        sequential.check(recipe)
        return replace(place, precision="float32")
    if place.precision == "auto":
        place = replace(place, precision=recipe.training.precision)
    return place


def of_one(text: str) -> Place:
    """The place by name where other machines hold most of it: one process's part must be here.

    Raises
    ------
    UsageError, PlaceUnavailable
    """
    asked = Place.parse(text)
    return replace(replace(asked, processes=1).resolved(), processes=asked.processes)


def as_begun(text: str, folder: Path, find: Callable[[str], Place]) -> Place:
    """The place that a run was begun on, which ``--on`` cannot change.

    Raises
    ------
    PlaceUnavailable
        It is not here; the message says how to go on.
    """
    try:
        return find(text)
    except PlaceUnavailable as error:
        place, (what, *_) = Place.parse(text), str(error).split(". ")
        way = (
            "with as many processes as there are GPUs (torchrun --nproc-per-node N -m "
            f"{resume_command('train', folder)})"
            if place.kind == "cuda" and place.processes > 1
            else "train anew with another --on"
        )
        raise PlaceUnavailable(
            f"{what}, and the run was begun there. Go on with it on a machine that has them, or "
            f"{way}."
        ) from error


def settle_precision(
    place: Place, recipe: Recipe, films: Films, weights: tuple[float, float]
) -> tuple[Place, dict[str, float]]:
    """``auto`` made float32 or bfloat16 by a short probe on the first real batches.

    Returns
    -------
    The place, and milliseconds a step of each precision that was tried (empty where there was
    nothing to choose)
    """
    if place.precision != "auto":
        return place, {}
    able = {
        "cpu": machine.has_bfloat16,
        "cuda": torch.cuda.is_bf16_supported,
        "mps": lambda: False,
    }[place.kind]
    if not able():
        return replace(place, precision="float32"), {}
    found: dict[str, float] = {}
    epoch = recipe.training.epochs - 1  # the largest films, where most of the time goes
    every = order(recipe.training.seed, epoch, len(films))
    # One process's share of the first batch: the memory that was checked is for no more.
    batch = batches(every, recipe.training.batch, "keep")[0][:: place.processes]
    for precision in ("float32", "bfloat16"):
        learner = make_learner(recipe, replace(place, precision=precision), weights)
        times = []
        for _ in range(PROBE_STEPS + 1):  # the first one warms up
            learner.begin(films, epoch, [batch])
            began = time.perf_counter()
            learner.step(batch, 0.0)
            learner.finish()
            times.append(time.perf_counter() - began)
        found[precision] = round(1e3 * min(times[1:]), 3)
        del learner  # before the next one asks how much memory is free
    faster = min(found, key=lambda name: found[name])
    return replace(place, precision=faster), found


def describe(place: Place, recipe: Recipe) -> dict[str, Any]:
    """Versions, processor and kernels, as ``environment.json`` keeps them."""
    import platform

    import onnxruntime

    import hilum

    found = {
        "hilum": hilum.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": machine.processor(),
        "cores": machine.cores(),
        "memory_gib": round(machine.memory_bytes() / 2**30, 1),
        "place": str(place),
        "threads": place.threads,
        "processes": place.processes,
        "precision": place.precision,
    }
    if place.kind == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_memory_gib"] = round(memory.of_gpu()[1] / 2**30, 1)
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        if recipe.network.name == "paper2021":  # the one that they were written for
            found["kernels"] = gpu.status()
    if place.kind == "cpu":
        found["kernels"] = kernels.status(*libraries(recipe))
    return found
