"""Intervals: coverage by simulation, the bootstrap against brute force, DeLong's own data."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.evaluation import intervals, metrics

stats = pytest.importorskip("scipy.stats")

# Albumin, total protein, K-G score and whether surgery helped, of 43 patients with ovarian
# cancer: the data of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), as printed in the
# SAS/STAT User's Guide, "Comparing Receiver Operating Characteristic Curves", which also prints
# the areas, standard errors and differences that the test below asks for.
OVARIAN = """
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0
1.6 5.6 5 1 3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1
4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1
3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1
3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1
3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1
3.6 6.6 5 1
"""


def children(
    patients: int, films: int, rng: np.random.Generator, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(patient, label, score): films of one child share part of their score."""
    patient = np.repeat(np.arange(patients), films)
    label = np.repeat((rng.random(patients) < 0.5).astype(int), films)
    shared = np.repeat(rng.normal(0, spread, patients), films)
    return patient, label, 1.5 * label + shared + rng.normal(0, 0.7, len(patient))


def test_wilson_and_clopper_pearson_against_scipy() -> None:
    for k, n in ((0, 10), (387, 390), (191, 234), (10, 10), (1, 3)):
        theirs = stats.binomtest(k, n)
        for own, method in ((intervals.wilson, "wilson"), (intervals.clopper_pearson, "exact")):
            reference = theirs.proportion_ci(method=method)
            assert own(k, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_the_papers_intervals() -> None:
    assert intervals.wilson(578, 624) == pytest.approx((0.903, 0.944), abs=5e-4)
    assert intervals.wilson(387, 390) == pytest.approx((0.978, 0.997), abs=5e-4)
    assert intervals.wilson(191, 234) == pytest.approx((0.762, 0.861), abs=5e-4)


def test_delong_against_published_values() -> None:
    table = np.array(OVARIAN.split(), float).reshape(-1, 4)
    albumin, protein, kg, label = table[:, 0], table[:, 1], 10 - table[:, 2], table[:, 3]
    areas, covariance = intervals.delong(label, albumin, kg, protein)
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    difference, p = intervals.delong_difference(label, kg, albumin)
    assert difference.value == pytest.approx(0.0108, abs=5e-5)
    assert (difference.low, difference.high) == pytest.approx((-0.1761, 0.1976), abs=5e-5)
    assert p == pytest.approx(0.9102, abs=5e-5)
    difference, p = intervals.delong_difference(label, kg, protein)
    assert (difference.low, difference.high) == pytest.approx((-0.2830, 0.1271), abs=5e-5)
    assert p == pytest.approx(0.4561, abs=5e-5)


def test_bootstrap_equals_brute_force_on_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    patient, label, score = children(25, 3, rng)
    seen: list[np.ndarray] = []

    def statistic(weight: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(weight)
        return {"auroc": metrics.auroc(label, score, weight)}

    draws = intervals.bootstrap(statistic, patient, draws=40, seed=3, films_at_once=500)["auroc"]
    weights = np.concatenate(seen)
    assert len(draws) == 40 and len(seen) > 1
    for weight, value in zip(weights, draws, strict=True):
        # A patient comes with all films or with none, and as many patients as there are.
        by_patient = weight.reshape(25, 3)
        assert np.all(by_patient == by_patient[:, :1]) and by_patient[:, 0].sum() == 25
        rows = np.repeat(np.arange(75), weight.astype(int))
        y, s = label[rows], score[rows]
        pairs = np.sign(s[y == 1][:, None] - s[y == 0][None, :])
        assert value == pytest.approx((pairs.mean() + 1) / 2)


def test_bootstrap_does_not_depend_on_how_it_is_cut_or_how_patients_are_named() -> None:
    rng = np.random.default_rng(1)
    patient, _, score = children(30, 2, rng)

    def statistic(weight: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weight @ score / weight.sum(1)}

    names = [f"child {p:03d}" for p in patient]
    one = intervals.bootstrap(statistic, patient, draws=50)["mean"]
    assert np.array_equal(one, intervals.bootstrap(statistic, names, draws=50)["mean"])
    cut = intervals.bootstrap(statistic, patient, draws=50, films_at_once=60 * 7)["mean"]
    assert cut == pytest.approx(one, rel=1e-12)


def test_patient_bootstrap_covers_where_films_as_independent_do_not() -> None:
    truth = float(stats.norm.cdf(1.5 / np.sqrt(2 * (1 + 0.49))))
    clustered = independent = 0
    rounds = 150
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        patient, label, score = children(80, 4, rng)

        def area(
            weight: np.ndarray, y: np.ndarray = label, s: np.ndarray = score
        ) -> dict[str, np.ndarray]:
            return {"auroc": metrics.auroc(y, s, weight)}

        for kind, keys in (("patients", patient), ("films", np.arange(len(patient)))):
            draws = intervals.bootstrap(area, keys, draws=300, seed=seed)["auroc"]
            low, high = intervals.percentiles(draws)
            inside = low <= truth <= high
            clustered += inside and kind == "patients"
            independent += inside and kind == "films"
    assert 0.90 <= clustered / rounds <= 0.99
    assert independent / rounds < 0.80


def test_a_share_names_the_method_that_fits_its_films() -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.03, 500)
    assert intervals.proportion(80, 100, 100, draws).method == "Wilson"
    clustered = intervals.proportion(80, 100, 40, draws)
    assert clustered.method == "patient bootstrap, 500 draws of 40 patients"
    assert (clustered.low, clustered.high) == pytest.approx((0.74, 0.86), abs=0.01)
    none_missed = intervals.proportion(100, 100, 40, np.ones(500))
    assert none_missed.method == "Clopper-Pearson over 40 patients"
    assert none_missed.low == pytest.approx(0.025 ** (1 / 40))
    assert intervals.proportion(0, 0, 0).value is None


def test_draws_that_are_not_defined() -> None:
    few = np.r_[np.full(10, np.nan), np.linspace(0, 1, 990)]
    assert intervals.percentiles(few)[0] is not None
    assert intervals.percentiles(np.r_[few, np.full(100, np.nan)]) == (None, None)
    endless = np.r_[np.full(100, np.inf), np.linspace(0, 1, 900)]
    low, high = intervals.percentiles(endless)
    assert low is not None and high is None


def test_an_area_of_one_still_has_an_interval() -> None:
    estimate = intervals.separated_area(1.0, 60, 20)
    assert estimate.high == 1.0 and estimate.low == pytest.approx(0.025 ** (1 / 20))
