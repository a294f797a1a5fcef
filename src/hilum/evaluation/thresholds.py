"""Where probabilities and thresholds come from: calibration fit, and named rules.

A threshold that is chosen on films like the training films breaks on films from elsewhere, so
the choice is made on :class:`Choice` scores: of the validation films as they are and under
imitated shifts. Films as they are count as much as all shifts together: how far films from
elsewhere differ is not known, only that it is more than validation shows
(docs/records/fast).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import Calibration, OperatingPoint, decide
from hilum.errors import Refused, UsageError, nearest
from hilum.evaluation.calibration import logistic_line
from hilum.evaluation.intervals import groups, times_drawn
from hilum.evaluation.metrics import auroc, cells, rates

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Choice:
    """The scores that a calibration or a threshold is chosen on.

    Attributes
    ----------
    label : (n,) 0 or 1
    patient : n grouping keys
    logits : (n,) logits by condition: ``"plain"`` and the names of imitated shifts; NaN where a
        film was not scored
    films : what the films are, in words, for example ``"the validation part"``
    """

    label: Array
    patient: tuple[str, ...]
    logits: Mapping[str, Array]
    films: str = "the validation part"

    def __post_init__(self) -> None:
        if not self.logits:
            raise UsageError("no scores to choose on: give the logits of one condition at least.")
        for classes in (0, 1):
            if not np.any(np.asarray(self.label) == classes):
                raise Refused(
                    f"a threshold needs films of both classes: {self.films} has none of class "
                    f"{classes}. Give it a larger part."
                )

    @cached_property
    def pooled(self) -> tuple[Array, Floats, Floats, NDArray[np.int64]]:
        """(label, logit, weight, patient number) of every scored film of every condition.

        Plain films weigh as much as all shifts together, and shifts the same among themselves.
        """
        count = len(self.logits)
        if count == 1 or "plain" not in self.logits:
            return self.weighted({})
        return self.weighted({"plain": count - 1.0})

    def weighted(
        self, weights: Mapping[str, float]
    ) -> tuple[Array, Floats, Floats, NDArray[np.int64]]:
        """The same, each condition with this weight (1 where it is not named), scaled so that all
        weights sum to n times the number of conditions."""
        label = np.tile(np.asarray(self.label), len(self.logits))
        logit = np.concatenate([np.asarray(z, np.float64) for z in self.logits.values()])
        patient = np.tile(groups(self.patient), len(self.logits))
        shares = np.array([weights.get(name, 1.0) for name in self.logits])
        known = [np.isfinite(z) for z in self.logits.values()]
        weight = np.concatenate(
            [
                here * (share * len(self.label) / max(1, here.sum()))
                for here, share in zip(known, shares / shares.mean(), strict=True)
            ]
        )
        mask = np.concatenate(known)
        return label[mask], logit[mask], weight[mask], patient[mask]

    @property
    def words(self) -> str:
        """What a threshold was chosen on, in words."""
        return self._told("as they are and, all together with the same weight,")

    @property
    def words_alike(self) -> str:
        """What a calibration was fitted on, in words: each condition weighs the same."""
        return self._told("as they are and with the same weight each")

    def _told(self, plain: str) -> str:
        shifts = [name for name in self.logits if name != "plain"]
        text = f"{self.films} ({len(self.label)} films, {len(set(self.patient))} patients)"
        if not shifts:
            return f"{text}, as they are"
        lead = f"{plain} " if "plain" in self.logits else ""
        return f"{text}, {lead}under imitated shifts: {', '.join(shifts)}"


def fit_calibration(
    logits: Array, labels: Array, weights: Array | None = None, *, fitted_on: str = ""
) -> Calibration:
    """The map from logit to probability, fitted at the true share of positives.

    Platt's (1999): a logistic line through targets drawn in a little from 0 and 1, so that
    classes that are separated completely still give a finite slope; it is never negative, and
    0 where the logits tell nothing. Because films are not
    weighted by class here, the intercept undoes whatever class weights training used.

    Parameters
    ----------
    logits : (n,) of the exported graph; labels : (n,) 0 or 1
    weights : (n,) film weights (of conditions that are pooled), or None

    Raises
    ------
    Refused
        A class is absent.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    known = np.isfinite(z)
    z, y, w = z[known], y[known], w[known]
    # Weighted films count as so many in all, so that the targets stay what Platt meant.
    positives, negatives = (w * (y == 1)).sum(), (w * (y == 0)).sum()
    if positives <= 0 or negatives <= 0:
        raise Refused(
            "a calibration needs films of both classes: one is absent. Give it a larger part."
        )
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(np.std(z)) or 1.0
    slope, intercept = logistic_line(target, z / scale, w)
    if not slope > 0:
        # Logits that are all alike, or fall where illness is likelier, say nothing of a film:
        # each gets the share of positives, and no threshold is turned round.
        share = (w @ target) / w.sum()
        slope, intercept = np.array(0.0), np.array(np.log(share / (1 - share)))
    return Calibration(
        slope=float(slope) / scale,
        intercept=float(intercept),
        prevalence=float(positives / (positives + negatives)),
        fitted_on=fitted_on,
    )


