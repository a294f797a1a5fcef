"""The films of a data set's parts, as training takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest, number_of
from hilum.errors import Refused
from hilum.progress import SILENT, Progress
from hilum.storage import digest
from hilum.training import group
from hilum.training.recipe import Recipe
from hilum.training.rollcall import RollCall


@dataclass(frozen=True, eq=False)
class Films:
    """The films of one part.

    Attributes
    ----------
    pixels : (m, s, s) uint8, may be a memory map that holds other films too
    rows : (n,) int64, where in ``pixels`` each film lies
    labels : (n,) int8, 0 or 1
    identity : (n,) int64, a number of each film's own, from which its augmentation is drawn
    checksums : (n,) uint32 of their pixels, or empty where nobody asks whether they stay the same
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
    identity: NDArray[np.int64]
    checksums: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    def __len__(self) -> int:
        return len(self.rows)


def rows_of(manifest: Manifest, cache: Cache, part: str) -> NDArray[np.int64]:
    """(n,) rows of the manifest: the labelled films of a part that have pixels, in order."""
    of_part = manifest.part.equal(part)
    return np.flatnonzero(of_part & (np.asarray(manifest.label) >= 0) & (cache.rows >= 0))


def films_of(manifest: Manifest, cache: Cache, part: str) -> Films:
    """The films at ``rows_of``."""
    rows = rows_of(manifest, cache, part)
    return Films(
        pixels=cache.pixels,
        rows=cache.rows[rows].astype(np.int64),
        labels=np.asarray(manifest.label)[rows].astype(np.int8),
        identity=np.array([identity(manifest.path[i]) for i in rows.tolist()], np.int64),
        checksums=cache.checksums[rows],
    )


def open_films(
    manifest: Manifest,
    recipe: Recipe,
    roll: RollCall | None = None,
    *,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> tuple[Cache, tuple[Films, Films]]:
    """The cache, filled, and from it the films for training and for validation.

    Parameters
    ----------
    roll : those who train together; each machine may take long over its films, nobody gives up
        on it as long as it lives

    Raises
    ------
    Refused
        One of the group reads other films than the first: they would draw other batches. Or a part
        is left without a class, because its films are refused or cannot be read.
    TooManyUnreadable, DiskFull, WorkerLost
    """
    cache = Cache.fill(manifest, recipe.preprocessing, workers=workers, progress=progress)
    if roll is not None:
        readable = digest((cache.rows >= 0).tobytes())[:16]
        group.same(roll, "films", {"the films that can be read": readable})
    told = without_pixels(cache)
    if told:
        progress.say(f"without pixels: {told}.")
    parts = (films_of(manifest, cache, "train"), films_of(manifest, cache, "validation"))
    for name, films in zip(("train", "validation"), parts, strict=True):
        for k, words in enumerate(manifest.classes):
            # A class that the manifest itself lacks is refused elsewhere, in other words.
            if told and not (films.labels == k).any():
                raise Refused(
                    f"the {name} part has no films of the class {words} left: {told}. Give more "
                    "films that a model may see."
                )
    return cache, parts


def without_pixels(cache: Cache) -> str:
    """How many films have no pixels and why, by the most frequent reasons; empty for none."""
    found = []
    for films, what in ((cache.refused, "refused"), (cache.unreadable, "unreadable")):
        why = Counter(reason.text for _, reason in films).most_common(3)
        if films:
            reasons = "; ".join(f"{number}: {text}" for text, number in why)
            found.append(f"{number_of(len(films), 'films')} {what} ({reasons})")
    return ", ".join(found)


def films_digest(parts: Sequence[Films]) -> str:
    """Which films these parts have, in which order, and their labels: 16 hexadecimal digits."""
    each = [part.identity.tobytes() + part.labels.tobytes() for part in parts]
    return digest(b"".join(each))[:16]


def pixels_digest(parts: Sequence[Films]) -> str:
    """What these parts' pixels are, by their checksums: 16 hexadecimal digits."""
    return digest(b"".join(part.checksums.tobytes() for part in parts))[:16]


def identity(path: str) -> int:
    """A film's own number, from its path in the manifest: 63 bits of its SHA-256."""
    return int(digest(path)[:16], 16) >> 1
