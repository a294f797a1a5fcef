"""All figures of one model on some films, each as an ``Estimate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import Estimate, OperatingPoint, decide
from hilum.evaluation import calibration as calibrating
from hilum.evaluation import intervals, metrics
from hilum.evaluation.metrics import CELLS, PROPORTIONS
from hilum.evaluation.scores import Scores

Array = NDArray[Any]

#: Shares of positive films for which predictive values are told.
PREVALENCES = (0.01, 0.05, 0.10, 0.30)

RANKING = ("auroc", "average_precision")
CALIBRATION = ("brier", "calibration_slope", "calibration_intercept", "ece")


@dataclass(frozen=True)
class AtPoint:
    """What a model does at one operating point.

    Attributes
    ----------
    decision : n of ``positive``, ``negative``, ``refer``, one for each judged film
    counts : films by cell of the confusion matrix (``CELLS``)
    answered : metrics of the films that were answered
    strict : the same with every referred film as an error
    predictive : by prevalence, ``ppv`` and ``npv``
    """

    point: OperatingPoint
    decision: NDArray[np.object_]
    counts: dict[str, int]
    answered: dict[str, Estimate]
    strict: dict[str, Estimate]
    predictive: dict[float, dict[str, Estimate]]

    @property
    def referred(self) -> int:
        return self.counts["referred_positive"] + self.counts["referred_negative"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "operating_point": self.point.as_dict(),
            "confusion": self.counts,
            "answered": _dicts(self.answered),
            "strict": _dicts(self.strict),
            "predictive_values": {f"{p:g}": _dicts(v) for p, v in self.predictive.items()},
        }


@dataclass(frozen=True)
class Measured:
    """What a model is worth on judged films.

    Attributes
    ----------
    scores : the judged films: labelled and readable, answered or refused
    ranking : ``auroc`` and ``average_precision``, over all films with a score
    calibration : ``brier``, ``calibration_slope``, ``calibration_intercept``, ``ece``
    ece_null : the ECE (2.5 %, 97.5 %) of exactly right probabilities on these films, or None
    points : by operating point
    """

    scores: Scores
    ranking: dict[str, Estimate]
    calibration: dict[str, Estimate]
    ece_null: tuple[float, float] | None
    points: dict[str, AtPoint]

    @cached_property
    def answered(self) -> Scores:
        """The films with a score."""
        return self.scores.select(~np.isnan(self.scores.probability))

    def as_dict(self) -> dict[str, Any]:
        calibration = _dicts(self.calibration)
        if calibration:
            calibration["ece_null_band"] = None if self.ece_null is None else list(self.ece_null)
        return {
            "ranking": _dicts(self.ranking),
            "calibration": calibration,
            "operating_points": {name: at.as_dict() for name, at in self.points.items()},
        }


def measure(
    scores: Scores,
    points: Mapping[str, OperatingPoint],
    *,
    calibration: bool = True,
    draws: int = intervals.DRAWS,
    seed: int = 0,
) -> Measured:
    """Measure everything with intervals, from one set of bootstrap draws.

    Parameters
    ----------
    scores : any; only judged films are used (``Scores.is_judged``)
    calibration : whether the probabilities are judged too (not for subgroups)
    """
    scores = scores.select(scores.is_judged)
    label, p = scores.label.astype(int), scores.probability
    patient = np.asarray(scores.patient, dtype=object)
    known = ~np.isnan(p)
    ranked = Ranked(label[known], p[known], calibration)
    decisions = {name: decide(p, point) for name, point in points.items()}
    members = {name: metrics.cells(label, decision) for name, decision in decisions.items()}

    def statistic(weight: Array) -> dict[str, Array]:
        found = {f"all/{k}": v for k, v in ranked.measure(weight[:, known]).items()}
        for name, member in members.items():
            counts = weight @ member
            for kind, table in (("answered", counts), ("strict", metrics.strict(counts))):
                rates = metrics.rates(table)
                found.update({f"{name}/{kind}/{k}": v for k, v in rates.items()})
        return found

    drawn: dict[str, Array] = {}
    if len(scores):
        drawn = intervals.bootstrap(statistic, patient.astype(str), draws=draws, seed=seed)
    whole = ranked.estimates(patient[known], drawn)
    return Measured(
        scores=scores,
        ranking={name: whole[name] for name in RANKING},
        calibration={name: whole[name] for name in CALIBRATION} if calibration else {},
        ece_null=calibrating.ece_null_band(p[known], patient[known].astype(str), seed=seed)
        if calibration and known.any()
        else None,
        points={
            name: _at_point(point, decisions[name], members[name], patient, drawn)
            for name, point in points.items()
        },
    )


class Ranked:
    """Everything that is measured on scores without a threshold."""

    def __init__(self, label: Array, p: Array, calibration: bool) -> None:
        self.label, self.p, self.calibration = label, p, calibration
        self.start: tuple[float, float] | None = None
        self.value = dict.fromkeys(RANKING + CALIBRATION, np.nan)
        if len(p):
            found = self.measure(np.ones((1, len(p))))
            self.value.update({name: float(v[0]) for name, v in found.items()})
            self.start = (self.value["calibration_slope"], self.value["calibration_intercept"])

    def measure(self, weight: Array) -> dict[str, Array]:
        found = {
            "auroc": metrics.auroc(self.label, self.p, weight),
            "average_precision": metrics.average_precision(self.label, self.p, weight),
        }
        if self.calibration:
            slope, intercept = calibrating.calibration_line(self.label, self.p, weight, self.start)
            found["brier"] = metrics.brier(self.label, self.p, weight)
            found["calibration_slope"], found["calibration_intercept"] = slope, intercept
            found["ece"] = calibrating.ece(self.label, self.p, weight)
        return found

    def estimates(self, patient: Array, drawn: dict[str, Array]) -> dict[str, Estimate]:
        n, patients = len(self.p), len(set(patient))
        found = {}
        for name, value in self.value.items():
            if name == "auroc" and value in (0.0, 1.0):
                pairs = min(len(set(patient[self.label == c])) for c in (0, 1))
                found[name] = intervals.separated_area(value, n, pairs)
            else:
                empty = np.full(1, np.nan)
                found[name] = intervals.bootstrap_estimate(
                    value, drawn.get(f"all/{name}", empty), n, patients
                )
        return found


def _at_point(
    point: OperatingPoint,
    decision: NDArray[np.object_],
    member: Array,
    patient: Array,
    drawn: dict[str, Array],
) -> AtPoint:
    counts = member.sum(axis=0)
    estimates = {
        "answered": _rates(f"{point.name}/answered", member, patient, drawn),
        "strict": _rates(f"{point.name}/strict", metrics.strict(member), patient, drawn),
    }
    return AtPoint(
        point=point,
        decision=decision,
        counts={cell: int(k) for cell, k in zip(CELLS, counts, strict=True)},
        predictive=_predictive(
            estimates["answered"], f"{point.name}/answered", drawn, len(set(patient))
        ),
        **estimates,
    )


def _rates(
    prefix: str, member: Array, patient: Array, drawn: dict[str, Array]
) -> dict[str, Estimate]:
    """Every metric of a confusion matrix: shares by their own intervals, the rest bootstrapped."""
    total = member.sum(axis=0)
    answered = member[:, :4].sum(axis=1) > 0
    n, patients = int(total[:4].sum()), len(set(patient[answered]))
    found: dict[str, Estimate] = {}
    for name, value in metrics.rates(total).items():
        draws = drawn.get(f"{prefix}/{name}", np.full(1, np.nan))
        if name in PROPORTIONS:
            top, bottom = ([CELLS.index(c) for c in cells] for cells in PROPORTIONS[name])
            inside = member[:, bottom].sum(axis=1) > 0
            found[name] = intervals.proportion(
                total[top].sum(), total[bottom].sum(), len(set(patient[inside])), draws
            )
        else:
            found[name] = intervals.bootstrap_estimate(value, draws, n, patients)
    specificity = found["specificity"]
    found["false_alarms_per_100_healthy"] = Estimate(
        _per_hundred(specificity.value),
        _per_hundred(specificity.high),
        _per_hundred(specificity.low),
        specificity.n,
        specificity.method,
    )
    return found


def _per_hundred(specificity: float | None) -> float | None:
    return None if specificity is None else round(100 * (1 - specificity), 10)


def _predictive(
    rates: dict[str, Estimate], prefix: str, drawn: dict[str, Array], patients: int
) -> dict[float, dict[str, Estimate]]:
    recall, specificity = rates["recall"], rates["specificity"]
    found: dict[float, dict[str, Estimate]] = {}
    for prevalence in PREVALENCES:
        if recall.value is None or specificity.value is None:
            none = Estimate(None, None, None, recall.n + specificity.n, "not defined")
            found[prevalence] = {"ppv": none, "npv": none}
            continue
        value = metrics.predictive_values(recall.value, specificity.value, prevalence)
        draws = metrics.predictive_values(
            drawn[f"{prefix}/recall"], drawn[f"{prefix}/specificity"], prevalence
        )
        n = recall.n + specificity.n
        found[prevalence] = {
            name: intervals.bootstrap_estimate(float(v), d, n, patients)
            for name, v, d in zip(("ppv", "npv"), value, draws, strict=True)
        }
        for k, (name, estimate) in enumerate(found[prevalence].items()):
            if estimate.value is not None and estimate.low is None:
                found[prevalence][name] = _from_ends(estimate, k, recall, specificity, prevalence)
    return found


def _from_ends(
    estimate: Estimate, k: int, recall: Estimate, specificity: Estimate, prevalence: float
) -> Estimate:
    """A predictive value's interval where no draw shows a false alarm (or no missed film).

    Both values grow with recall and with specificity, so the ends of their intervals bound it.
    """
    if None in (recall.low, recall.high, specificity.low, specificity.high):
        return estimate
    low, high = (
        float(metrics.predictive_values(r, s, prevalence)[k])
        for r, s in ((recall.low, specificity.low), (recall.high, specificity.high))
    )
    method = "from the ends of the intervals of recall and specificity"
    return Estimate(estimate.value, low, high, estimate.n, method)


def _dicts(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.as_dict() for name, estimate in estimates.items()}
