"""The same training in processes that torchrun has started, on one machine or several.

    torchrun --nproc-per-node 2 -m hilum train films/ --on cpu:1 -o run

Rank 0 alone writes the run folder. Each machine needs the films at the same path and makes its
own cache once; each process reads its shares of the batches from there. Where torchrun starts the
processes again after one has died, the run goes on from its last checkpoint.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from hilum import machine
from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.errors import Refused, UsageError
from hilum.machine import Place
from hilum.progress import SILENT, Progress
from hilum.training import group
from hilum.training import train as single
from hilum.training.parts import films_of
from hilum.training.recipe import Recipe
from hilum.training.run import Run, claim, interruptible, reopen


def train(
    manifest: Manifest,
    recipe: Recipe,
    place: Place,
    out: Path | None,
    workers: int | None,
    progress: Progress,
) -> Run:
    """Train as one of torchrun's processes; every rank returns the same run.

    Raises
    ------
    UsageError, Refused, TrainingStopped, Interrupted
    """
    place = _mine(place)
    with ExitStack() as held:
        with group.joined(place) as together:
            if together.rank:
                progress = SILENT

            def start() -> Path:
                return _start(held, manifest, recipe, place, out).folder.resolve()

            run = Run(together.from_first(start))
            _alike(together, manifest)
            cache = Cache.fill(manifest, recipe.preprocessing, workers=workers, progress=progress)
            parts = films_of(manifest, cache, "train"), films_of(manifest, cache, "validation")
            place = together.from_first(
                lambda: single.settle(run, recipe, manifest, parts, progress)
            )
            single.announce(recipe, place, parts, progress)
            machine.set_threads(place.threads or 1)
            learner = single.learn(run, recipe, parts, place, progress, together)
            first = together.rank == 0
        if first:
            alone = replace(place, processes=1)
            single.seal(run, recipe, manifest, cache, parts, alone, learner, progress)
    return run


def _mine(place: Place) -> Place:
    """The place over all processes; threads that were not named are shared out here."""
    size, local = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if place.processes not in (1, size):
        raise UsageError(
            f"torchrun started {size} processes and the place names {place.processes}: {place}. "
            "Name one process's place, for example --on cpu:1."
        )
    if place.kind not in ("cpu", "cuda"):
        raise UsageError(f"no group of processes trains there: {place}. Leave torchrun out.")
    threads = place.threads
    if place.kind == "cpu" and threads * local > machine.cores():
        threads = max(1, machine.cores() // local)
    return replace(place, processes=size, threads=threads)


def _start(
    held: ExitStack, manifest: Manifest, recipe: Recipe, place: Place, out: Path | None
) -> Run:
    """On rank 0: a new run folder, or after a restart the one that was begun."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if again and out is not None and (out / "recipe.toml").is_file():
        run = held.enter_context(reopen(out))
        held.enter_context(interruptible(run))
        return run
    run = held.enter_context(claim(out, recipe.name))
    held.enter_context(interruptible(run))
    single.begin(run, recipe, manifest, place)
    return run


def _alike(together: group.Group, manifest: Manifest) -> None:
    """Refuse a group whose members see other films or compute by another torch."""
    mine = {"the films": manifest.digest, "torch": torch.__version__}
    theirs = together.from_first(lambda: mine)
    for what, value in mine.items():
        if value != theirs[what]:
            raise Refused(
                f"the processes differ in {what}: rank {together.rank} has {value[:16]}, rank 0 "
                f"{theirs[what][:16]}. Give every machine the same."
            )
