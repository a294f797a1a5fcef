"""What the class names of a source mean: which is positive, which negative."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.manifest import number_of
from hilum.errors import Refused, UsageError, nearest

NEGATIVE = {
    "normal",
    "no finding",
    "nofinding",
    "no pneumonia",
    "not pneumonia",
    "non pneumonia",
    "negative",
    "healthy",
    "0",
    "0.0",
    "false",
    "no",
}
POSITIVE = {
    "pneumonia",
    "opacity",
    "lung opacity",
    "bacteria",
    "virus",
    "bacterial",
    "viral",
    "bacterial pneumonia",
    "viral pneumonia",
    "pneumonia bacterial",
    "pneumonia viral",
    "positive",
    "1",
    "1.0",
    "true",
    "yes",
}
# Why a film is left out whose label ``is_unknown``.
UNKNOWN = "their label is -1 (unknown)"
# Words of a yes or a no, which name no class.
_BARE = {"0", "0.0", "1", "1.0", "true", "false", "yes", "no", "positive", "negative"}


@dataclass(frozen=True)
class Meaning:
    """Labels with what they stand for.

    Attributes
    ----------
    label : (n,) int8: 0, 1, or -1 where the source says nothing
    classes : names of class 0 and 1
    task : ``pneumonia``, or the positive class in lower case
    """

    label: NDArray[np.int8]
    classes: tuple[str, str]
    task: str


def plain(name: str) -> str:
    """A class name as it is compared: lower case, words apart by a space, its minus kept."""
    return " ".join(re.sub(r"_|(?!^)-", " ", name.strip()).lower().split())


def is_unknown(label: str) -> bool:
    """Whether a label is -1, as CheXpert marks the uncertain and others the unknown."""
    return _number(label) == -1


def meaning(names: Sequence[str], positive: str | None, where: str, left_out: str = "") -> Meaning:
    """Labels from class names.

    Parameters
    ----------
    names : the class of each film as the source writes it, ``""`` where it says nothing
    positive : the class that counts as positive; all others are then negative
    where : the source, for messages
    left_out : what of the source is not among the films and why, where a class is missed

    Raises
    ------
    UsageError
        A negative number, a name that is not known and no ``positive``, or a ``positive`` that is
        not there.
    Refused
        No labelled film, or only one class.
    """
    counted = Counter(name for name in names if name)
    if not counted:
        raise Refused(f"no labels: {where}. Name the classes by folders or in a table.")
    no_class = [name for name in counted if not _number(name) >= 0]
    if no_class:
        raise UsageError(
            f"not a class: {no_class[0]} ({counted[no_class[0]]} films) in {where}. "
            "Name the class, or leave an unknown label empty."
        )
    if positive is not None:
        yes = {name for name in counted if plain(name) == plain(positive)}
        if not yes:
            raise UsageError(
                f"no such class to be positive: {positive} in {where}. {nearest(positive, counted)}"
            )
        task = "pneumonia" if plain(positive) in POSITIVE else plain(positive).replace(" ", "-")
    else:
        unknown = [name for name in counted if plain(name) not in NEGATIVE | POSITIVE]
        if unknown:
            raise UsageError(
                f"unknown class: {unknown[0]} ({counted[unknown[0]]} films) in {where}. "
                f"{_hint(unknown[0], counted)}"
            )
        yes = {name for name in counted if plain(name) in POSITIVE}
        task = "pneumonia"
    no = set(counted) - yes
    if not yes or not no:
        only = " and ".join(sorted(counted))
        told = f" ({left_out})" if left_out else ""
        advice = (
            "Add films of the other class, by the folder above both or in the table."
            if len(counted) == 1
            else "Say with --positive which of these is positive."
        )
        raise Refused(
            f"only one class: {number_of(sum(counted.values()), 'films')} of {only} in "
            f"{where}{told}. Two are needed to learn or to judge. {advice}"
        )
    label = {**dict.fromkeys(no, 0), **dict.fromkeys(yes, 1), "": -1}
    return Meaning(
        np.fromiter(map(label.__getitem__, names), np.int8, len(names)),
        (_named(no, f"no {task}"), _named(yes, task)),
        task,
    )


def _number(name: str) -> float:
    """The number that a name is, whatever its minus and spaces; 0 for a word."""
    try:
        return float("".join(name.replace("\u2212", "-").split()))
    except ValueError:
        return 0.0


def _hint(name: str, counted: Counter[str]) -> str:
    close = nearest(plain(name), (NEGATIVE | POSITIVE) - _BARE)
    others = " or ".join(f"--positive {other!r}" for other in sorted(counted)[:3])
    return (
        f"{close} Else say which class is positive: {others}."
        if "mean" in close
        else f"Say which class is positive: {others}."
    )


def _named(names: set[str], default: str) -> str:
    """The class's one name in the source; where it has several or a bare yes or no, ours."""
    name = next(iter(names))
    return name if len(names) == 1 and plain(name) not in _BARE else default
