"""Metrics against scikit-learn, hand values and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.decision import OperatingPoint, decide
from hilum.evaluation import calibration, metrics

sklearn = pytest.importorskip("sklearn.metrics")

# The paper's table 6: what its text says of the matrix is what the functions must give.
PAPER = np.array([387, 43, 3, 191, 0, 0])


def films(n: int = 300, seed: int = 0, decimals: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.6).astype(np.int8)
    label[:2] = (0, 1)
    score = np.round(1 / (1 + np.exp(-rng.normal(label * 2 - 1, 1.5))), decimals)
    return label, np.clip(score, 1e-4, 1 - 1e-4)


def test_the_papers_matrix_gives_the_papers_figures() -> None:
    rates = metrics.rates(PAPER)
    assert rates["accuracy"] == pytest.approx(0.9263, abs=5e-5)
    assert rates["recall"] == pytest.approx(0.9923, abs=5e-5)
    assert rates["specificity"] == pytest.approx(0.8162, abs=5e-5)
    assert rates["precision"] == pytest.approx(0.900, abs=5e-4)
    assert rates["f1"] == pytest.approx(0.9439, abs=5e-5)
    assert rates["npv"] == pytest.approx(0.9845, abs=5e-5)
    assert rates["lr_positive"] == pytest.approx((387 / 390) / (43 / 234))
    assert rates["lr_negative"] == pytest.approx((3 / 390) / (191 / 234))
    assert rates["false_alarms_per_100_healthy"] == pytest.approx(100 * 43 / 234)


def test_cells_count_each_film_once_and_referred_films_apart() -> None:
    label = np.array([1, 1, 1, 0, 0, 0])
    decision = np.array(["positive", "negative", "refer", "positive", "negative", "refer"], object)
    member = metrics.cells(label, decision)
    assert member.sum(1).tolist() == [1] * 6
    assert member.sum(0).tolist() == [1, 1, 1, 1, 1, 1]
    strict = metrics.strict(member.sum(0))
    assert strict.tolist() == [1, 2, 2, 1, 0, 0]
    assert metrics.rates(member.sum(0))["accuracy"] == 0.5
    assert metrics.rates(strict)["accuracy"] == pytest.approx(2 / 6)
    assert metrics.rates(strict)["recall"] == pytest.approx(1 / 3)


def test_what_is_not_defined_is_nan_not_a_number() -> None:
    rates = metrics.rates(np.array([5, 0, 1, 0, 0, 0]))
    assert np.isnan(rates["specificity"]) and np.isnan(rates["lr_positive"])
    for classes in (np.ones(4), np.zeros(4)):
        assert np.isnan(metrics.auroc(classes, np.arange(4.0)))
        assert np.isnan(metrics.average_precision(classes, np.arange(4.0)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([1, 2, 6]))
def test_against_scikit_learn_with_ties_and_weights(seed: int, decimals: int) -> None:
    label, score = films(80, seed, decimals)
    weight = np.random.default_rng(seed).integers(0, 4, len(label)).astype(float)
    weight[:2] = 1
    for w in (None, weight):
        assert metrics.auroc(label, score, w) == pytest.approx(
            sklearn.roc_auc_score(label, score, sample_weight=w)
        )
        assert metrics.average_precision(label, score, w) == pytest.approx(
            sklearn.average_precision_score(label, score, sample_weight=w)
        )
        assert metrics.brier(label, score, w) == pytest.approx(
            sklearn.brier_score_loss(label, score, sample_weight=w)
        )


def test_weights_of_many_draws_at_once_equal_one_at_a_time() -> None:
    label, score = films(120, 3, 2)
    weights = np.random.default_rng(1).integers(0, 3, (7, 120)).astype(float)
    for function in (metrics.auroc, metrics.average_precision, metrics.brier, calibration.ece):
        together = function(label, score, weights)
        assert together == pytest.approx([float(function(label, score, w)) for w in weights])
        # A weight of two is the film twice.
        twice = np.repeat(np.arange(120), weights[0].astype(int))
        assert together[0] == pytest.approx(function(label[twice], score[twice]))
    slope, intercept = calibration.calibration_line(label, score, weights)
    for i, w in enumerate(weights):
        alone = calibration.calibration_line(label, score, w)
        assert (slope[i], intercept[i]) == pytest.approx((float(alone[0]), float(alone[1])))


def test_curves_match_scikit_learn() -> None:
    label, score = films(200, 5, 2)
    fpr, recall = metrics.roc_curve(label, score)
    assert np.trapezoid(recall, fpr) == pytest.approx(metrics.auroc(label, score))
    found, precision = metrics.precision_recall_curve(label, score)
    theirs = sklearn.precision_recall_curve(label, score)
    assert precision[::-1] == pytest.approx(theirs[0][:-1])
    assert found[::-1] == pytest.approx(theirs[1][:-1])


@given(recall=st.floats(0.05, 0.99), specificity=st.floats(0.05, 0.99), share=st.floats(0.01, 0.99))
def test_predictive_values_are_bayes(recall: float, specificity: float, share: float) -> None:
    ill, healthy = 1e6 * share, 1e6 * (1 - share)
    tp, fp = recall * ill, (1 - specificity) * healthy
    fn, tn = ill - tp, healthy - fp
    ppv, npv = metrics.predictive_values(recall, specificity, share)
    assert ppv == pytest.approx(tp / (tp + fp)) and npv == pytest.approx(tn / (tn + fn))


def test_decisions_come_from_decide() -> None:
    label, score = films(50)
    point = OperatingPoint("x", 0.4, refer_band=(0.3, 0.5))
    counts = metrics.cells(label, decide(score, point)).sum(0)
    band = (score >= 0.3) & (score < 0.5)
    assert counts[4] + counts[5] == band.sum()
    assert counts[0] == ((score >= 0.5) & (label == 1)).sum()
