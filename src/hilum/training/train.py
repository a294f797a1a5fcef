"""From a data set to a sealed bundle.

run = hilum.train("films/", recipe="fast")
run.bundle.metrics
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum import heap, machine
from hilum.datasets.cache import Cache
from hilum.datasets.index import open_data
from hilum.datasets.manifest import Manifest, number_of
from hilum.errors import Refused, require
from hilum.machine import Place
from hilum.native import library
from hilum.networks import arithmetic, kernels
from hilum.networks.build import build, layer_table
from hilum.progress import SILENT, Progress
from hilum.storage import write_file
from hilum.training import group, leader, memory, placement
from hilum.training.backends import make_learner
from hilum.training.faults import explained
from hilum.training.finish import check_names, finish
from hilum.training.learner import Learner, TorchLearner, class_weights, libraries
from hilum.training.loop import Epoch, fit, steps_in_epoch
from hilum.training.parts import Films, films_digest, open_films, pixels_digest
from hilum.training.pictures import augmented, curves
from hilum.training.recipe import Recipe
from hilum.training.run import Run, claim, interruptible, reopen
from hilum.training.schedule import LearningRate


def train(
    data: Manifest | str | Path | Sequence[str | Path],
    recipe: Recipe | str | Path = "fast",
    *,
    on: str | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Run:
    """Train by a recipe into a new run folder.

    Parameters
    ----------
    data : a manifest, or whatever ``hilum.index`` takes
    on : the place, for example ``cpu:2@bfloat16``; the best one here where None
    seed : in place of the recipe's
    out : the run folder; a dated one in the working folder where None
    overrides : ``key=value`` changes of the recipe
    workers : decoding processes
    options : of ``hilum.index``

    Raises
    ------
    RecipeError, UsageError, Refused, TrainingStopped, Interrupted
    """
    require("train")
    heap.keep()
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe, overrides)
    if seed is not None:
        recipe = replace(recipe, training=replace(recipe.training, seed=seed))
    check_names(recipe)
    place = placement.resolve(on, recipe, whole=not group.by_torchrun())
    folder = None if out is None else Path(out)
    if group.by_torchrun():
        from hilum.training import torchrun

        torchrun.check()
        group.take_device(place)  # before anything asks a GPU: every process its own
        place = torchrun.mine(place)
        memory.check_memory(recipe, place, films=1)
        manifest = open_data(data, progress=torchrun.voice(progress), **options)
        memory.check_memory(recipe, place, manifest.part.count("train"))
        _build_ahead(recipe, place)
        return torchrun.train(manifest, recipe, place, folder, workers, progress)
    memory.check_memory(recipe, place, films=1)  # what never fits is told at once
    with claim(folder, recipe.name) as run, interruptible(run):
        manifest = open_data(data, progress=progress, **options)
        memory.check_memory(recipe, place, manifest.part.count("train"))
        _build_ahead(recipe, place)
        begin(run, recipe, manifest, place)
        _go(run, recipe, manifest, workers, progress)
        return run


def _build_ahead(recipe: Recipe, place: Place) -> None:
    """Begin to build the kernels: the idle cores have been counted, and the films are known."""
    if place.kind == "cpu":
        library.build_ahead(libraries(recipe))


def resume(folder: Path | str, *, workers: int | None = None, progress: Progress = SILENT) -> Run:
    """Go on with a run that was interrupted; it ends as if it had not been.

    Place, threads and precision are those that the run was begun with.

    Raises
    ------
    UsageError, Locked, Refused, PlaceUnavailable, TrainingStopped, Interrupted
    """
    require("train")
    heap.keep()
    if group.by_torchrun():
        from hilum.training import torchrun

        return torchrun.resume(Path(folder), workers, progress)
    with reopen(Path(folder)) as run:
        if run.finished:
            progress.say(f"this run has finished already: {run.folder}.")
            return run
        manifest = Manifest.read(run.folder / "films.csv")
        with interruptible(run):
            _go(run, run.recipe, manifest, workers, progress)
        return run


def begin(run: Run, recipe: Recipe, manifest: Manifest, place: Place) -> None:
    """Write what a run is before it does anything; from here on it can be resumed."""
    _check_parts(manifest)
    run.write_environment({"asked": str(place)})
    manifest.write(run.folder / "films.csv")
    write_file(run.folder / "recipe.toml", recipe.toml())  # last: now it is a run


def _go(
    run: Run, recipe: Recipe, manifest: Manifest, workers: int | None, progress: Progress
) -> None:
    """Train from the last checkpoint, or the start, to the sealed bundle."""
    cache, parts = open_films(manifest, recipe, workers=workers, progress=progress)
    place = settle(run, recipe, manifest, parts, progress)
    announce(recipe, place, parts, progress)
    if place.processes > 1:
        make_room(place)
        leader.lead(run, place, progress)
    learner = learn(run, recipe, parts, replace(place, processes=1), progress)
    seal(run, recipe, manifest, cache, parts, place, learner, progress)


def make_room(place: Place) -> None:
    """Give back what the search for a precision has left: others of the group need it."""
    if place.kind == "cuda":
        torch.cuda.empty_cache()
    else:
        heap.give_back()


def announce(recipe: Recipe, place: Place, parts: tuple[Films, Films], progress: Progress) -> None:
    """Tell what is trained, on what and where: the network's layers, films, place, precision."""
    network = build(recipe.network.name, recipe.preprocessing.size, **recipe.network.options)
    size = recipe.preprocessing.size
    progress.say(f"\n{arithmetic.text(layer_table(network, size))}\n")
    cores, asked = machine.cores(), place.threads * memory.copies(place)  # of this machine
    if place.kind == "cpu" and asked > cores:
        progress.warn(
            f"{asked} threads for {cores} cores: they wait for each other, and a step takes longer "
            f"than on {cores}, many times beside other work. Use --on cpu:{cores}."
            if place.processes == 1
            else f"{place} wants {asked} cores here and there are {cores}: a step takes about "
            f"{asked / cores:.1f} times what it would with {asked} cores, and longer than in fewer "
            f"processes, since they wait for each other. Use at most {cores}."
        )
    idle = ""
    if place.kind == "cpu" and asked < cores:
        idle = f" ({cores} cores are granted)"
    progress.say(
        f"recipe {recipe.name}: {len(parts[0]):,} films to train, {len(parts[1]):,} to validate, "
        f"{number_of(recipe.training.epochs, 'epochs')} in batches of {recipe.training.batch}, on "
        f"{place}{idle}"
    )


