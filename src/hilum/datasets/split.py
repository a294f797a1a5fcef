"""Parts drawn by patient and by hash, and the patients that lie in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.columns import Texts, texts
from hilum.datasets.manifest import PARTS, Manifest
from hilum.errors import Refused, UsageError

SALT = "hilum"
_TRAIN, _VALIDATION, _TEST, _NONE = 0, 1, 2, -1  # numbers of the parts
_NAMES = (*PARTS, "")
_SALTS = 100
FEW = 1_000  # films; above this no lacking class is mended by another salt


@dataclass(frozen=True)
class Leak:
    """One patient in several parts, with the rows of the manifest."""

    patient: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]


def place(patient: str, part: str, salt: str) -> float:
    """Where a patient falls in [0, 1) for the drawing of one part: SHA-256 of all three."""
    key = hashlib.sha256(f"{salt}\0{part}\0{patient}".encode()).digest()
    return int.from_bytes(key[:8], "big") / 2**64


def draw_parts(
    patient: Sequence[str],
    label: NDArray[np.int8],
    part: Sequence[str],
    fractions: Mapping[str, float],
) -> tuple[Texts, str]:
    """Draw ``test`` and ``validation`` out of the films of ``train`` and of no part.

    A patient falls into a part by his own hash alone, so a film more or less moves nobody else,
    and all films of a patient stay together. The share of films is near the fraction, not equal
    to it. Films of published parts stay where they are, and films of no part whose patient is in
    one follow him there; what is not drawn is ``train``.

    Parameters
    ----------
    fractions : ``{"validation": 0.15, "test": 0.15}``; shares of the patients drawn from

    Returns
    -------
    parts, one a film, and the salt; it is another salt only where a few films would leave a
    class out of a part (``hilum/1``, ``hilum/2``, ...)

    Raises
    ------
    UsageError
        Fractions outside [0, 1) or summing to 1 or more.
    Refused
        Too few patients for a part with both classes.
    """
    test, validation = fractions.get("test", 0.0), fractions.get("validation", 0.0)
    if min(test, validation) < 0 or test + validation >= 1:
        raise UsageError(
            f"no room for training: --validation {validation:g} and --test {test:g}. "
            "Choose shares of at least 0 that sum to less than 1."
        )
    who = texts(patient).first_rows()
    old = _numbers(part)
    published = np.flatnonzero((old != _NONE) & (old != _TRAIN))
    kept = np.full(len(who), _NONE, np.int8)
    kept[who[published]] = old[published]
    old = np.where(old == _NONE, kept[who], old)
    free = (old == _NONE) | (old == _TRAIN)
    wanted = {number for number, share in ((_TEST, test), (_VALIDATION, validation)) if share > 0}
    patients = np.unique(who[free])  # by the row of their first film
    drawn = np.full(len(who), _TRAIN, np.int8)
    for attempt in range(_SALTS):
        salt = SALT if attempt == 0 else f"{SALT}/{attempt}"
        for row in patients:
            key = patient[row]
            if place(key, "test", salt) < test:
                drawn[row] = _TEST
            # Of those that are left, so that both shares are of all.
            elif place(key, "validation", salt) < validation / (1 - test):
                drawn[row] = _VALIDATION
            else:
                drawn[row] = _TRAIN
        parts = np.where(free, drawn[who], old)
        if _complete(parts[free], label[free], {*wanted, _TRAIN}) or free.sum() > FEW:
            return Texts(_NAMES).select(parts), salt
    named = " and ".join(sorted(_NAMES[number] for number in wanted))
    raise Refused(
        f"too few patients: {len(patients)} do not give {named} films of both "
        "classes. Give more films, larger shares with --validation and --test, or 0 for none."
    )


def _numbers(part: Sequence[str]) -> NDArray[np.int8]:
    """(n,) the number of each part in ``_NAMES``, -1 for none."""
    number = dict(zip(_NAMES, (_TRAIN, _VALIDATION, _TEST, _NONE), strict=True))
    return np.fromiter(map(number.__getitem__, part), np.int8, len(part))


def _complete(parts: NDArray[np.int8], label: NDArray[np.int8], wanted: set[int]) -> bool:
    """Whether each part has each class that there is to draw from."""
    classes = [kind for kind in (0, 1) if (label == kind).any()]
    return all(((parts == part) & (label == kind)).any() for part in wanted for kind in classes)


def note_leaks(manifest: Manifest) -> list[Leak]:
    """The leaks, counted in the manifest's notes as they are now; no count where there is none."""
    torn = leaks(manifest)
    for key in ("leak", "leak_films"):
        manifest.notes.pop(key, None)
    if torn:
        manifest.notes["leak"] = len(torn)
        manifest.notes["leak_films"] = sum(len(leak.rows) for leak in torn)
    return torn


def leaks(manifest: Manifest) -> list[Leak]:
    """The patients in two parts or more, in the order in which their films show it."""
    who, part = manifest.patient.first_rows(), _numbers(manifest.part)
    told = np.flatnonzero(part != _NONE)
    who, part = who[told], part[told]
    first = np.full(len(manifest), _NONE, np.int8)
    first[who[::-1]] = part[::-1]  # of several the last assignment stays: the first film's part
    torn: dict[int, list[int]] = {patient: [] for patient in who[part != first[who]].tolist()}
    here = np.isin(who, list(torn))
    for patient, row in zip(who[here].tolist(), told[here].tolist(), strict=True):
        torn[patient].append(row)
    return [
        Leak(
            manifest.patient[patient],
            tuple(name for name in PARTS if name in {manifest.part[row] for row in rows}),
            tuple(rows),
        )
        for patient, rows in torn.items()
    ]
