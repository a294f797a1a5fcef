"""Calibration: slope and intercept, ECE and its null band, the reliability diagram."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.decision import Calibration
from hilum.evaluation import calibration, metrics

from .test_metrics import films

pytest.importorskip("scipy")


def test_calibration_line_against_a_known_distortion() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, 60_000)
    label = (rng.random(60_000) < 1 / (1 + np.exp(-truth))).astype(int)
    right = Calibration().probability(truth)
    slope, intercept = calibration.calibration_line(label, right)
    assert slope == pytest.approx(1, abs=0.03) and intercept == pytest.approx(0, abs=0.04)
    extreme = Calibration(slope=2.0).probability(truth)
    assert calibration.calibration_line(label, extreme)[0] == pytest.approx(0.5, abs=0.02)
    too_high = Calibration(intercept=1.0).probability(truth)
    assert calibration.calibration_line(label, too_high)[1] == pytest.approx(-1, abs=0.04)


def test_calibration_line_equals_scikit_learns_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    label, score = films(400, 8)
    z = metrics.logit(score)
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z[:, None], label)
    slope, intercept = calibration.logistic_line(label, z)
    assert slope == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    assert intercept == pytest.approx(fit.intercept_[0], rel=1e-4, abs=1e-5)


def test_separated_classes_have_no_slope() -> None:
    slope, _ = calibration.calibration_line(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert np.isnan(slope)


def test_ece_by_hand_and_its_null_band() -> None:
    probability = np.array([0.1, 0.1, 0.9, 0.9])
    assert calibration.ece(np.array([0, 0, 1, 1]), probability) == pytest.approx(0.1)
    assert calibration.ece(np.array([1, 1, 0, 0]), probability) == pytest.approx(0.9)
    rng = np.random.default_rng(4)
    probability = rng.random(400)
    inside = 0
    for seed in range(100):
        label = (np.random.default_rng(1000 + seed).random(400) < probability).astype(int)
        low, high = calibration.ece_null_band(probability, draws=200, seed=seed)
        inside += low <= calibration.ece(label, probability) <= high
    assert 88 <= inside <= 100
    # Children with many films make the band wider.
    children = np.repeat(np.arange(40), 10)
    clustered = calibration.ece_null_band(np.sort(probability), children)
    assert clustered[1] > 1.5 * calibration.ece_null_band(np.sort(probability))[1]


def test_reliability_counts_every_film_once() -> None:
    label, score = films(103, 2)
    points = calibration.reliability(label, score, bins=10)
    assert points["n"].sum() == 103
    assert (points["observed"] * points["n"]).sum() == pytest.approx(label.sum())
    assert np.all(points["low"] <= points["high"])
    assert np.all(np.diff(points["predicted"]) >= 0)


def test_many_draws_of_many_films_are_taken_together_without_loss() -> None:
    rng = np.random.default_rng(3)
    n = 4 * calibration.CELLS
    truth = rng.normal(0, 3, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(int)
    probability = Calibration(slope=1.4, intercept=0.3).probability(truth)
    weight = rng.integers(0, 3, (4, n)).astype(float)
    together = calibration.calibration_line(label, probability, weight)
    for i, w in enumerate(weight):
        alone = calibration.calibration_line(label, probability, w)
        assert together[0][i] == pytest.approx(float(alone[0]), abs=2e-3)
        assert together[1][i] == pytest.approx(float(alone[1]), abs=2e-3)


def test_one_probability_for_every_film_has_no_slope() -> None:
    label = np.array([0, 1, 1, 1])
    slope, intercept = calibration.calibration_line(label, np.full(4, 0.5))
    assert np.isnan(slope) and intercept == pytest.approx(np.log(3))
