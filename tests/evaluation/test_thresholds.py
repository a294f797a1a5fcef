"""Calibration and threshold rules on made-up scores."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.decision import decide
from hilum.errors import Refused, UsageError
from hilum.evaluation import thresholds
from hilum.evaluation.calibration import calibration_line
from hilum.evaluation.metrics import cells, rates

pytest.importorskip("scipy")


def choice(patients: int = 600, seed: int = 0, shift: float = 0.0) -> thresholds.Choice:
    """Two films a patient, six in ten positive; ``shift`` moves the shifted condition up."""
    rng = np.random.default_rng(seed)
    label = np.repeat((rng.random(patients) < 0.6).astype(int), 2)
    shared = np.repeat(rng.normal(0, 1, patients), 2)
    plain = 4 * label - 2 + shared + rng.normal(0, 0.5, 2 * patients)
    return thresholds.Choice(
        label=label,
        patient=tuple(f"p{i // 2}" for i in range(2 * patients)),
        logits={"plain": plain, "contrast": 0.7 * plain + shift},
    )


def test_calibration_undoes_class_weights() -> None:
    rng = np.random.default_rng(0)
    n = 40_000
    z = rng.normal(1, 2, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    # Weights of n / (2 n_class) shift the logit by the log odds of the classes.
    trained = z - np.log(label.mean() / (1 - label.mean()))
    found = thresholds.fit_calibration(trained, label)
    probability = found.probability(trained)
    assert probability.mean() == pytest.approx(label.mean(), abs=2e-3)
    slope, intercept = calibration_line(label, probability)
    assert slope == pytest.approx(1, abs=0.01) and intercept == pytest.approx(0, abs=0.01)
    assert found.prevalence == pytest.approx(label.mean(), abs=1e-3)
    assert found.slope == pytest.approx(1, abs=0.05)


def test_calibration_of_separated_films_stays_finite() -> None:
    found = thresholds.fit_calibration(np.array([-9.0, -8, 8, 9]), np.array([0, 0, 1, 1]))
    assert np.isfinite(found.slope) and found.slope > 0
    probability = found.probability(np.array([-9.0, 9.0]))
    assert 0 < probability[0] < 0.5 < probability[1] < 1


def test_calibration_refuses_one_class() -> None:
    with pytest.raises(Refused, match="both classes"):
        thresholds.fit_calibration(np.arange(4.0), np.ones(4))
    with pytest.raises(Refused, match="class 0"):
        thresholds.Choice(np.ones(4), ("a",) * 4, {"plain": np.arange(4.0)})


def test_conditions_weigh_the_same_whatever_was_scored() -> None:
    base = choice(50)
    half = np.array(base.logits["contrast"])
    half[::2] = np.nan
    pooled = thresholds.Choice(base.label, base.patient, {**base.logits, "contrast": half}).pooled
    weights = pooled[2]
    assert weights[:100].sum() == pytest.approx(weights[100:].sum()) == pytest.approx(100)


def test_balanced_holds_recall_and_specificity_equal_over_conditions() -> None:
    films = choice(shift=1.5)
    calibration = thresholds.calibrate(films)
    point = thresholds.choose(films, calibration)
    assert point.name == "balanced" and "imitated shifts" in point.chosen_on and point.rule
    assert point.promise["recall"] == pytest.approx(point.promise["specificity"], abs=0.01)
    alone = thresholds.Choice(films.label, films.patient, {"plain": films.logits["plain"]})
    plain = thresholds.choose(alone, calibration)
    # The shift moved scores up, so a threshold chosen with it lies higher.
    assert point.threshold > plain.threshold
    assert "as they are" in plain.chosen_on and "imitated" not in plain.chosen_on


@pytest.mark.parametrize(
    "rule", ["equal_rates", "equal_costs", "youden", "accuracy", "probability"]
)
def test_every_rule_gives_what_its_name_says(rule: str) -> None:
    films = choice(seed=2)
    calibration = thresholds.calibrate(films)
    point = thresholds.choose(films, calibration, "own", rule)
    label, logit, weight, _ = films.pooled
    p = calibration.probability(logit)

    def measured(threshold: float) -> dict[str, float]:
        moved = type(point)("other", threshold)
        counts = weight @ cells(label, decide(p, moved))
        return {name: float(value) for name, value in rates(counts).items()}

    own = measured(point.threshold)
    others = [measured(t) for t in np.linspace(0.02, 0.98, 97)]
    if rule == "equal_rates":
        assert abs(own["recall"] - own["specificity"]) < 0.005
    if rule == "equal_costs":
        assert 3 * (1 - own["recall"]) == pytest.approx(1 - own["specificity"], abs=0.01)
    if rule == "youden":
        best = max(m["recall"] + m["specificity"] for m in others)
        assert own["recall"] + own["specificity"] >= best - 1e-9
    if rule == "accuracy":
        assert own["accuracy"] >= max(m["accuracy"] for m in others) - 1e-9
    if rule == "probability":
        assert point.threshold == pytest.approx(calibration.prevalence, abs=1e-6)


def test_screening_keeps_its_recall_on_new_patients() -> None:
    kept = 0
    new = choice(10_000, seed=10_000)
    for seed in range(40):
        films = choice(300, seed=seed)
        calibration = thresholds.calibrate(films)
        point = thresholds.choose(films, calibration, "screening", recall=0.95, draws=400)
        kept += thresholds.promise(new, calibration, point)["recall"] >= 0.95
    # 95 % confidence, less what chance does in forty rounds.
    assert kept >= 34


def test_screening_in_the_worst_condition_is_no_higher_than_pooled() -> None:
    films = choice(shift=-1.0)
    calibration = thresholds.calibrate(films)
    pooled = thresholds.choose(films, calibration, "screening")
    worst = thresholds.choose(films, calibration, "screening", over="worst")
    assert worst.threshold <= pooled.threshold
    assert worst.promise["recall_worst"] >= 0.98
    with pytest.raises(UsageError, match="contrast"):
        thresholds.choose(films, calibration, "screening", over="contrst")


def test_screening_says_when_patients_are_too_few() -> None:
    films = choice(40)
    point = thresholds.choose(films, thresholds.calibrate(films), "screening")
    assert "too few" in point.rule and point.promise["recall"] == 1.0


def test_a_threshold_lies_between_films_not_on_one() -> None:
    films = choice(100)
    calibration = thresholds.calibrate(films)
    p = np.concatenate([calibration.probability(z) for z in films.logits.values()])
    for name in thresholds.POINTS:
        assert np.abs(p - thresholds.choose(films, calibration, name).threshold).min() > 0


def test_unknown_names_are_answered_with_the_nearest() -> None:
    films = choice(40)
    calibration = thresholds.calibrate(films)
    with pytest.raises(UsageError, match="youden"):
        thresholds.choose(films, calibration, "own", "yuoden")
    with pytest.raises(UsageError, match="screening"):
        thresholds.choose(films, calibration, "screenin")


def test_separation_names_each_condition() -> None:
    found = thresholds.separation(choice(50))
    assert set(found) == {"plain", "contrast"} and 0.5 < found["plain"] <= 1


@pytest.mark.parametrize("logits", [np.zeros(8), -np.arange(8.0)], ids=["alike", "falling"])
def test_logits_that_tell_nothing_give_each_film_the_share_of_positives(logits) -> None:
    found = thresholds.fit_calibration(logits, np.array([0, 0, 0, 1, 0, 1, 1, 1]))
    assert found.slope == 0
    assert found.probability(logits) == pytest.approx(np.full(8, 0.5))
