"""Where a training runs: the place with its threads and precision, and whether it fits there."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hilum import machine
from hilum.errors import RecipeError, Refused
from hilum.machine import Place
from hilum.training.learner import TorchLearner, new_network
from hilum.training.loop import batches, order
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

PROBE_STEPS = 3


def resolve(on: str | None, recipe: Recipe) -> Place:
    """The place by name, or the best one here, with its threads filled in.

    Without a name, a CPU gets as many threads as cores are idle now: threads that wait for a
    core that another process holds make a step many times slower. The precision is the place's,
    else the recipe's, and may still be ``auto``.

    Raises
    ------
    UsageError, PlaceUnavailable
    """
    if on is None:
        place = machine.best_place()
        if place.kind == "cpu":
            place = replace(place, threads=max(1, round(machine.free_cores())))
    else:
        place = Place.parse(on).resolved()
    if place.kind == "reference":
        return replace(place, precision="float32")
    if place.precision == "auto":
        place = replace(place, precision=recipe.training.precision)
    return place


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
    plan = batches(order(recipe.training.seed, epoch, len(films)), recipe.training.batch, "keep")
    for precision in ("float32", "bfloat16"):
        learner = TorchLearner(recipe, replace(place, precision=precision), weights)
        times = []
        for _ in range(PROBE_STEPS + 1):  # the first one warms up
            learner.begin(films, epoch)
            began = time.perf_counter()
            learner.step(plan[0], 0.0)
            learner.finish()
            times.append(time.perf_counter() - began)
        found[precision] = round(1e3 * min(times[1:]), 3)
    faster = min(found, key=lambda name: found[name])
    return replace(place, precision=faster), found


def memory_needed(recipe: Recipe, place: Place) -> int:
    """Bytes that one process of a training needs, estimated before anything is allocated.

    Weights with their gradient and the optimiser's two moments, and for one batch the output of
    each layer twice: kept for the way back, and its gradient. Films stay in a memory map.

    Raises
    ------
    RecipeError
        The network does not take films of these sizes.
    """
    held = [0]

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and not list(module.children()):
            held[0] += output.numel()

    most = 0
    sizes = {recipe.size_at(epoch) for epoch in range(min(recipe.training.epochs, 1000))}
    network = new_network(recipe)
    weights = sum(p.numel() for p in network.parameters())
    shadow = network.to("meta")
    shadow.apply(lambda module: module.register_forward_hook(count))
    batch = -(-recipe.training.batch // place.processes)
    for size in sorted({*sizes, recipe.preprocessing.size}):
        held[0] = 0
        try:
            shadow(torch.empty(batch, 1, size, size, device="meta"))
        except (RuntimeError, ValueError) as error:
            raise RecipeError(
                f"the network does not take such films: {recipe.network.name} at {size} pixels "
                f"({str(error).splitlines()[0]}). Change preprocessing.size or sizes.phases."
            ) from None
        most = max(most, held[0])
    width = 2 if place.precision == "bfloat16" else 4
    return 4 * 4 * weights + 2 * width * most


def check_memory(recipe: Recipe, place: Place) -> int:
    """Refuse what cannot fit; the estimate in bytes.

    Raises
    ------
    Refused
    """
    have = torch.cuda.mem_get_info()[0] if place.kind == "cuda" else machine.memory_bytes()
    need = memory_needed(recipe, place) * (place.processes if place.kind == "cpu" else 1)
    if need > have:
        fits = max(1, int(recipe.training.batch * have / need))
        raise Refused(
            f"the recipe needs more memory than there is: about {need / 2**30:.1f} GiB of "
            f"{have / 2**30:.1f} GiB. Try --set training.batch={fits}, or a smaller "
            "preprocessing.size."
        )
    return need


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
        found["cuda"] = torch.version.cuda
    if place.kind == "cpu" and recipe.network.name == "paper2021":
        from hilum.networks import kernels

        found["kernels"] = kernels.status()
    return found
