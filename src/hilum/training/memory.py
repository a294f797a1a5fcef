"""What a training needs of memory, what there is, and what would fit."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hilum import machine
from hilum.errors import PlaceUnavailable, RecipeError, Refused, UsageError, memory_full
from hilum.machine import Place
from hilum.native import library
from hilum.networks.build import build
from hilum.training import group
from hilum.training.recipe import Recipe
from hilum.training.shards import members

#: Bytes of a process that has loaded torch, of its own: what hundreds of them fill a machine with.
PROCESS = 200 << 20


def outputs_a_film(recipe: Recipe, *sizes: int) -> int:
    """Values that the layers give out for one film, at the largest of these sizes.

    Raises
    ------
    RecipeError
        The network does not take films of these sizes.
    MemoryError, RuntimeError
        There is not even memory for one film.
    """
    held = [0]

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and not list(module.children()):
            held[0] += output.numel()

    most = 0
    # Without memory a network runs through torch's compiler, which takes two seconds to load: a
    # small film and network are sooner really computed, layer by layer.
    weights = sum(p.numel() for p in _network(recipe, "meta").parameters())
    device = "cpu" if max(sizes) <= 512 and weights < 10_000_000 else "meta"
    # In float64, which no kernel computes: nothing has to be built for it.
    shadow = _network(recipe, device).to(torch.float64).eval()
    shadow.kernels = False
    shadow.apply(lambda module: module.register_forward_hook(count))
    for size in sorted(sizes):
        held[0] = 0
        try:
            with torch.no_grad():
                shadow(torch.zeros(1, 1, size, size, device=device, dtype=torch.float64))
        except (RuntimeError, ValueError) as error:
            if memory_full(error):
                raise
            raise RecipeError(
                f"the network does not take such films: {recipe.network.name} at {size} pixels "
                f"({str(error).splitlines()[0]}). Change preprocessing.size or sizes.phases."
            ) from None
        most = max(most, held[0])
    return most


def _network(recipe: Recipe, device: str) -> Any:
    """The recipe's network with any values; on ``meta`` with none, which takes no time."""
    with torch.device(device):
        return build(recipe.network.name, recipe.preprocessing.size, **recipe.network.options)


