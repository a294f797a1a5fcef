"""Which places a comparison is of, by their full names."""

from __future__ import annotations

from collections.abc import Sequence

from hilum import machine
from hilum.errors import UsageError
from hilum.machine import Place


def several(on: Sequence[str]) -> tuple[str, ...]:
    """Places that can be compared, by their full names: two or more."""
    places = canonical(on)
    if len(places) < 2:
        raise UsageError("one place cannot be compared: name two or more with --on.")
    return places


def canonical(on: Sequence[str]) -> tuple[str, ...]:
    """Places by their full names, ``cpu`` as ``cpu:2``; the same one twice is refused."""
    names: list[str] = []
    for text in on:
        place = Place.parse(text)
        if place.kind == "cpu":
            place = place.resolved()
        name = str(place)
        if name in names:
            raise UsageError(f"the same place twice: {text} is {name} here. Name it once.")
        names.append(name)
    return tuple(names)


def default_places() -> tuple[str, ...]:
    """The places of the paper's comparison as far as this machine can have them, and ``cuda``."""
    cores = machine.cores()
    names = ["cpu:1"]
    if cores > 1:
        names += [f"cpu:{cores}", f"cpu:{cores}x1"]
    if machine.has_bfloat16():
        names.append(f"cpu:{cores}@bfloat16")
    return (*names, "cuda")
