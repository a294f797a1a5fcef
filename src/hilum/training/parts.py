"""The films of one part of a data set, as training takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.storage import digest


@dataclass(frozen=True, eq=False)
class Films:
    """The films of one part.

    Attributes
    ----------
    pixels : (m, s, s) uint8, may be a memory map that holds other films too
    rows : (n,) int64, where in ``pixels`` each film lies
    labels : (n,) int8, 0 or 1
    identity : (n,) int64, a number of each film's own, from which its augmentation is drawn
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
    identity: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def rows_of(manifest: Manifest, cache: Cache, part: str) -> NDArray[np.int64]:
    """(n,) rows of the manifest: the labelled films of a part that have pixels, in order."""
    of_part = np.array([p == part for p in manifest.part], bool)
    return np.flatnonzero(of_part & (np.asarray(manifest.label) >= 0) & (cache.rows >= 0))


def films_of(manifest: Manifest, cache: Cache, part: str) -> Films:
    """The films at ``rows_of``."""
    rows = rows_of(manifest, cache, part)
    return Films(
        pixels=cache.pixels,
        rows=cache.rows[rows].astype(np.int64),
        labels=np.asarray(manifest.label)[rows].astype(np.int8),
        identity=np.array([identity(manifest.path[i]) for i in rows.tolist()], np.int64),
    )


def identity(path: str) -> int:
    """A film's own number, from its path in the manifest: 63 bits of its SHA-256."""
    return int(digest(path)[:16], 16) >> 1
