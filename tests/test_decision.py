from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hilum.decision import Calibration, Estimate, OperatingPoint, chance, decide


@given(st.floats(0, 1), st.floats(0, 1))
def test_positive_from_the_threshold_on(probability: float, threshold: float) -> None:
    answer = decide(probability, OperatingPoint("p", threshold))[()]
    assert answer == ("positive" if probability >= threshold else "negative")


def test_the_refer_band_and_unknown_scores_go_to_a_reader() -> None:
    point = OperatingPoint("p", 0.5, refer_band=(0.4, 0.6))
    answers = decide(np.array([0.1, 0.4, 0.59, 0.6, np.nan]), point)
    assert list(answers) == ["negative", "refer", "refer", "positive", "refer"]


@given(st.floats(-500, 500), st.floats(0.01, 5), st.floats(-5, 5))
def test_calibration_is_a_finite_probability(logit: float, slope: float, intercept: float) -> None:
    p = float(Calibration(slope, intercept).probability(np.float64(logit)))
    assert 0.0 <= p <= 1.0
    if abs(slope * logit + intercept) < 30:
        assert math.isclose(p, 1 / (1 + math.exp(-(slope * logit + intercept))), rel_tol=1e-9)


def test_an_unknown_logit_stays_unknown() -> None:
    assert np.isnan(Calibration().probability(np.array([np.nan]))).all()


def test_points_come_back_from_json() -> None:
    point = OperatingPoint("p", 0.25, (0.2, 0.3), "films", "rule", {"recall": 0.97})
    assert OperatingPoint.from_dict(point.as_dict()) == point


def test_estimates_are_readable() -> None:
    assert str(Estimate(0.5, 0.4, 0.6, 10, "Wilson")) == "0.500 (0.400–0.600)"
    assert str(Estimate(None, None, None, 0, "none")) == "–"


def test_an_auroc_that_is_no_better_than_guessing_is_told() -> None:
    def told(*numbers: float | None) -> str | None:
        return chance(Estimate(*numbers, 73, "any"), "validation")

    assert told(0.9, 0.51, 0.99) is None and told(0.6, None, None) is None
    assert told(None, None, None) is None  # one class: nothing is known
    for numbers in ((0.5, None, None), (0.2, 0.1, 0.3), (0.48, 0.4, 0.6)):
        assert (told(*numbers) or "").startswith("no better than chance on these 73 films of val")
    for numbers in ((0.55, 0.42, 0.7), (1.0, 0.16, 1.0), (0.6, 0.5, 0.7)):
        assert (told(*numbers) or "").startswith("not shown to be better than chance on these 73")
