"""The same training in processes that torchrun has started, on one machine or several.

    torchrun --nproc-per-node 2 -m hilum train films/ --on cpu:1 -o run

Rank 0 alone writes the run folder. Each machine needs the films at the same path and makes its
own cache once; each process reads its shares of the batches from there. Where torchrun starts the
processes again after one has died, the run goes on from its last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from hilum import machine
from hilum.datasets.manifest import Manifest
from hilum.errors import Refused, UsageError
from hilum.machine import Place
from hilum.progress import SILENT, Progress
from hilum.training import group, placement
from hilum.training import train as single
from hilum.training.parts import open_films
from hilum.training.recipe import Recipe
from hilum.training.rollcall import RollCall
from hilum.training.run import Run, claim, interruptible, reopen

# What rank 0 opens and everybody is told of: the run folder, its recipe, and its films or, where
# each process was given them, their digest.
Opened = tuple[Path, Recipe, Manifest | str]


def train(
    manifest: Manifest,
    recipe: Recipe,
    place: Place,
    out: Path | None,
    workers: int | None,
    progress: Progress,
) -> Run:
    """Train as one of torchrun's processes; every rank returns the same run.

    Parameters
    ----------
    place : over all processes, as :func:`mine` gives it

    Raises
    ------
    UsageError, Refused, TrainingStopped, Interrupted
    """

    def start(held: ExitStack, roll: RollCall) -> Opened:
        run = _start(held, roll, manifest, recipe, place, out)
        return run.folder.resolve(), recipe, manifest.digest

    return _together(place, start, workers, progress, manifest)


def check() -> None:
    """Refuse what a launcher says of the group where it cannot be.

    Raises
    ------
    Refused
    """
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise Refused(
            f"no such process of a group: RANK={rank}, WORLD_SIZE={size}. Start hilum under "
            "torchrun, or number the processes from 0 to WORLD_SIZE - 1."
        )
    if not (local.isdecimal() and 0 < int(local) <= int(size)):
        raise Refused(
            f"no number of processes of this machine: LOCAL_WORLD_SIZE={local} of {size}. Leave "
            "it out where there is one."
        )


def voice(progress: Progress) -> Progress:
    """What tells people of the films before the processes have met: that of rank 0 alone."""
    return progress if os.environ.get("RANK") == "0" else SILENT


def resume(folder: Path, workers: int | None, progress: Progress) -> Run:
    """Go on with a run as one of torchrun's processes; only rank 0 has to see its folder.

    The number of processes may be another one than before: the batches stay the same.

    Raises
    ------
    UsageError, Locked, Refused, TrainingStopped, Interrupted
    """
    check()
    asked = Run(folder).environment.get("asked")
    place = placement.of_one(asked) if asked else machine.best_place()

    def start(held: ExitStack, roll: RollCall) -> Opened:
        run = held.enter_context(reopen(folder))
        held.enter_context(interruptible(run))
        return folder.resolve(), run.recipe, Manifest.read(folder / "films.csv")

    return _together(mine(replace(place, processes=1)), start, workers, progress)


def _together(
    place: Place,
    start: Callable[[ExitStack, RollCall], Opened],
    workers: int | None,
    progress: Progress,
    own: Manifest | None = None,
) -> Run:
    """Train what rank 0 starts.

    Parameters
    ----------
    own : the films that this process was given, which must be rank 0's
    """
    with ExitStack() as held:
        with group.joined(place) as together:
            if together.rank:
                progress = SILENT
            folder, recipe, films = together.from_first(lambda: start(held, together.roll))
            run, size = Run(folder), together.size
            together.roll.advice += f". torchrun may start again; if not: {run.resume_line}"
            manifest = films if own is None else _same_films(together, own, films)
            cache, parts = open_films(
                manifest, recipe, together.roll, workers=workers, progress=progress
            )
            place = together.from_first(
                lambda: single.settle(run, recipe, manifest, parts, progress, placement.of_one)
            )
            place = replace(place, processes=size)
            single.make_room(place)
            single.announce(recipe, place, parts, progress)
            machine.set_threads(place.threads or 1)
            learner = single.learn(run, recipe, parts, place, progress, together)
            first = together.rank == 0
        if first and not run.finished:
            single.seal(run, recipe, manifest, cache, parts, place, learner, progress)
    return run


def mine(place: Place) -> Place:
    """The place over all processes; threads that were not named are shared out here.

    Parameters
    ----------
    place : of one process, or of all of them

    Raises
    ------
    UsageError
        It names another number of processes, or one where no group trains.
    """
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
    held: ExitStack,
    roll: RollCall,
    manifest: Manifest,
    recipe: Recipe,
    place: Place,
    out: Path | None,
) -> Run:
    """On rank 0: a new run folder, or the one that an earlier round of this job has begun."""
    begun = roll.recall("run")
    if begun is not None and (Path(begun) / "recipe.toml").is_file():
        run = held.enter_context(reopen(Path(begun)))
        held.enter_context(interruptible(run))
        if Manifest.read(run.folder / "films.csv").digest != manifest.digest:
            raise Refused(
                f"the films have changed since the run began: {run.folder}. Put them back, or "
                "train anew."
            )
        return run
    run = held.enter_context(claim(out, recipe.name))
    held.enter_context(interruptible(run))
    single.begin(run, recipe, manifest, place)
    roll.remember("run", str(run.folder.resolve()))
    return run


def _same_films(together: group.Group, own: Manifest, digest: str) -> Manifest:
    """This process's films; refuses a group whose members see other films."""
    if own.digest != digest:
        raise Refused(
            f"the processes differ in the films: {together.roll.named([together.rank])} has "
            f"{own.digest[:16]}, rank 0 {digest[:16]}. Give every machine the same."
        )
    return own
