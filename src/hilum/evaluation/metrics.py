"""What is measured: pure functions of label, probability (or score) and decision.

Every function takes film weights of shape (..., n), so that one call measures all draws of a
bootstrap; without weights each film counts once. What is not defined (no positives, say) is
NaN. Calibration is in :mod:`hilum.evaluation.calibration`, intervals in
:mod:`hilum.evaluation.intervals`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

CELLS = ("tp", "fp", "fn", "tn", "referred_positive", "referred_negative")

#: Metrics that are a share of films: numerator and denominator as cells of the matrix.
PROPORTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accuracy": (("tp", "tn"), ("tp", "fp", "fn", "tn")),
    "precision": (("tp",), ("tp", "fp")),
    "recall": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "npv": (("tn",), ("tn", "fn")),
}


def cells(label: Array, decision: Array) -> Floats:
    """(n, 6) ones and zeros: which cell of the confusion matrix each film is in.

    Parameters
    ----------
    label : (n,) 0 or 1
    decision : (n,) ``"positive"``, ``"negative"`` or ``"refer"``
    """
    positive = np.asarray(label) == 1
    said, not_said = np.asarray(decision) == "positive", np.asarray(decision) == "negative"
    referred = ~(said | not_said)
    columns = [
        positive & said,
        ~positive & said,
        positive & not_said,
        ~positive & not_said,
        positive & referred,
        ~positive & referred,
    ]
    return np.stack(columns, axis=-1).astype(np.float64)


def strict(counts: Array) -> Floats:
    """The same (..., 6) counts with each referred film as an error: a missed positive, or a
    false alarm."""
    counts = np.array(counts, np.float64)
    counts[..., 2] += counts[..., 4]
    counts[..., 1] += counts[..., 5]
    counts[..., 4:] = 0.0
    return counts


def rates(counts: Array) -> dict[str, Floats]:
    """All metrics of a confusion matrix; referred films are left out (see :func:`strict`).

    Parameters
    ----------
    counts : (..., 6) films a cell, in the order of ``CELLS``

    Returns
    -------
    dict of (...) arrays: the ``PROPORTIONS``, ``f1``, the likelihood ratios ``lr_positive`` and
    ``lr_negative``, and ``false_alarms_per_100_healthy``
    """
    by_name = dict(zip(CELLS, np.moveaxis(np.asarray(counts, np.float64), -1, 0), strict=True))
    found: dict[str, Floats] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, (top, bottom) in PROPORTIONS.items():
            found[name] = sum(by_name[c] for c in top) / sum(by_name[c] for c in bottom)
        wrong = by_name["fp"] + by_name["fn"]
        found["f1"] = 2 * by_name["tp"] / (2 * by_name["tp"] + wrong)
        found["lr_positive"] = found["recall"] / (1 - found["specificity"])
        found["lr_negative"] = (1 - found["recall"]) / found["specificity"]
        found["false_alarms_per_100_healthy"] = 100 * (1 - found["specificity"])
    return found


def predictive_values(recall: Any, specificity: Any, prevalence: Any) -> tuple[Floats, Floats]:
    """(PPV, NPV) where the share ``prevalence`` of films is positive, by Bayes's rule."""
    recall, specificity, prevalence = np.broadcast_arrays(recall, specificity, prevalence)
    ill, healthy = prevalence, 1 - np.asarray(prevalence, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ppv = recall * ill / (recall * ill + (1 - specificity) * healthy)
        npv = specificity * healthy / (specificity * healthy + (1 - recall) * ill)
    return ppv, npv


def _sorted(label: Array, score: Array, weight: Array | None, down: bool) -> tuple[Floats, Floats]:
    """Weights of positives and of negatives (..., k) by distinct score, ascending or down."""
    score = np.asarray(score, np.float64)
    order = np.argsort(-score if down else score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    weight = np.ones(len(score)) if weight is None else np.asarray(weight)
    weight = weight[..., order]
    positives = weight * np.asarray(label, np.float64)[order]
    negatives = weight - positives
    if len(starts) < len(score):
        positives = np.add.reduceat(positives, starts, axis=-1)
        negatives = np.add.reduceat(negatives, starts, axis=-1)
    return positives, negatives


def auroc(label: Array, score: Array, weight: Array | None = None) -> Floats:
    """Area under the ROC curve: P(positive scores above negative), ties count half.

    Parameters
    ----------
    label, score : (n,); weight : (..., n) or None

    Returns
    -------
    (...) areas; NaN where a class is absent
    """
    positives, negatives = _sorted(label, score, weight, down=False)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(positives * below, axis=-1) / (positives.sum(-1) * negatives.sum(-1))


def average_precision(label: Array, score: Array, weight: Array | None = None) -> Floats:
    """Area under the precision-recall curve as a sum of steps, without interpolation.

    NaN where a class is absent: without negatives it would be 1 whatever the scores.
    """
    positives, negatives = _sorted(label, score, weight, down=True)
    found = np.cumsum(positives, axis=-1)
    flagged = found + np.cumsum(negatives, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(flagged > 0, positives * found / flagged, 0.0)
        area = np.sum(steps, axis=-1) / positives.sum(-1)
        return np.where(negatives.sum(-1) > 0, area, np.nan)


def roc_curve(label: Array, score: Array) -> tuple[Floats, Floats]:
    """(false positive rate, recall) at every distinct score, from (0, 0) to (1, 1)."""
    positives, negatives = _sorted(label, score, None, down=True)
    return (
        np.r_[0.0, np.cumsum(negatives) / negatives.sum()],
        np.r_[0.0, np.cumsum(positives) / positives.sum()],
    )


def precision_recall_curve(label: Array, score: Array) -> tuple[Floats, Floats]:
    """(recall, precision) at every distinct score, by falling score."""
    positives, negatives = _sorted(label, score, None, down=True)
    found = np.cumsum(positives)
    return found / positives.sum(), found / (found + np.cumsum(negatives))


def brier(label: Array, probability: Array, weight: Array | None = None) -> Floats:
    """Mean squared distance of the probability from the label (Brier 1950)."""
    error = (np.asarray(probability, np.float64) - label) ** 2
    if weight is None:
        return np.asarray(error.mean())
    with np.errstate(invalid="ignore"):  # a draw may hold no answered film: NaN
        return weight @ error / np.sum(weight, axis=-1)


def logit(probability: Array) -> Floats:
    """log(p / (1 - p)), probabilities held within 1e-9 of 0 and 1."""
    p = np.clip(np.asarray(probability, np.float64), 1e-9, 1 - 1e-9)
    return np.log(p) - np.log1p(-p)