def settle(
    run: Run,
    recipe: Recipe,
    manifest: Manifest,
    parts: tuple[Films, Films],
    progress: Progress,
    find: Callable[[str], Place] = lambda text: Place.parse(text).resolved(),
) -> Place:
    """The place with threads and precision as the run was begun with, or settled now.

    Parameters
    ----------
    find : a place by its name, if it exists here
    """
    before = run.environment
    if "place" in before:
        place = placement.as_begun(before["place"], run.folder, find)
        if place.kind == "cpu" and place.threads > machine.cores():
            progress.warn(
                f"the run was begun with {place.threads} threads and there are "
                f"{machine.cores()} cores here: it goes on with as many, slowly, so that the "
                "result stays the same."
            )
        machine.set_threads(place.threads or 1)
        return place
    place = find(before["asked"])
    machine.set_threads(place.threads or 1)
    weights = class_weights(parts[0].labels, recipe.training.class_weights)
    with explained(run, recipe, place):
        place, probe = placement.settle_precision(place, recipe, parts[0], weights)
    run.write_environment({**placement.describe(place, recipe), "milliseconds_a_step": probe})
    augmented(parts[0], recipe, manifest.classes, run.folder / "augmented.png")
    return place


def seal(
    run: Run,
    recipe: Recipe,
    manifest: Manifest,
    cache: Cache,
    parts: tuple[Films, Films],
    place: Place,
    learner: Learner,
    progress: Progress,
) -> None:
    """Finish the model and write what is left of the run folder, the bundle last.

    Parameters
    ----------
    place : where it was trained; on a CPU the cores that it had here finish it, else all there are
    """
    threads = machine.cores()
    if place.kind == "cpu":
        threads = min(threads, place.threads * memory.copies(place))
    machine.set_threads(threads)
    with explained(run, recipe, place):
        network = learner.network()
    with ThreadPoolExecutor(1) as beside:  # the export keeps one core alone
        drawn = beside.submit(curves, run.epochs, run.folder / "curves.png")
        given = network, recipe, manifest, cache, *parts
        done = finish(*given, threads=threads, progress=progress)
        drawn.result()
    done.scores.write(run.folder / "scores.csv")
    run.write_environment(
        {**run.environment, "parity": done.parity, "auroc_under_shifts": done.separation}
    )
    done.bundle.write(run.model_folder)
    if done.bundle.chance:
        progress.warn(
            f"this model is {done.bundle.chance} Look at {run.folder / 'curves.png'}; a lower "
            "optimiser.lr, more epochs or more films may help."
        )


