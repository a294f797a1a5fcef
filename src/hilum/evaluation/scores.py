"""The scores of one model on the films of a manifest, as columns and as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum import names
from hilum.errors import UsageError
from hilum.progress import SILENT, Progress
from hilum.storage import atomic_write

if TYPE_CHECKING:
    from hilum.datasets.cache import Cache
    from hilum.datasets.manifest import Manifest
    from hilum.inference.model import Model

COLUMNS = ("film", "patient", "part", "label", "logit", "probability", "refused", "error")


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says of n films.

    Attributes
    ----------
    film : n names, as ``Manifest.shown`` gives them
    patient, part : n texts, as in the manifest
    label : (n,) int8, -1 where unknown
    logit, probability : (n,) float64, NaN where there is no answer
    refused : n texts: why the model must not answer this film (``"code: sentence"``), or ``""``
    error : n texts: why the film could not be read, or ``""``
    """

    film: tuple[str, ...]
    patient: tuple[str, ...]
    part: tuple[str, ...]
    label: NDArray[np.int8]
    logit: NDArray[np.float64]
    probability: NDArray[np.float64]
    refused: tuple[str, ...]
    error: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.film)

    @property
    def is_unreadable(self) -> NDArray[np.bool_]:
        return np.array([bool(text) for text in self.error], bool)

    @property
    def is_judged(self) -> NDArray[np.bool_]:
        """Films that metrics count: labelled and readable, answered or refused."""
        return (self.label >= 0) & ~self.is_unreadable

    def select(self, rows: NDArray[Any]) -> Scores:
        """The rows at these indices or where this mask is true."""
        rows = np.asarray(rows)
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        texts = {
            name: tuple(getattr(self, name)[i] for i in index)
            for name in ("film", "patient", "part", "refused", "error")
        }
        return Scores(
            label=self.label[index],
            logit=self.logit[index],
            probability=self.probability[index],
            **texts,
        )

    def write(self, path: Path | str, **decisions: NDArray[Any]) -> None:
        """Write a CSV atomically.

        Parameters
        ----------
        decisions : further columns, (n,) decisions by the name of the operating point
        """
        with atomic_write(path, "w") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow([*COLUMNS, *decisions])
            for i in range(len(self)):
                row: list[object] = [self.film[i], names.patient(self.patient[i]), self.part[i]]
                row += ["" if self.label[i] < 0 else int(self.label[i])]
                row += [_number(self.logit[i]), _number(self.probability[i])]
                row += [
                    self.refused[i],
                    self.error[i],
                    *(column[i] for column in decisions.values()),
                ]
                table.writerow(row)

    @classmethod
    def read(cls, path: Path | str) -> Scores:
        """Read what ``write`` wrote; further columns are passed over.

        Raises
        ------
        UsageError
            The file is not a table of scores.
        """
        try:
            with Path(path).open(encoding="utf-8", newline="") as stream:
                table = csv.DictReader(stream)
                rows = list(table)
            columns = {name: [row[name] for row in rows] for name in COLUMNS}
            return cls(
                film=tuple(columns["film"]),
                patient=tuple(columns["patient"]),
                part=tuple(columns["part"]),
                label=np.array([int(x) if x else -1 for x in columns["label"]], np.int8),
                logit=np.array([float(x or "nan") for x in columns["logit"]], np.float64),
                probability=np.array([float(x or "nan") for x in columns["probability"]]),
                refused=tuple(columns["refused"]),
                error=tuple(columns["error"]),
            )
        except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
            raise UsageError(
                f"not a table of scores: {path} ({error!r}). Give the scores.csv of an evaluation."
            ) from error


def fill(model: Model, manifest: Manifest, workers: int | None, progress: Progress) -> Cache:
    """The cache of a manifest's films as this model takes them; no film is too many to miss."""
    from hilum.datasets.cache import Cache

    return Cache.fill(
        manifest, model.bundle.preprocessing, workers=workers, progress=progress, limit=1.0
    )


def score_cached(
    model: Model, manifest: Manifest, cache: Cache, progress: Progress = SILENT
) -> Scores:
    """Score films whose pixels are in the cache already.

    Returns
    -------
    Scores, one row for each row of the manifest, in its order; films that cannot be read or that
    the model must not answer have their reason and NaN
    """
    n = len(manifest)
    logit = np.full(n, np.nan)
    unreadable = {path: _words(reason) for path, reason in cache.unreadable}
    refused = {path: _words(reason) for path, reason in cache.refused}
    reading = np.flatnonzero(cache.rows >= 0)
    with progress.stage("scoring films", len(reading)) as advance:
        for rows in _batches(reading, 64):
            logit[rows] = model.logits(cache.of(rows))
            advance(len(rows))
    return Scores(
        film=tuple(map(manifest.shown, manifest.path)),
        patient=tuple(manifest.patient),
        part=tuple(manifest.part),
        label=np.asarray(manifest.label, np.int8),
        logit=logit,
        probability=np.asarray(model.probability(logit), np.float64),
        refused=tuple(refused.get(path, "") for path in manifest.path),
        error=tuple(unreadable.get(path, "") for path in manifest.path),
    )


def _batches(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _words(reason: Any) -> str:
    return f"{reason.code}: {reason.text}"


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"
