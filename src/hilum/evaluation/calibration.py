"""Whether a probability means what it says: slope, intercept, ECE, the reliability diagram.

Weights are as in :mod:`hilum.evaluation.metrics`: (..., n), for all draws of a bootstrap at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation.intervals import groups
from hilum.evaluation.metrics import logit

Array = NDArray[Any]
Floats = NDArray[np.float64]

#: Cells of the logit that many draws of many films are taken together in.
CELLS = 512
BINS = 15  # of the expected calibration error


def logistic_line(
    label: Array,
    logits: Array,
    weight: Array | None = None,
    *,
    slope: float | None = None,
    start: tuple[float, float] | None = None,
) -> tuple[Floats, Floats]:
    """Slope and intercept of the logistic regression of the label on one logit, by Newton.

    Parameters
    ----------
    label : (n,) 0 or 1, or a share between (smoothed targets)
    logits : (n,); weight : (..., n) or None
    slope : hold the slope at this value and fit the intercept alone
    start : (slope, intercept) to start from, for example the fit without weights,
        which makes a bootstrap faster

    Returns
    -------
    (...) slopes and (...) intercepts; NaN where there is none (a class absent, or the logits
    separate the classes so that the slope has no end)
    """
    from scipy.special import expit
    from scipy.special import logit as scipy_logit

    y, z = np.asarray(label, np.float64), np.asarray(logits, np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    wy = w * y
    if w.ndim > 1 and len(z) > 2 * CELLS:
        z, w, wy = _in_cells(z, w, wy)
    fixed = slope is not None
    b = np.full(w.shape[:-1], slope if fixed else (start[0] if start else 0.0))
    step = np.full(w.shape[:-1], np.inf)
    with np.errstate(all="ignore"):  # a draw may hold no answered film: NaN
        total = w.sum(-1)
        share = np.clip(wy.sum(-1) / total, 1e-6, 1 - 1e-6)
        a = np.full(w.shape[:-1], start[1]) if start else scipy_logit(share) - b * (w @ z) / total
        for _ in range(40):
            p = expit(a[..., None] + b[..., None] * z)
            residual = wy - w * p
            curvature = w * (p * (1 - p))
            g0, h00 = residual.sum(-1), curvature.sum(-1) + 1e-12
            if fixed:
                da, db = g0 / h00, np.zeros_like(b)
            else:
                g1, h01, h11 = residual @ z, curvature @ z, curvature @ (z * z) + 1e-12
                determinant = h00 * h11 - h01 * h01
                da = (h11 * g0 - h01 * g1) / determinant
                db = (h00 * g1 - h01 * g0) / determinant
            shrink = np.minimum(1.0, 4.0 / np.maximum(np.abs(da), np.abs(db)))
            a, b = a + shrink * da, b + shrink * db
            step = np.maximum(np.abs(da), np.abs(db))
            # Newton's error after a step is about the step squared.
            if not np.any((step > 1e-4) & (np.abs(b) < 1e3)):
                break
        bad = ~(step < 1e-3) | (np.abs(b) > 1e3)
    return np.where(bad, np.nan, b), np.where(bad, np.nan, a)


def _in_cells(z: Floats, w: Floats, wy: Floats) -> tuple[Floats, Floats, Floats]:
    """Films of nearly the same logit taken together: mean logits, and weights summed.

    With cells a 512th of the range wide the line moves by 1e-3 at most, far below the spread of
    the draws that this makes several times faster.
    """
    order = np.argsort(z, kind="stable")
    width = (z[order[-1]] - z[order[0]]) / CELLS or 1.0
    cell = ((z[order] - z[order[0]]) / width).astype(np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(cell) != 0])
    count = np.diff(np.r_[starts, len(z)])
    return (
        np.add.reduceat(z[order], starts) / count,
        np.add.reduceat(w[..., order], starts, axis=-1),
        np.add.reduceat(wy[..., order], starts, axis=-1),
    )


def calibration_line(
    label: Array,
    probability: Array,
    weight: Array | None = None,
    start: tuple[float, float] | None = None,
) -> tuple[Floats, Floats]:
    """Calibration slope, and calibration intercept (calibration in the large).

    The slope is that of the label on logit(p) (1 is right, below 1 the probabilities are too
    extreme); the intercept is fitted with the slope held at 1 (0 is right, below 0 they are too
    high), as Van Calster et al. 2019 define the two.

    Parameters
    ----------
    start : what this function gives without weights
    """
    z = logit(probability)
    near = start if start is not None and np.isfinite(start).all() else None
    slope, _ = logistic_line(label, z, weight, start=near)
    if z.size and not np.ptp(z):  # one probability for every film has no slope
        slope = np.full_like(slope, np.nan)
    _, intercept = logistic_line(label, z, weight, slope=1.0, start=near)
    return slope, intercept


def ece(label: Array, probability: Array, weight: Array | None = None) -> Floats:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    label : (n,) or (..., n), such as labels drawn under the null hypothesis
    """
    bin_of = np.minimum((np.asarray(probability, np.float64) * BINS).astype(int), BINS - 1)
    member = np.eye(BINS)[bin_of]
    gap = np.asarray(label, np.float64) - probability
    gap = gap if weight is None else weight * gap
    total = np.asarray(len(member) if weight is None else np.sum(weight, axis=-1))
    with np.errstate(invalid="ignore"):  # a draw may hold no answered film: NaN
        return np.abs(gap @ member).sum(-1) / total


def null_labels(
    probability: Array, patient: Array | None = None, *, draws: int = 1000, seed: int = 0
) -> Floats:
    """(draws, n) labels as they would fall if every probability were exactly right.

    Films of one ``patient`` (n keys) fall together, as one child's films do.
    """
    rng = np.random.default_rng(seed)
    member = np.arange(len(probability)) if patient is None else groups(patient)
    uniform = rng.random((draws, int(member.max()) + 1))
    return (uniform[:, member] < np.asarray(probability)).astype(np.float64)


def ece_null_band(
    probability: Array,
    patient: Array | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The ECE (2.5 % and 97.5 %) that exactly right probabilities show on so many films.

    An ECE within the band is no sign of miscalibration; it is never zero on few films.
    """
    null = ece(null_labels(probability, patient, draws=draws, seed=seed), probability)
    low, high = np.quantile(null, [0.025, 0.975])
    return float(low), float(high)


def reliability(
    label: Array, probability: Array, patient: Array | None = None, *, bins: int = 10
) -> dict[str, Floats]:
    """Points of the reliability diagram, in bins of equally many films.

    Returns
    -------
    dict of (k,) arrays: ``predicted`` (mean probability), ``observed`` (share of positives),
    ``n``, and ``low``, ``high``: the 95 % band of ``observed`` if the probabilities were right
    """
    probability = np.asarray(probability, np.float64)
    order = np.argsort(probability, kind="stable")
    pieces = [p for p in np.array_split(order, min(bins, len(order))) if len(p)]
    member = np.zeros((len(probability), len(pieces)))
    for column, piece in enumerate(pieces):
        member[piece, column] = 1 / len(piece)
    null = null_labels(probability, patient) @ member
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    return {
        "predicted": probability @ member,
        "observed": np.asarray(label, np.float64) @ member,
        "n": np.array([len(piece) for piece in pieces], np.float64),
        "low": low,
        "high": high,
    }
