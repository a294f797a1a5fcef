"""Whether two places converge alike: equivalence tests over paired seeds, and decisions flipped.

"No difference was seen" is not "the same": a test that looks for a difference finds none in few
runs. Here the question is turned round (two one-sided tests; Schuirmann 1987): two places converge
alike where the interval of their difference lies within a margin that was stated before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The largest difference that counts as none, by measure.
MARGINS = {
    "val_accuracy": 0.02,
    "val_auroc": 0.01,
    "val_loss": 0.05,
    "curve_loss": 0.05,
    "curve_val_loss": 0.05,
}
#: What the measures are, for people.
WORDS = {
    "val_accuracy": "val. accuracy at the end",
    "val_auroc": "val. AUROC at the end",
    "val_loss": "val. loss at the end",
    "curve_loss": "training loss over the epochs",
    "curve_val_loss": "val. loss over the epochs",
}
#: Shares of films: with few of them two unlike places differ by none in every seed by chance.
COUNTED = ("val_accuracy", "val_auroc")
COINCIDENCE = 1e-9  # differences closer than this are the same one
SAME = 1e-6  # losses closer than this differ by the order of a sum: the runs are the same
CONFIDENCE = 0.90  # of the interval that goes with two one-sided tests at 5 %

Verdict = Literal["alike", "different", "open", "not tested"]


@dataclass(frozen=True)
class Equivalence:
    """The difference of two places in one measure, second less first, over paired seeds.

    Attributes
    ----------
    difference : mean over the seeds
    low, high : 90 % interval (t), None where it is not tested
    margin : the largest difference that counts as none
    p : of the two one-sided tests, the larger
    verdict : ``alike``: the interval lies within ± margin; ``different``: it lies wholly
        outside; ``open``: neither; ``not tested``: one seed has no spread, nor have seeds that
        differ by the same number of films, as few films and seeds may by chance; nor those that
        differ by none, unless their losses do not either (``SAME``)
    """

    difference: float
    low: float | None
    high: float | None
    margin: float
    p: float | None
    n: int
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def equivalence(differences: ArrayLike, margin: float, *, by_chance: bool = False) -> Equivalence:
    """Test paired differences (n,) against a margin.

    Parameters
    ----------
    by_chance : whether differences that are all none may be so by chance, which tests nothing

    Examples
    --------
    >>> equivalence([0.001, -0.002, 0.0, 0.002], margin=0.02).verdict
    'alike'
    >>> equivalence([0.09, 0.11, 0.10, 0.10], margin=0.02).verdict
    'different'
    """
    d = np.asarray(differences, np.float64)
    mean, n = float(d.mean()), len(d)
    if n < 2 or (np.ptp(d) < COINCIDENCE and (by_chance or abs(mean) > COINCIDENCE)):
        return Equivalence(mean, None, None, margin, None, n, "not tested")
    from scipy.stats import t

    error = float(d.std(ddof=1)) / n**0.5
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    low, high = mean - half, mean + half
    if error > 0:
        p = float(max(t.sf((mean + margin) / error, n - 1), t.cdf((mean - margin) / error, n - 1)))
    else:
        p = 0.0 if abs(mean) < margin else 1.0
    verdict: Verdict = "open"
    if -margin < low and high < margin:
        verdict = "alike"
    elif low > margin or high < -margin:
        verdict = "different"
    return Equivalence(mean, low, high, margin, p, n, verdict)


def measures(epochs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What of one run is compared (keys of ``MARGINS``), but for what is not defined."""
    last = epochs[-1]
    found = {key: last[key] for key in ("val_accuracy", "val_auroc", "val_loss")}
    for key in ("loss", "val_loss"):
        values = [epoch[key] for epoch in epochs]
        found[f"curve_{key}"] = None if None in values else float(np.mean(values))
    return {key: float(value) for key, value in found.items() if value is not None}


def compare_runs(
    first: Mapping[int, Sequence[Mapping[str, Any]]],
    second: Mapping[int, Sequence[Mapping[str, Any]]],
    margins: Mapping[str, float] = MARGINS,
) -> dict[str, Equivalence]:
    """Second place less first, by measure, over the seeds that both have.

    Parameters
    ----------
    first, second : the epochs of each run, by seed
    """
    seeds = sorted(first.keys() & second.keys())
    one = [measures(first[s]) for s in seeds]
    two = [measures(second[s]) for s in seeds]
    found = {
        name: [b[name] - a[name] for a, b in zip(one, two, strict=True)]
        for name in margins
        if seeds and all(name in m for m in (*one, *two))
    }
    same = "val_loss" in found and max(map(abs, found["val_loss"])) < SAME
    return {
        name: equivalence(d, margins[name], by_chance=name in COUNTED and not same)
        for name, d in found.items()
    }


def spread(runs: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """What a change of seed does to each measure at one place: the standard deviation."""
    if len(runs) < 2:
        return {}
    found = [measures(epochs) for epochs in runs.values()]
    names = set.intersection(*(set(m) for m in found))
    return {
        name: float(np.std([m[name] for m in found], ddof=1)) for name in MARGINS if name in names
    }


def flipped(first: NDArray[np.float64], second: NDArray[np.float64]) -> int:
    """Films (of n logits each) that two models decide otherwise at probability one half."""
    return int((_decided(first) != _decided(second)).sum())


def one_answer(logits: NDArray[np.float64]) -> bool:
    """Whether a model decides all of its films (n logits) alike at probability one half, so that
    its accuracy is the share of one class and agrees with that of any other such model."""
    return len(set(_decided(logits))) == 1


def _decided(logits: NDArray[np.float64]) -> NDArray[np.object_]:
    from hilum.decision import Calibration, decide
    from hilum.training.loop import HALF

    return decide(Calibration().probability(logits), HALF)


def flips_between_places(
    first: Mapping[int, NDArray[np.float64]], second: Mapping[int, NDArray[np.float64]]
) -> list[int]:
    """Films flipped between two places, one number for each seed that both have."""
    return [flipped(first[s], second[s]) for s in sorted(first.keys() & second.keys())]


def flips_between_seeds(runs: Mapping[int, NDArray[np.float64]]) -> list[int]:
    """Films flipped between two seeds of one place, one number for each pair."""
    return [flipped(runs[a], runs[b]) for a, b in combinations(sorted(runs), 2)]
