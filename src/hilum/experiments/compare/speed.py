"""How many times as fast one place is as another, and when its longer set-up has paid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def summary(values: ArrayLike) -> dict[str, float | int | None]:
    """Mean, least, most and number of some measured values; None where there are none."""
    v = np.asarray(values, np.float64).ravel()
    if not len(v):
        return {"mean": None, "least": None, "most": None, "n": 0}
    mean, least, most = (round(float(x), 4) for x in (v.mean(), v.min(), v.max()))
    return {"mean": mean, "least": least, "most": most, "n": len(v)}


def speed_up(slow: Sequence[ArrayLike], fast: Sequence[ArrayLike]) -> dict[str, Any]:
    """Times of one place over those of another, paired by seed and epoch.

    Parameters
    ----------
    slow, fast : for each seed the times of its epochs

    Returns
    -------
    dict with ``ratio`` (of the means, as the paper takes it), ``least`` and ``most`` of the
    paired ratios, ``low`` and ``high`` (95 %, Student's t over the logarithms of the runs' ratios:
    epochs of a run share its process and its hour; None for a single run), ``runs`` and ``n``
    """
    from scipy.stats import t

    runs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(slow, fast, strict=True)
    ]
    if not runs or any(a.shape != b.shape or a.ndim != 1 or not len(a) for a, b in runs):
        shapes = [(np.shape(a), np.shape(b)) for a, b in zip(slow, fast, strict=True)]
        raise ValueError(f"pairs of times are expected for each seed, not {shapes}")
    a, b = (np.concatenate(times) for times in zip(*runs, strict=True))
    pairs = a / b
    low = high = None
    if len(runs) > 1:
        logs = np.log([one.mean() / other.mean() for one, other in runs])
        wide = t.ppf(0.975, len(runs) - 1) * logs.std(ddof=1) / np.sqrt(len(runs))
        low, high = (round(float(np.exp(logs.mean() + off)), 4) for off in (-wide, wide))
    return {
        "ratio": round(float(a.mean() / b.mean()), 4),
        "least": round(float(pairs.min()), 4),
        "most": round(float(pairs.max()), 4),
        "low": low,
        "high": high,
        "runs": len(runs),
        "n": len(a),
        "method": "Student's t over the runs' log ratios" if len(runs) > 1 else "one run",
    }


def bounds(ratio: Mapping[str, Any]) -> tuple[float, float] | None:
    """What a speed-up lies between, as far as is known: its interval; of a single run, which has
    none, its least and its most epoch; None of a single epoch, which shows no spread."""
    if ratio["n"] == 1:
        return None
    low, high = ("least", "most") if ratio["low"] is None else ("low", "high")
    return float(ratio[low]), float(ratio[high])


def around_the_median(values: Sequence[float]) -> tuple[float, float]:
    """An interval that holds the median with 95 % or more, whatever the distribution: between two
    of the values in their order (by the binomial distribution; all where they are under six).

    Parameters
    ----------
    values : one or more, sorted
    """
    n, outside, rank = len(values), 0.0, 0
    while rank < n // 2 and (outside := outside + math.comb(n, rank) / 2**n) <= 0.025:
        rank += 1
    off = max(0, rank - 1)
    return values[off], values[n - 1 - off]


def times(ratio: float) -> str:
    """A ratio for people: two decimals, two figures of what is small."""
    return f"{ratio:.2f}" if ratio >= 0.0995 else f"{ratio:.2g}"


def known(between: tuple[float, float] | None) -> bool:
    """Whether a speed-up that lies ``between`` (:func:`bounds`) is one, or the opposite of one."""
    return between is not None and not between[0] <= 1 <= between[1]


def break_even(
    setup: float, seconds: float, baseline_setup: float, baseline_seconds: float
) -> int | None:
    """The first epoch after which a place has taken no longer than the baseline, set-up included.

    Parameters
    ----------
    setup, baseline_setup : seconds before the first step
    seconds, baseline_seconds : an epoch

    Returns
    -------
    0 where it is ready first and not slower, None where it never catches up
    """
    extra, saved = setup - baseline_setup, baseline_seconds - seconds
    if extra <= 0 and saved >= 0:
        return 0
    if saved <= 0:
        return None
    return max(0, math.ceil(extra / saved))