def calibrate(choice: Choice) -> Calibration:
    """:func:`fit_calibration` on all conditions of a choice, each with the same weight.

    A probability is a claim about films to come, and those are more like the shifts than like
    validation; thresholds give plain films more weight (:attr:`Choice.pooled`).
    """
    label, logit, weight, _ = choice.weighted({})
    return fit_calibration(logit, label, weight, fitted_on=choice.words_alike)


Rule = Callable[..., tuple[float, str]]

#: Rules by name: ``rule(choice, calibration, **options) -> (threshold, the rule in words)``.
RULES: dict[str, Rule] = {}

#: The rule and options of each operating point that hilum makes by itself.
POINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "balanced": ("equal_rates", {}),
    "screening": ("recall_at_least", {"recall": 0.98}),
}


def _rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


def choose(
    choice: Choice,
    calibration: Calibration,
    name: str = "balanced",
    rule: str | None = None,
    **options: Any,
) -> OperatingPoint:
    """Choose an operating point and measure what it promises.

    Parameters
    ----------
    name : the point's name; ``balanced`` and ``screening`` bring their rule (``POINTS``)
    rule : a name in ``RULES``; options : the rule's own

    Returns
    -------
    OperatingPoint whose promise holds ``recall`` and ``specificity`` over all conditions pooled,
    ``recall_plain`` and ``specificity_plain``, and the least of each over the conditions

    Raises
    ------
    UsageError
        No rule has that name.
    """
    if rule is None:
        if name not in POINTS:
            raise UsageError(f"no operating point of that name: {name}. {nearest(name, POINTS)}")
        rule, preset = POINTS[name]
        options = {**preset, **options}
    if rule not in RULES:
        raise UsageError(f"no such rule for a threshold: {rule}. {nearest(rule, RULES)}")
    threshold, words = RULES[rule](choice, calibration, **options)
    point = OperatingPoint(
        name=name, threshold=round(threshold, 6), chosen_on=choice.words, rule=words
    )
    return OperatingPoint(**{**point.__dict__, "promise": promise(choice, calibration, point)})


def promise(choice: Choice, calibration: Calibration, point: OperatingPoint) -> dict[str, float]:
    """Recall and specificity of a point, pooled over the conditions, plain, and the least."""
    conditions = {}
    for condition, logits in choice.logits.items():
        known = np.isfinite(logits)
        decision = decide(calibration.probability(np.asarray(logits)[known]), point)
        conditions[condition] = rates(cells(np.asarray(choice.label)[known], decision).sum(0))
    found: dict[str, float] = {}
    for metric in ("recall", "specificity"):
        values = {name: float(rate[metric]) for name, rate in conditions.items()}
        found[metric] = float(np.mean(list(values.values())))
        found[f"{metric}_worst"] = min(values.values())
        if "plain" in values:
            found[f"{metric}_plain"] = values["plain"]
    return {name: round(value, 4) for name, value in found.items()}


def _steps(label: Array, logit: Array, weight: Array) -> tuple[Floats, Floats, Floats]:
    """Cuts between distinct logits (k + 1, ascending), and recall and specificity at each.

    Cuts lie midway between neighbouring scores, so that rounding never moves a film across.
    """
    order = np.argsort(logit, kind="stable")
    z, y, w = logit[order], label[order], weight[order]
    ends = np.r_[np.flatnonzero(np.diff(z)), len(z) - 1]
    missed = np.r_[0.0, np.cumsum(w * (y == 1))[ends]]
    cleared = np.r_[0.0, np.cumsum(w * (y == 0))[ends]]
    distinct = z[ends]
    cuts = np.r_[distinct[0] - 1.0, (distinct[:-1] + distinct[1:]) / 2, distinct[-1] + 1.0]
    return cuts, 1 - missed / missed[-1], cleared / cleared[-1]


def _probability(calibration: Calibration, logit: float) -> float:
    return float(calibration.probability(np.array([logit]))[0])


def _best(
    choice: Choice, calibration: Calibration, worth: Callable[[Floats, Floats], Floats]
) -> float:
    """The middle of the cuts whose recall and specificity, conditions pooled, are worth most."""
    label, logit, weight, _ = choice.pooled
    cuts, recall, specificity = _steps(label, logit, weight)
    found = worth(recall, specificity)
    best = np.flatnonzero(found >= found.max() - 1e-12)
    return _probability(calibration, float(np.mean(cuts[best])))


@_rule
def equal_rates(choice: Choice, calibration: Calibration) -> tuple[float, str]:
    """Recall equals specificity over all conditions pooled."""
    cut = _best(choice, calibration, lambda recall, specificity: -np.abs(recall - specificity))
    return cut, "recall equals specificity, conditions pooled"


