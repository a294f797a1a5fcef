"""What a score means: estimates, operating points, calibration, and the one comparison.

Nothing else in hilum compares a score with a threshold.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Decision = Literal["positive", "negative", "refer"]


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval.

    Attributes
    ----------
    value : the point estimate; None where it is not defined (no positives, say)
    low, high : ends of the interval, None where there is none
    n : how many films (or patients, as ``method`` says) it rests on
    method : how the interval was made, for example ``"patient bootstrap, 2000 draws"``
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def chance(auroc: Estimate, films: str) -> str | None:
    """The sentence to say where an AUROC is not known to be better than guessing's; else None.

    It is not where the value is one half or less, or its interval reaches down to one half.

    Parameters
    ----------
    films : which, in words, for example ``"validation"``
    """
    if auroc.value is None or min(auroc.value, auroc.low or 1.0) > 0.5:
        return None
    where = f"than chance on these {auroc.n} films of {films}"
    if auroc.value <= 0.5:
        return f"no better {where}: its AUROC is {auroc}, and 0.5 is guessing."
    return (
        f"not shown to be better {where}: the interval of its AUROC, {auroc}, reaches down to 0.5, "
        "which is guessing."
    )


@dataclass(frozen=True)
class OperatingPoint:
    """A named threshold on a model's probability, and what it promises.

    Attributes
    ----------
    name : ``balanced``, ``screening``, ...
    threshold : calibrated probability in [0, 1] at or above which a film is positive
    refer_band : (low, high) probabilities between which a film goes to a reader, or None
    chosen_on : the films that the choice was made on, in words
    rule : how it was chosen, in words
    promise : what was measured there when it was chosen, for example ``{"recall": ...}``
    """

    name: str
    threshold: float
    refer_band: tuple[float, float] | None = None
    chosen_on: str = ""
    rule: str = ""
    promise: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> OperatingPoint:
        band = content.get("refer_band")
        return cls(
            name=content["name"],
            threshold=float(content["threshold"]),
            refer_band=(float(band[0]), float(band[1])) if band else None,
            chosen_on=content.get("chosen_on", ""),
            rule=content.get("rule", ""),
            promise=content.get("promise"),
        )


@dataclass(frozen=True)
class Calibration:
    """Logit → probability: ``p = sigmoid(slope · logit + intercept)`` (Platt 1999).

    The intercept undoes the class weights of training, so that probabilities refer to
    ``prevalence``, the share of positives among the films that the map was fitted on.
    """

    slope: float = 1.0
    intercept: float = 0.0
    prevalence: float = 0.5
    fitted_on: str = ""

    def probability(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Probabilities, the shape of ``logits``; NaN stays NaN."""
        z = self.slope * np.asarray(logits, np.float64) + self.intercept
        with np.errstate(invalid="ignore"):  # NaN is an unknown score
            return np.exp(-np.logaddexp(0.0, -z))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def in_words(decision: Decision | None, target: str) -> str:
    """An answer for people; never "normal", as the film may show something else."""
    return {
        "positive": f"{target} suspected",
        "negative": f"{target} not suspected",
        "refer": "refer to a reader",
        None: "could not be read",
    }[decision]


def decide(
    probability: NDArray[np.floating[Any]] | float, point: OperatingPoint
) -> NDArray[np.object_]:
    """The decision for each probability, as an array of the same shape.

    Inside the refer band, and for NaN: ``"refer"``. At or above the threshold: ``"positive"``.
    """
    p = np.asarray(probability, np.float64)
    answer = np.where(p >= point.threshold, "positive", "negative").astype(object)
    refer = np.isnan(p)
    if point.refer_band is not None:
        refer |= (p >= point.refer_band[0]) & (p < point.refer_band[1])
    answer[refer] = "refer"
    return answer
