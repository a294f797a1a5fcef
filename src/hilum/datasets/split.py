"""Parts drawn by patient and by hash, and the patients that lie in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.manifest import PARTS, Manifest
from hilum.errors import Refused, UsageError

SALT = "hilum"
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
) -> tuple[tuple[str, ...], str]:
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
    kept = {who: p for who, p in zip(patient, part, strict=True) if p not in ("", "train")}
    part = [p or kept.get(who, "") for who, p in zip(patient, part, strict=True)]
    free = np.array([p in ("", "train") for p in part], bool)
    wanted = {name for name, share in (("test", test), ("validation", validation)) if share > 0}
    for attempt in range(_SALTS):
        salt = SALT if attempt == 0 else f"{SALT}/{attempt}"
        drawn = {
            who: "test"
            if place(who, "test", salt) < test
            # Of those that are left, so that both shares are of all.
            else "validation"
            if place(who, "validation", salt) < validation / (1 - test)
            else "train"
            for who in {patient[i] for i in np.flatnonzero(free).tolist()}
        }
        parts = tuple(
            drawn[who] if is_free else old
            for who, is_free, old in zip(patient, free.tolist(), part, strict=True)
        )
        if _complete(parts, label, free, {*wanted, "train"}) or free.sum() > FEW:
            return parts, salt
    raise Refused(
        f"too few patients: {len(drawn)} do not give {' and '.join(sorted(wanted))} films of both "
        "classes. Give more films, larger shares with --validation and --test, or 0 for none."
    )


def _complete(
    parts: Sequence[str], label: NDArray[np.int8], free: NDArray[np.bool_], wanted: set[str]
) -> bool:
    """Whether each part has each class that there is to draw from."""
    classes = {int(c) for c in label[free] if c >= 0}
    have = {(p, int(c)) for p, c, f in zip(parts, label, free, strict=True) if f}
    return all((p, c) in have for p in wanted for c in classes)


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
    """The patients in two parts or more, in the order of their first film."""
    first: dict[str, str] = {}
    torn: dict[str, set[str]] = {}
    for who, part in zip(manifest.patient, manifest.part, strict=True):
        if part and first.setdefault(who, part) != part:
            torn.setdefault(who, {first[who]}).add(part)
    rows: dict[str, list[int]] = {who: [] for who in torn}
    for row, who in enumerate(manifest.patient):
        if who in torn and manifest.part[row]:
            rows[who].append(row)
    return [Leak(who, tuple(p for p in PARTS if p in torn[who]), tuple(rows[who])) for who in torn]