@_rule
def equal_costs(choice: Choice, calibration: Calibration, miss: float = 3.0) -> tuple[float, str]:
    """The share of the ill that are missed, ``miss`` times, equals the share of the healthy that
    are called ill, over all conditions pooled (docs/records/fast says how 3 was chosen)."""

    def worth(recall: Floats, specificity: Floats) -> Floats:
        return -np.abs(miss * (1 - recall) - (1 - specificity))

    words = f"share missed times {miss:g} equals share of false alarms, conditions pooled"
    return _best(choice, calibration, worth), words


@_rule
def youden(choice: Choice, calibration: Calibration) -> tuple[float, str]:
    """Recall plus specificity is greatest (Youden 1950) over all conditions pooled."""
    cut = _best(choice, calibration, lambda recall, specificity: recall + specificity)
    return cut, "recall plus specificity greatest, conditions pooled"


@_rule
def accuracy(
    choice: Choice, calibration: Calibration, prevalence: float | None = None
) -> tuple[float, str]:
    """Accuracy is greatest, at the films' own share of positives or a stated one."""
    label, _, weight, _ = choice.pooled
    share = float(weight[label == 1].sum() / weight.sum()) if prevalence is None else prevalence
    cut = _best(choice, calibration, lambda recall, spec: share * recall + (1 - share) * spec)
    return cut, f"accuracy greatest at {share:.0%} positive films"


@_rule
def probability(
    choice: Choice, calibration: Calibration, threshold: float | None = None
) -> tuple[float, str]:
    """A stated calibrated probability; without one, the films' own share of positives, where
    the film speaks as much for one class as for the other (likelihood ratio 1)."""
    if threshold is None:
        return calibration.prevalence, "likelihood ratio 1 (probability equals the prevalence)"
    return float(threshold), f"calibrated probability {threshold:g}"


@_rule
def recall_at_least(
    choice: Choice,
    calibration: Calibration,
    recall: float = 0.98,
    over: str = "pooled",
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, str]:
    """The highest threshold whose recall is at least ``recall`` with ``confidence``.

    Patients with a positive film are drawn with replacement; each draw has its own highest
    threshold that keeps the recall, and the threshold is the low quantile of these, so that a
    share ``confidence`` of the draws keeps the recall.

    Parameters
    ----------
    over : ``pooled``, all conditions together; ``worst``, the condition whose threshold
        is the lowest; or the name of one condition
    """
    conditions = {"pooled": list(choice.logits), "worst": list(choice.logits)}.get(over, [over])
    if over not in ("pooled", "worst", *choice.logits):
        known = ["pooled", "worst", *choice.logits]
        raise UsageError(f"no such condition to hold the recall in: {over}. {nearest(over, known)}")
    together = [conditions] if over == "pooled" else [[name] for name in conditions]
    cuts = []
    for names in together:
        part = Choice(choice.label, choice.patient, {name: choice.logits[name] for name in names})
        cuts.append(_recall_cut(part, recall, confidence, draws, seed))
    positives = np.asarray(choice.label) == 1
    patients = len(set(np.asarray(choice.patient)[positives].tolist()))
    where = {"pooled": "conditions pooled", "worst": "in the worst condition"}.get(over, over)
    words = f"recall at least {recall:g} with {confidence:.0%} confidence, {where}"
    if recall**patients > 1 - confidence:
        # Even no miss among so few patients would not show it (Clopper-Pearson).
        words += f"; {patients} patients are too few to show that, so none of them was to be missed"
    return _probability(calibration, min(cuts)), words


def _recall_cut(choice: Choice, recall: float, confidence: float, draws: int, seed: int) -> float:
    """The logit to cut at; see :func:`recall_at_least`."""
    label, logit, weight, patient = choice.pooled
    positive = label == 1
    order = np.argsort(logit[positive], kind="stable")
    z, w = logit[positive][order], weight[positive][order]
    member = groups(patient[positive][order])
    count = int(member.max()) + 1
    if recall**count > 1 - confidence:
        return float(z[0]) - 1e-6 - 1e-6 * abs(float(z[0]))
    rng = np.random.default_rng(seed)
    lowest = np.empty(draws)
    size = max(1, 1_000_000 // len(z))
    for start in range(0, draws, size):
        b = min(size, draws - start)
        mass = np.cumsum(times_drawn(rng, b, count)[:, member] * w, axis=1)
        # The first film that may not be missed any more is where the cut has to stay below.
        lowest[start : start + b] = z[np.argmax(mass > (1 - recall) * mass[:, -1:] + 1e-9, axis=1)]
    limit = float(np.quantile(lowest, 1 - confidence, method="inverted_cdf"))
    below = logit[logit < limit]
    return (limit + float(below.max())) / 2 if len(below) else limit - 1.0


def separation(choice: Choice) -> dict[str, float]:
    """AUROC by condition: what the shifts cost, to be written into a run's record."""
    found = {}
    for condition, logits in choice.logits.items():
        known = np.isfinite(logits)
        found[condition] = float(auroc(np.asarray(choice.label)[known], np.asarray(logits)[known]))
    return found
