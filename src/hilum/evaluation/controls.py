"""Shortcut controls: how far plain things, no lungs needed, tell these films' classes apart.

A model that does no better than these may have learnt the scanner, the border or the contrast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation import metrics

Array = NDArray[Any]
Floats = NDArray[np.float64]

#: Fewer films, or films of the rarer class, are too few for a cross-validated control.
LEAST, LEAST_OF_A_CLASS = 100, 20
THUMBNAIL = 8

PLAIN = {
    "mean": "mean brightness",
    "spread": "contrast (standard deviation)",
    "gradient": "sharpness (mean step between neighbours)",
    "border": "brightness of the border",
    "dark": "share of black pixels",
    "bright": "share of white pixels",
}


@dataclass(frozen=True)
class Control:
    """One control: what it looks at, its AUROC (at least 0.5), and how it was made."""

    name: str
    looks_at: str
    auroc: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plain_numbers(pixels: Array) -> Floats:
    """(n, 6) plain numbers of films (n, s, s) uint8, in the order of ``PLAIN``."""
    films = np.asarray(pixels, np.float32)
    edge = max(1, films.shape[1] // 12)
    steps = np.abs(np.diff(films, axis=1)).mean((1, 2)) + np.abs(np.diff(films, axis=2)).mean(
        (1, 2)
    )
    columns = [
        films.mean((1, 2)),
        films.std((1, 2)),
        steps / 2,
        _ring(films, edge).mean(1),
        (films < 8).mean((1, 2)),
        (films > 247).mean((1, 2)),
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _ring(films: Array, edge: int) -> Array:
    """(n, k) the pixels of the outer ring, ``edge`` wide."""
    inside = np.zeros(films.shape[1:], bool)
    inside[edge:-edge, edge:-edge] = True
    return films[:, ~inside]


def thumbnails(pixels: Array, side: int) -> Floats:
    """(n, side, side) block means of films (n, s, s)."""
    n, size = pixels.shape[:2]
    edges = np.linspace(0, size, side + 1).round().astype(int)
    rows = np.add.reduceat(np.asarray(pixels, np.float64), edges[:-1], axis=1)
    blocks = np.add.reduceat(rows, edges[:-1], axis=2)
    area = np.diff(edges)[:, None] * np.diff(edges)[None, :]
    return (blocks / area).reshape(n, side, side)


def described(pixels: Array, rows: Array) -> tuple[Floats, Floats, Floats]:
    """Plain numbers (n, 6), border (n, k) and thumbnail (n, 64) of rows of a pixel store."""
    numbers, border, small = [], [], []
    for start in range(0, len(rows), 128):
        films = np.asarray(pixels[rows[start : start + 128]])
        numbers.append(plain_numbers(films))
        coarse = thumbnails(films, min(32, films.shape[1]))
        border.append(_ring(coarse, 2))
        small.append(thumbnails(films, THUMBNAIL).reshape(len(films), -1))
    return np.concatenate(numbers), np.concatenate(border), np.concatenate(small)


def controls(
    pixels: Array, rows: Array, label: Array, patient: Array, file_bytes: Array | None = None
) -> list[Control]:
    """Measure the controls on the judged films themselves.

    Parameters
    ----------
    pixels : store of films (m, s, s) uint8; rows : (n,) the judged films in it
    label : (n,) 0 or 1; patient : n grouping keys
    file_bytes : (n,) size of each file, or None where films are not files of their own

    Returns
    -------
    list of Control; none where a class is absent. Cross-validated ones need ``LEAST`` films.
    """
    label = np.asarray(label).astype(int)
    classes = np.bincount(label, minlength=2)
    if classes.min() == 0:
        return []
    numbers, border, small = described(pixels, rows)
    found = []
    if file_bytes is not None:
        found.append(_single("file size", "bytes of the file alone", label, file_bytes))
    singles = [
        _single(name, words, label, numbers[:, k]) for k, (name, words) in enumerate(PLAIN.items())
    ]
    found.append(max(singles, key=lambda control: control.auroc))
    if len(label) >= LEAST and classes.min() >= LEAST_OF_A_CLASS:
        for name, words, columns in (
            ("plain numbers", f"all {len(PLAIN)} plain numbers together", numbers),
            ("border", "the outer ring of a 32 × 32 thumbnail", border),
            ("thumbnail", f"an {THUMBNAIL} × {THUMBNAIL} thumbnail", small),
        ):
            area = _cross_validated(columns, label, patient)
            found.append(
                Control(name, words, area, "logistic regression, 5-fold by patient on these films")
            )
    return found


def _single(name: str, words: str, label: Array, values: Array) -> Control:
    area = float(metrics.auroc(label, values))
    return Control(name, words, max(area, 1 - area), "ranked by this number, the better way round")


def _cross_validated(columns: Floats, label: Array, patient: Array) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    score = np.zeros(len(label))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for learn, judge in folds.split(columns, label, np.asarray(patient).astype(str)):
        if len(set(label[learn])) < 2:
            return float("nan")
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        model.fit(columns[learn], label[learn])
        score[judge] = model.decision_function(columns[judge])
    return float(metrics.auroc(label, score))
