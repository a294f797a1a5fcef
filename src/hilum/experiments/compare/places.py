"""Which places a comparison is of, by their full names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hilum import machine
from hilum.errors import UsageError
from hilum.machine import Place
from hilum.training.recipe import Recipe


def several(on: Sequence[str], recipe: Recipe) -> tuple[str, ...]:
    """Places that can be compared, by their full names: two or more."""
    places = canonical(on, recipe)
    if len(places) < 2:
        raise UsageError("one place cannot be compared: name two or more with --on.")
    return places


def canonical(on: Sequence[str], recipe: Recipe) -> tuple[str, ...]:
    """Places by their full names, ``cpu`` as ``cpu:2``; the same one twice is refused."""
    names: dict[Place, str] = {}
    for text in on:
        place = _meant(text, recipe)
        if place in names:
            raise UsageError(f"the same place twice: {text} is {names[place]} here. Name it once.")
        names[place] = _name(text)
    return tuple(names.values())


def among(places: Sequence[str], baseline: str, recipe: Recipe) -> str:
    """The one of these places that is meant as the baseline; raises ``UsageError``."""
    meant = _meant(baseline, recipe)
    for name in places:
        if _meant(name, recipe) == meant:
            return name
    raise UsageError(f"the baseline is not among the places: {_name(baseline)}. Add --on.")


def _name(text: str) -> str:
    place = Place.parse(text)
    return str(place.resolved() if place.kind == "cpu" else place)


def _meant(text: str, recipe: Recipe) -> Place:
    """The place as a run settles it: a recipe's precision is that of a place without one, and the
    reference has its own."""
    place = Place.parse(_name(text))
    if place.kind == "reference":
        return replace(place, precision="auto")
    if place.precision == "auto":
        return replace(place, precision=recipe.training.precision)
    return place


def default_places(recipe: Recipe) -> tuple[str, ...]:
    """The places of the paper's comparison as far as this machine can have them, and ``cuda``."""
    cores = machine.cores()
    names = ["cpu:1"]
    if cores > 1:
        names += [f"cpu:{cores}", f"cpu:{cores}x1"]
    if machine.has_bfloat16() and recipe.training.precision != "bfloat16":
        names.append(f"cpu:{cores}@bfloat16")
    return (*names, "cuda")
