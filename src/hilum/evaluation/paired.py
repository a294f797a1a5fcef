"""Two models on the same films: differences, with whole patients drawn for both at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation import intervals, metrics
from hilum.evaluation.measure import CALIBRATION, RANKING, Measured, Ranked

Array = NDArray[Any]


def differences(
    first: Measured, second: Measured, *, draws: int = intervals.DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Second less first, paired film by film: whole patients are drawn for both at once.

    Returns
    -------
    dict with ``films`` (how many both scored), ``ranking`` and ``calibration`` (an ``Estimate``
    a metric), ``delong`` (the AUROC difference with DeLong's interval, and ``p``) and ``points``
    (by the name of a point that both have, strict metrics)

    Raises
    ------
    ValueError
        No film was judged by both.
    """
    pair = (first, second)
    rows = _common(first.scores.film, second.scores.film)
    judged = [m.scores.select(index) for m, index in zip(pair, rows, strict=True)]
    label = judged[0].label.astype(int)
    patient = np.asarray(judged[0].patient, dtype=object).astype(str)
    both = ~(np.isnan(judged[0].probability) | np.isnan(judged[1].probability))
    ranked = [Ranked(label[both], scores.probability[both], True) for scores in judged]
    names = [name for name in first.points if name in second.points]
    members = {
        name: [
            metrics.strict(metrics.cells(label, m.points[name].decision[index]))
            for m, index in zip(pair, rows, strict=True)
        ]
        for name in names
    }

    def statistic(weight: Array) -> dict[str, Array]:
        one, two = (r.measure(weight[:, both]) for r in ranked)
        found = {name: two[name] - one[name] for name in one}
        for name, (a, b) in members.items():
            one, two = metrics.rates(weight @ a), metrics.rates(weight @ b)
            with np.errstate(invalid="ignore"):  # ∞ - ∞: not defined
                found.update({f"{name}/{k}": two[k] - one[k] for k in one})
        return found

    value = {k: float(v[0]) for k, v in statistic(np.ones((1, len(label)))).items()}
    drawn = intervals.bootstrap(statistic, patient, draws=draws, seed=seed)
    n, patients = len(label), len(set(patient))
    made = {
        k: intervals.bootstrap_estimate(
            value[k], drawn[k], n if "/" in k else int(both.sum()), patients
        )
        for k in value
    }
    delong = None
    if 0 < label[both].sum() < both.sum():
        estimate, p = intervals.delong_difference(label[both], *(r.p for r in ranked))
        delong = {"auroc": estimate, "p": p}
    return {
        "films": int(both.sum()),
        "ranking": {name: made[name] for name in RANKING},
        "calibration": {name: made[name] for name in CALIBRATION},
        "delong": delong,
        "points": {
            name: {k.split("/", 1)[1]: v for k, v in made.items() if k.startswith(f"{name}/")}
            for name in names
        },
    }


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[Array, Array]:
    """Rows of the films that both judged, in the first's order. A film that only one could read
    (its pixels are made for each model anew) is left out."""
    place = {film: row for row, film in enumerate(second)}
    rows = [(i, place[film]) for i, film in enumerate(first) if film in place]
    if not rows:
        raise ValueError("paired differences need films that both models judged")
    here, there = np.array(rows, np.int64).T
    return here, there
