"""What goes wrong on a device while it trains, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from hilum.errors import PlaceUnavailable, TrainingStopped, memory_full
from hilum.machine import Place
from hilum.training import memory
from hilum.training.recipe import Recipe
from hilum.training.run import Run

# How torch and the libraries below it name a device that failed: cuda, cuDNN, cuBLAS.
_DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS",
           "NVML")  # fmt: skip

# A full memory of a GPU where it is no error of its own: cuBLAS's workspace.
_FULL = "CUBLAS_STATUS_ALLOC_FAILED"


@contextmanager
def explained(run: Run, recipe: Recipe, place: Place) -> Iterator[None]:
    """Turn a full memory and a lost GPU into ``TrainingStopped``.

    An exchange with other processes that broke is not the GPU's fault: see ``group.joined``.

    The run's checkpoint of the last whole epoch lies on the disk, whole: nothing is asked of a
    device that failed.

    Raises
    ------
    TrainingStopped
    """
    try:
        yield
    except distributed.DistError:
        raise
    except (RuntimeError, MemoryError, PlaceUnavailable) as error:
        if out_of_memory(error):
            raise TrainingStopped(_full(run, recipe, place)) from error
        if place.kind == "cuda" and device_lost(error):
            raise TrainingStopped(_lost(run, place, error)) from error
        raise


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, here or in what this error came from (a graph being captured)."""
    return any(
        isinstance(e, torch.OutOfMemoryError)
        or memory_full(e) is not None
        or ("out of memory" in str(e) and device_lost(e))
        or _FULL in str(e)
        for e in _chain(error)
    )


def device_lost(error: BaseException) -> bool:
    """Whether the device or its driver failed: no further call of this process will do better."""
    return any(
        isinstance(e, torch.AcceleratorError) or any(name in str(e) for name in _DEVICE)
        for e in _chain(error)
        if isinstance(e, RuntimeError | PlaceUnavailable)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _full(run: Run, recipe: Recipe, place: Place) -> str:
    size = recipe.size_at(len(run.epochs))
    text = (
        f"the memory of {place} is full: batches of {recipe.training.batch} films of {size} pixels."
    )
    # What was estimated was not enough; how far it was off is not known on a CPU.
    have = memory.memory_needed(recipe, place) * memory.copies(place) // 2
    if place.kind == "cuda":
        try:
            free, whole = memory.of_gpu()
            mine = torch.cuda.memory_allocated()
        except (PlaceUnavailable, RuntimeError):
            pass
        else:
            have = int(0.8 * min(2 * have, free + mine))
            text += f" {(free + mine) / 2**30:.1f} of its {whole / 2**30:.1f} GiB are ours to use."
    way = memory.advice(recipe, place, have)
    return f"{text} Train anew: {way}."


def _lost(run: Run, place: Place, error: BaseException) -> str:
    done = len(run.epochs)
    kept = f"the checkpoint of epoch {done} is whole" if done else "no epoch had ended"
    said = next((str(e).splitlines()[0] for e in _chain(error) if str(e)), type(error).__name__)
    return (
        f"the GPU does not answer any more ({place}): {said}. "
        f"{kept[0].upper()}{kept[1:]}; see nvidia-smi and the system's log. {run.resume_line}."
    )
