"""How many times as fast one place is as another, and when its longer set-up has paid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 2000


def summary(values: ArrayLike) -> dict[str, float | int | None]:
    """Mean, least, most and number of some measured values; None where there are none."""
    v = np.asarray(values, np.float64).ravel()
    if not len(v):
        return {"mean": None, "least": None, "most": None, "n": 0}
    mean, least, most = (round(float(x), 4) for x in (v.mean(), v.min(), v.max()))
    return {"mean": mean, "least": least, "most": most, "n": len(v)}


def speed_up(slow: ArrayLike, fast: ArrayLike) -> dict[str, Any]:
    """Times of one place over those of another, paired by seed and epoch.

    Parameters
    ----------
    slow, fast : (n,) times of the same epochs

    Returns
    -------
    dict with ``ratio`` (of the means, as the paper takes it), ``least`` and ``most`` of the
    paired ratios, ``low`` and ``high`` (95 %, percentile bootstrap over pairs; None for a single
    pair) and ``n``
    """
    a, b = np.asarray(slow, np.float64), np.asarray(fast, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"pairs of times are expected, not {a.shape} and {b.shape}")
    pairs = a / b
    low = high = None
    if len(a) > 1:
        drawn = np.random.default_rng(0).integers(0, len(a), (DRAWS, len(a)))
        ratios = a[drawn].mean(1) / b[drawn].mean(1)
        low, high = (round(float(q), 4) for q in np.quantile(ratios, (0.025, 0.975)))
    return {
        "ratio": round(float(a.mean() / b.mean()), 4),
        "least": round(float(pairs.min()), 4),
        "most": round(float(pairs.max()), 4),
        "low": low,
        "high": high,
        "n": len(a),
        "method": f"bootstrap over {len(a)} epochs, {DRAWS} draws" if len(a) > 1 else "one epoch",
    }


def times(ratio: float) -> str:
    """A ratio for people: two decimals, two figures of what is small."""
    return f"{ratio:.2f}" if ratio >= 0.0995 else f"{ratio:.2g}"


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