def learn(
    run: Run,
    recipe: Recipe,
    parts: tuple[Films, Films],
    place: Place,
    progress: Progress,
    together: group.Group | None = None,
) -> Learner:
    """Run the epochs that are still to come, with a checkpoint after each.

    Parameters
    ----------
    parts : training and validation films
    together : the group that this process belongs to; its first member alone writes
    """
    begun_with = {
        "recipe": recipe.digest,
        "films": films_digest(parts),
        "pixels": pixels_digest(parts),
    }
    with explained(run, recipe, place):
        weights = class_weights(parts[0].labels, recipe.training.class_weights)
        learner = make_learner(recipe, place, weights, together)
        rate = LearningRate(recipe, steps_in_epoch(len(parts[0]), recipe))
        epochs: list[Epoch] = []
        last = run.last() if together is None else together.from_first(run.last)
        if last is not None:
            state, epochs = last
            _same(run, state, begun_with, progress)
            learner.restore(state["learner"])
            rate.restore(state["rate"])
        writes = together is None or together.rank == 0
        if writes and epochs:
            run.write_epochs(epochs)  # a kill may have come between the checkpoint and its table
            for epoch in epochs if len(epochs) < recipe.training.epochs else ():
                progress.row("training", epoch.as_dict())

        def ended(epoch: Epoch) -> None:
            epochs.append(epoch)
            if writes:
                state = {**begun_with, "learner": learner.state(), "rate": rate.state()}
                run.checkpoint(state, epochs)

        if len(epochs) < recipe.training.epochs:
            learner.warm_up(*parts, len(epochs))
            if writes and place.kind == "cpu":
                _say_if_slow(recipe, progress)
        fit(learner, recipe, *parts, rate=rate, first=len(epochs), ended=ended, progress=progress)
        if together is not None and isinstance(learner, TorchLearner):
            learner.leave()
        return learner


def _say_if_slow(recipe: Recipe, progress: Progress) -> None:
    if not kernels.available(*libraries(recipe)):
        progress.warn(f"{kernels.status(*libraries(recipe))}. See hilum doctor.")


def work(run: Run, progress: Progress) -> None:
    """What one process of a group does for a run whose folder and cache are ready."""
    heap.keep()
    recipe, place = run.recipe, Place.parse(run.environment["place"])
    machine.set_threads(place.threads or 1)
    manifest = Manifest.read(run.folder / "films.csv")
    with group.joined(place) as together:
        together.roll.advice = run.resume_line
        _, parts = open_films(manifest, recipe, together.roll)
        learn(run, recipe, parts, place, progress, together)


def _check_parts(manifest: Manifest) -> None:
    part, label = np.array(manifest.part), np.asarray(manifest.label)
    for name in ("train", "validation"):
        for k, words in enumerate(manifest.classes):
            if not ((part == name) & (label == k)).any():
                raise Refused(
                    f"the {name} part has no films of the class {words}. Give more films, or "
                    "index them with other shares."
                )


def _same(run: Run, state: dict[str, Any], now: dict[str, str], progress: Progress) -> None:
    """Refuse a checkpoint of another recipe, or of other films: one that has gone, for example.
    Other pixels of the same films are told: files do not say who changed them."""
    if state["recipe"] != now["recipe"]:
        raise Refused(
            f"the recipe was changed since the run began: {run.folder / 'recipe.toml'}. Put it "
            "back, or train anew with --recipe."
        )
    if state.get("films", now["films"]) != now["films"]:  # checkpoints of before do not say
        raise Refused(
            "the films that can be read are not those that the run began with. Put them back "
            f"({run.folder / 'films.csv'} names them all), or train anew."
        )
    if state.get("pixels", now["pixels"]) != now["pixels"]:
        progress.warn(
            "films have other pixels than when the run began: a file was replaced, or another "
            "version of a library decodes them. What is learnt from here on is learnt from these."
        )
