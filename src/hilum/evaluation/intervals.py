"""How sure a figure is: patient bootstrap, Wilson, Clopper-Pearson, DeLong.

Films of one patient resemble each other, so where a patient has several films whole patients
are drawn; counting the films as independent would make intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import Estimate

Array = NDArray[Any]
Floats = NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95


def wilson(k: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval for k of n (Wilson 1927); (0, 1) where n is 0."""
    if n <= 0:
        return 0.0, 1.0
    z = normal_quantile(CONFIDENCE)
    share, spread = k / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def clopper_pearson(k: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval for k of n (Clopper and Pearson 1934), never too narrow."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def normal_quantile(confidence: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for 95 %."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def groups(patient: Any) -> NDArray[np.int64]:
    """(n,) number of each film's patient, 0 to the number of patients less 1."""
    return np.unique(np.asarray(patient), return_inverse=True)[1].reshape(-1)


def bootstrap(
    statistic: Callable[[Floats], Mapping[str, Array]],
    patient: Any,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    films_at_once: int = 1_000_000,
) -> dict[str, Floats]:
    """Draw patients with replacement and measure each draw.

    Parameters
    ----------
    statistic : ``statistic(weight)`` with weight (b, n), how often each film was drawn, gives
        arrays (b,) by name. Measured on two models at once it gives paired differences
    patient : n grouping keys

    Returns
    -------
    dict of (draws,) arrays by name. The same seed and patients give the same draws.
    """
    member = groups(patient)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    size = max(1, films_at_once // max(len(member), count))
    found: dict[str, list[Array]] = {}
    for start in range(0, draws, size):
        b = min(size, draws - start)
        times = times_drawn(rng, b, count)
        for name, values in statistic(times[:, member].astype(np.float64)).items():
            found.setdefault(name, []).append(np.asarray(values))
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def times_drawn(rng: np.random.Generator, draws: int, count: int) -> NDArray[np.int64]:
    """(draws, count): how often each of ``count`` patients is drawn, ``count`` a draw."""
    # Not rng.integers: its stream depends on how many numbers each call asks for.
    drawn = (rng.random((draws, count)) * count).astype(np.int64)
    drawn += count * np.arange(draws)[:, None]
    return np.bincount(drawn.reshape(-1), minlength=draws * count).reshape(draws, count)


def percentiles(draws: Array) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of bootstrap draws.

    Draws that are not defined (a class that was not drawn) are left out, and where they are
    more than one in twenty there is no interval; an end that is infinite is None.
    """
    defined = draws[~np.isnan(draws)]
    if len(defined) < 0.95 * len(draws) or not len(defined):
        return None, None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail], method="inverted_cdf")
    return (
        float(low) if np.isfinite(low) else None,
        float(high) if np.isfinite(high) else None,
    )


def bootstrap_estimate(value: Any, draws: Array, n: int, patients: int) -> Estimate:
    """The value with the percentile interval of its draws, the method named.

    Where all draws agree (no film was wrong) they say nothing of the spread: no interval.
    """
    if not np.isfinite(value):
        return Estimate(None, None, None, n, "not defined on these films")
    low, high = percentiles(draws)
    if low is not None and low == high:
        return Estimate(float(value), None, None, n, "no interval: all bootstrap draws agree")
    method = f"patient bootstrap, {len(draws)} draws of {patients} patients"
    if patients == n:
        method = f"bootstrap, {len(draws)} draws of {n} films"
    return Estimate(float(value), low, high, n, method)


def proportion(k: float, n: float, patients: int, draws: Array | None = None) -> Estimate:
    """A share of films with its interval.

    Parameters
    ----------
    k, n : films; patients : how many patients the n films are of
    draws : (b,) bootstrap draws of the share, used where a patient has several films

    Where every film is one patient the interval is Wilson's. Where films are clustered it is
    the patient bootstrap's, except at 0 and 1, where all draws agree whatever the truth: there
    it is Clopper and Pearson's, with patients counted instead of films.
    """
    films = round(n)
    if n <= 0:
        return Estimate(None, None, None, films, "not defined on these films")
    share = k / n
    if patients >= n or draws is None:
        low, high = wilson(k, n)
        return Estimate(share, low, high, films, "Wilson")
    if share in (0.0, 1.0):
        low, high = clopper_pearson(share * patients, patients)
        return Estimate(share, low, high, films, f"Clopper-Pearson over {patients} patients")
    return bootstrap_estimate(share, draws, films, patients)


def separated_area(area: float, n: int, pairs: int) -> Estimate:
    """The interval of an AUROC of exactly 1 (or 0), where a bootstrap shows no spread.

    The patients of the rarer class and as many of the other make ``pairs`` independent pairs,
    every one of them in the same order: the exact interval of a share of ``pairs``.
    """
    low, high = clopper_pearson(area * pairs, pairs)
    return Estimate(area, low, high, n, f"Clopper-Pearson over {pairs} independent pairs")


def delong(label: Any, *scores: Any) -> tuple[Floats, Floats]:
    """AUROCs of k scores on the same films and their covariance (DeLong et al. 1988).

    Parameters
    ----------
    label : (n,) 0 or 1; scores : k arrays (n,)

    Returns
    -------
    (k,) areas and (k, k) covariance matrix. Films count as independent.
    """
    label = np.asarray(label).astype(bool)
    table = np.stack([np.asarray(score, np.float64) for score in scores])
    positive, negative = table[:, label], table[:, ~label]
    m, n = positive.shape[1], negative.shape[1]
    among_all = _midranks(np.concatenate([positive, negative], axis=1))
    # Placement values: the share of the other class that a film is ranked above.
    place_positive = (among_all[:, :m] - _midranks(positive)) / n
    place_negative = 1 - (among_all[:, m:] - _midranks(negative)) / m
    covariance = np.cov(place_positive) / m + np.cov(place_negative) / n
    return place_positive.mean(axis=1), np.atleast_2d(covariance)


def _midranks(table: Floats) -> Floats:
    """Ranks from 1 within each row; ties share the mean of theirs."""
    ranks = np.empty_like(table)
    for row, values in enumerate(table):
        _, group, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks[row] = (np.cumsum(count) - (count - 1) / 2)[group]
    return ranks


def delong_difference(label: Any, first: Any, second: Any) -> tuple[Estimate, float]:
    """Second less first AUROC with DeLong's interval, and the two-sided p-value."""
    from scipy.special import ndtr

    areas, covariance = delong(label, first, second)
    difference = float(areas[1] - areas[0])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    error = np.sqrt(max(variance, 0.0))
    half = normal_quantile(CONFIDENCE) * error
    p = float(2 * ndtr(-abs(difference) / error)) if error > 0 else 1.0
    n = len(np.asarray(label))
    return Estimate(difference, difference - half, difference + half, n, "DeLong, paired"), p