def memory_needed(recipe: Recipe, place: Place) -> int:
    """Bytes that one process of a training needs, estimated before anything is allocated.

    Weights with a gradient of each shard and the optimiser's two moments, and for one batch what a
    step holds for each value that a layer gives out: on a CPU as measured at its peak, with kernels
    or without (the network's ``held``); elsewhere the value and its gradient. A CPU that computes
    fewer shards at once than there are holds so many. Films stay in a memory map. On a CPU the
    process itself, and with several its part of the memory in which they exchange gradients; a GPU
    is asked when it holds that already.

    Raises
    ------
    RecipeError
        The network does not take films of these sizes.
    """
    epochs = range(min(recipe.training.epochs, 1000))
    sizes = {recipe.size_at(epoch) for epoch in epochs} | {recipe.preprocessing.size}
    batch = -(-recipe.training.batch // place.processes)
    precision = "bfloat16" if place.precision == "bfloat16" else "float32"
    network = _network(recipe, "meta")
    shards = 1  # with a gradient of its own
    if place.kind == "cpu":
        if place.processes == 1:
            shards = min(recipe.training.shards, batch)
            batch = min(batch, -(-batch // shards) * members(place.threads or 1, shards))
        fast = getattr(network, "kernels", True) and all(map(library.expected, network.libraries))
        value = network.held["kernels" if fast else "torch"][precision]
    else:
        value = 4 if precision == "bfloat16" else 8
    weights = sum(p.numel() for p in network.parameters())
    own = 0 if place.kind == "cuda" else PROCESS
    each_weight = 24 if place.kind == "cpu" and place.processes > 1 else 12 + 4 * shards
    return own + each_weight * weights + int(value * batch * outputs_a_film(recipe, *sizes))


def of_gpu(device: torch.device | None = None) -> tuple[int, int]:
    """Bytes of a GPU that are free for this process, and all of them.

    What torch's allocator holds without using it counts as free.

    Raises
    ------
    PlaceUnavailable
        The GPU does not answer: it is lost, or another process has it for itself.
    """
    try:
        free, whole = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    except RuntimeError as error:
        raise PlaceUnavailable(
            f"the GPU cannot be used: {str(error).splitlines()[0]}. Look at nvidia-smi and hilum "
            "doctor, or use --on cpu."
        ) from error
    return free + idle, whole


def check_memory(recipe: Recipe, place: Place, films: int | None = None) -> int:
    """Refuse what cannot fit; the estimate in bytes.

    Parameters
    ----------
    films : how many there are to train, where that is known: a batch holds no more

    Raises
    ------
    Refused, PlaceUnavailable
    """
    if films:
        batch = min(recipe.training.batch, films)
        recipe = replace(recipe, training=replace(recipe.training, batch=batch))
    have = whole = machine.memory_bytes()
    name = "the GPU"
    if place.kind == "cuda":
        if place.processes == 1 or group.by_torchrun():  # the others look after their own
            have, whole = of_gpu()
        else:  # the fullest of them decides
            found = [(*of_gpu(torch.device("cuda", k)), k) for k in range(place.processes)]
            have, whole, number = min(found)
            name = f"GPU {number}"
    held = whole - have
    need = memory_needed(recipe, place) * copies(place)
    if need <= have:
        return need
    there = f"{have / 2**30:.1f} GiB"
    if place.kind == "cuda" and need <= whole:
        raise Refused(
            f"{name} is full: about {need / 2**30:.1f} GiB are needed and {there} of its "
            f"{whole / 2**30:.1f} GiB are free, {held / 2**30:.1f} GiB are in use (nvidia-smi says "
            f"by whom). Wait, or {advice(recipe, place, have)}."
        )
    raise Refused(
        f"the recipe needs more memory than there is: about {need / 2**30:.1f} GiB of {there}. "
        f"{advice(recipe, place, have).capitalize()}."
    )


def advice(recipe: Recipe, place: Place, have: int) -> str:
    """What to change so that a training fits into ``have`` bytes: a batch, a size, as far as
    there are any; smaller than now in any case, since now did not fit."""
    batch, size = fitting_batch(recipe, place, have), fitting_size(recipe, place, have)
    ways = []
    if batch:
        ways.append(f"--set training.batch={batch}")
    if size:
        ways.append(f"--set preprocessing.size={size}")
    return f"try {', or '.join(ways)}" if ways else "take another place or a smaller network"


def fitting_batch(recipe: Recipe, place: Place, have: int) -> int:
    """The largest smaller batch that fits, 0 where a single film does not."""

    def fits(batch: int) -> bool:
        smaller = replace(recipe, training=replace(recipe.training, batch=batch))
        return memory_needed(smaller, place) * copies(place) <= have

    return _largest(fits, 1, recipe.training.batch - 1)


def fitting_size(recipe: Recipe, place: Place, have: int) -> int:
    """The largest smaller size, in steps of 8, at which the recipe's batch fits; 0 for none.

    A recipe whose size changes over the epochs would have to change all of them: 0.
    """
    if recipe.sizes.phases:
        return 0

    def fits(eights: int) -> bool:
        preprocessing = replace(recipe.preprocessing, size=8 * eights)
        try:
            need = memory_needed(replace(recipe, preprocessing=preprocessing), place)
        except (UsageError, ValueError):
            return True  # too small for the network: whatever fits is larger
        return need * copies(place) <= have

    size = 8 * _largest(fits, 1, (recipe.preprocessing.size - 1) // 8)
    try:
        smaller = replace(recipe, preprocessing=replace(recipe.preprocessing, size=size))
        memory_needed(smaller, place)
    except (UsageError, ValueError):
        return 0
    return size


def copies(place: Place) -> int:
    """Processes that share one memory: on a CPU those of this machine; a GPU has its own."""
    if place.kind != "cpu":
        return 1
    if group.by_torchrun():  # the others are on other machines
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return place.processes


def _largest(fits: Any, low: int, high: int) -> int:
    """The largest number from ``low`` to ``high`` that fits, where all smaller ones do; else 0."""
    found = 0
    while low <= high:
        middle = (low + high) // 2
        if fits(middle):
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return found
