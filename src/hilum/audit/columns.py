"""What probes and pictures look at, as columns: facts of files, plain numbers, what the table says.

A column is 8 bytes a film. The thumbnail, 64 numbers, is a thing of its own: only probes want it,
of no more films than they learn from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.audit.survey import Survey
from hilum.datasets.columns import texts
from hilum.evaluation.controls import THUMBNAIL, plain_numbers, thumbnails

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest

Floats = NDArray[np.float64]

PLAIN = ("mean", "spread", "border")
#: Columns of a manifest that probes look at, in plain words.
TABLE = {
    "view": "the view (PA, AP, ...)",
    "age": "the patient's age",
    "sex": "the patient's sex",
    "source": "where the film comes from",
}


class Facts(Mapping[str, Floats]):
    """(k,) numbers of these films and their files, by name; made when they are asked for.

    Only what takes a look at every film is kept.
    """

    def __init__(self, seen: Survey, rows: NDArray[np.int64]) -> None:
        self._numbers, self._rows = seen.numbers, rows
        plain = np.empty((len(PLAIN), len(rows)))
        start = 0
        for films in seen.batches(rows):
            plain[:, start : start + len(films)] = plain_numbers(films)[:, [0, 1, 3]].T
            start += len(films)
        self._plain = dict(zip(PLAIN, plain, strict=True))

    def __getitem__(self, name: str) -> Floats:
        if name in self._plain:
            return self._plain[name]
        with np.errstate(divide="ignore", invalid="ignore"):
            if name == "bits_a_pixel":
                return 8 * self["bytes"] / (self["width"] * self["height"])
            if name == "aspect":
                return self["width"] / self["height"]
        return self._numbers[name][self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._numbers, "bits_a_pixel", "aspect", *PLAIN))

    def __len__(self) -> int:
        return len(self._numbers) + 2 + len(PLAIN)


def words(manifest: Manifest, seen: Survey, rows: NDArray[np.int64]) -> dict[str, Floats]:
    """(k,) what of files and table is told in words, as numbers, by name."""
    found = {
        name: numbered(column.select(rows)).astype(np.float64)
        for name, column in seen.words.items()
    }
    for name in TABLE:
        if name in manifest.extra:
            column = manifest.extra[name].select(rows)
            found[name] = _years(column) if name == "age" else numbered(column).astype(np.float64)
    return found


def thumbnail(seen: Survey, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(k, 64) films of these rows at 8 × 8; float32 holds a mean of 64 bytes exactly."""
    small = (thumbnails(films, THUMBNAIL).astype(np.float32) for films in seen.batches(rows))
    return np.concatenate([films.reshape(len(films), -1) for films in small])


def numbered(column: Sequence[str]) -> NDArray[np.int64]:
    """(k,) the place of each text among the distinct ones, sorted.

    As ``np.unique`` gives it, but that takes four bytes a letter of every text.
    """
    column = texts(column)
    first, which = np.unique(column.first_rows(), return_inverse=True)
    order = sorted(range(len(first)), key=lambda k: column[int(first[k])])
    place = np.zeros(len(first), np.int64)
    place[order] = np.arange(len(first))
    return place[which.reshape(-1)]


def _years(texts: Sequence[str]) -> Floats:
    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return float("nan")

    return np.array([number(text) for text in texts])
