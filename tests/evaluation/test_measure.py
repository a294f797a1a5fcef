"""Everything measured at once; subgroups; shortcut controls; two models paired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.decision import OperatingPoint, decide
from hilum.evaluation import controls, metrics, subgroups
from hilum.evaluation.measure import measure
from hilum.evaluation.paired import differences

from .conftest import made_scores

sklearn = pytest.importorskip("sklearn.metrics")

POINTS = {
    "balanced": OperatingPoint("balanced", 0.5),
    "screening": OperatingPoint("screening", 0.1),
}


def test_values_equal_scikit_learn_and_intervals_hold_them() -> None:
    scores = made_scores()
    found = measure(scores, POINTS, draws=300)
    assert found.ranking["auroc"].value == pytest.approx(
        sklearn.roc_auc_score(scores.label, scores.probability)
    )
    at = found.points["balanced"]
    said = decide(scores.probability, POINTS["balanced"]) == "positive"
    assert at.answered["f1"].value == pytest.approx(sklearn.f1_score(scores.label, said))
    tn, fp, fn, tp = sklearn.confusion_matrix(scores.label, said).ravel().tolist()
    assert [at.counts[c] for c in ("tp", "fp", "fn", "tn")] == [tp, fp, fn, tn]
    every = [*found.ranking.values(), *found.calibration.values(), *at.answered.values()]
    for estimate in every:
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
        assert "patient bootstrap, 300 draws" in estimate.method
    low, high = found.ece_null or (0, 0)
    assert 0 < low < high


def test_films_that_are_each_a_patient_get_wilsons_interval() -> None:
    found = measure(made_scores(100, each=1), POINTS, draws=200)
    recall = found.points["balanced"].answered["recall"]
    assert recall.method == "Wilson"
    assert found.ranking["auroc"].method == "bootstrap, 200 draws of 100 films"


def test_refused_films_are_counted_apart_and_as_errors() -> None:
    whole, some = made_scores(), made_scores(refused=7)
    found = measure(some, POINTS, draws=100)
    at = found.points["balanced"]
    assert at.referred == 7 == at.counts["referred_positive"] + at.counts["referred_negative"]
    assert (at.decision == "refer").sum() == 7
    assert at.answered["accuracy"].n == len(some) - 7 and at.strict["accuracy"].n == len(some)
    right = at.counts["tp"] + at.counts["tn"]
    assert at.strict["accuracy"].value == pytest.approx(right / len(some))
    assert at.answered["accuracy"].value == pytest.approx(right / (len(some) - 7))
    assert found.ranking["auroc"].n == len(some) - 7
    assert measure(whole, POINTS, draws=50).points["balanced"].referred == 0


def test_films_without_label_or_pixels_count_nowhere() -> None:
    scores = made_scores()
    label = scores.label.copy()
    label[:4] = -1
    error = ("", "", "", "", "truncated: ends", *scores.error[5:])
    found = measure(replace(scores, label=label, error=error), POINTS, draws=50)
    assert len(found.scores) == len(scores) - 5
    assert sum(found.points["balanced"].counts.values()) == len(scores) - 5


def test_one_class_only_leaves_what_is_defined() -> None:
    scores = made_scores()
    found = measure(scores.select(scores.label == 1), POINTS, draws=50)
    assert found.ranking["auroc"].value is None
    at = found.points["balanced"]
    assert at.answered["recall"].value is not None and at.answered["specificity"].value is None
    assert at.predictive[0.05]["ppv"].value is None
    assert found.as_dict()["ranking"]["auroc"]["value"] is None


def test_complete_separation_still_has_an_interval() -> None:
    scores = made_scores()
    logit = np.where(scores.label == 1, 5.0, -5.0)
    found = measure(
        replace(scores, logit=logit, probability=1 / (1 + np.exp(-logit))), POINTS, draws=100
    )
    area = found.ranking["auroc"]
    assert area.value == 1.0 and 0.8 < area.low < 1.0
    recall = found.points["balanced"].answered["recall"]
    assert recall.value == 1.0 and recall.low < 1.0 and "Clopper-Pearson" in recall.method
    assert found.calibration["calibration_slope"].value is None
    ppv = found.points["balanced"].predictive[0.05]["ppv"]
    assert ppv.value == 1.0 and 0 < ppv.low < 1.0 and "ends" in ppv.method


def test_predictive_values_hold_the_value_and_grow_with_prevalence() -> None:
    at = measure(made_scores(), POINTS, draws=200).points["balanced"]
    ppv = [at.predictive[p]["ppv"] for p in (0.01, 0.05, 0.10, 0.30)]
    assert [e.value for e in ppv] == sorted(e.value for e in ppv)
    assert all(e.low <= e.value <= e.high for e in ppv)


def test_false_alarms_turn_the_interval_round() -> None:
    answered = measure(made_scores(), POINTS, draws=200).points["balanced"].answered
    specificity, alarms = answered["specificity"], answered["false_alarms_per_100_healthy"]
    assert alarms.value == pytest.approx(100 * (1 - specificity.value))
    assert alarms.low == pytest.approx(100 * (1 - specificity.high))
    assert alarms.low <= alarms.value <= alarms.high


def test_the_same_seed_gives_the_same_intervals() -> None:
    one, two = (measure(made_scores(), POINTS, draws=100, seed=3).as_dict() for _ in range(2))
    assert one == two


def test_a_model_does_not_differ_from_itself_and_a_worse_one_does() -> None:
    good = made_scores(120)
    rng = np.random.default_rng(9)
    noisy = good.logit + rng.normal(0, 3, len(good))
    bad = replace(good, logit=noisy, probability=1 / (1 + np.exp(-noisy)))
    first, second = (measure(s, POINTS, draws=50) for s in (good, bad))
    same = differences(first, first, draws=50)
    assert same["ranking"]["auroc"].value == 0 and same["delong"]["p"] == 1
    found = differences(first, second, draws=300)
    area = found["ranking"]["auroc"]
    assert area.value == pytest.approx(second.ranking["auroc"].value - first.ranking["auroc"].value)
    assert area.high < 0 and found["delong"]["p"] < 0.01
    assert found["points"]["balanced"]["accuracy"].value < 0
    # Pairing pays: the paired interval is narrower than two single ones together.
    apart = sum(m.ranking["auroc"].high - m.ranking["auroc"].low for m in (first, second))
    assert area.high - area.low < apart


def test_differences_are_of_the_films_that_both_judged() -> None:
    scores = made_scores()
    rng = np.random.default_rng(2)
    noisy = scores.logit + rng.normal(0, 1, len(scores))
    other = replace(scores, logit=noisy, probability=1 / (1 + np.exp(-noisy)))
    rows = rng.permutation(len(scores))[10:]
    first, second = measure(scores, POINTS, draws=20), measure(other.select(rows), POINTS, draws=20)
    found = differences(first, second, draws=20)
    kept = np.sort(rows)
    same = differences(
        measure(scores.select(kept), POINTS, draws=20),
        measure(other.select(kept), POINTS, draws=20),
        draws=20,
    )
    assert found == same and found["films"] == len(scores) - 10
    strangers = replace(scores, film=tuple(f"other/{film}" for film in scores.film))
    with pytest.raises(ValueError, match="both models"):
        differences(first, measure(strangers, POINTS, draws=20))


def test_subgroups_of_known_columns() -> None:
    scores = made_scores(90)
    n = len(scores)
    extra = {
        "view": tuple("PA" if i % 2 else "AP" for i in range(n)),
        "age": tuple(("0.5", "3", "44", "")[i % 4] for i in range(n)),
        "subtype": tuple("virus" if y else "" for y in scores.label),
        "source": ("one",) * n,
    }
    found = subgroups.subgroups(scores, extra, POINTS["balanced"], draws=50)
    names = [(g.column, g.name) for g in found]
    assert names == [
        ("view", "AP"), ("view", "PA"), ("age", "under 1 year"), ("age", "1–5 years"),
        ("age", "40–64 years"), ("subtype", "virus"),
    ]  # fmt: skip
    ap = found[0]
    rows = np.arange(n) % 2 == 0
    assert (ap.negatives, ap.positives) == tuple(np.bincount(scores.label[rows]))
    alone = measure(scores.select(rows), POINTS, draws=50).points["balanced"]
    assert ap.recall.value == alone.strict["recall"].value
    virus = found[-1]
    assert virus.specificity.value is None and virus.auroc.value == pytest.approx(
        float(metrics.auroc(scores.label, scores.probability))
    )


@pytest.mark.parametrize(
    ("text", "band"),
    [("0.2", "under 1 year"), ("1", "1–5 years"), ("5.9", "1–5 years"), ("17", "6–17 years"),
     ("65", "65 years and over"), ("", ""), ("x", ""), ("-3", ""), ("412", "")],
)  # fmt: skip
def test_age_bands(text: str, band: str) -> None:
    assert subgroups.age_band(text) == band


def test_controls_find_a_planted_border_and_no_more() -> None:
    rng = np.random.default_rng(0)
    n, size = 240, 48
    label = (np.arange(n) // 2 % 2).astype(int)
    films = rng.integers(60, 180, (n, size, size)).astype(np.uint8)
    rows, patient = np.arange(n), np.arange(n) // 2
    plain = {c.name: c.auroc for c in controls.controls(films, rows, label, patient)}
    assert plain["border"] < 0.7 and plain["thumbnail"] < 0.7
    films[label == 1, :3] = 20
    planted = {c.name: c.auroc for c in controls.controls(films, rows, label, patient)}
    assert planted["border"] > 0.99
    sizes = 1000 + 10 * label
    with_files = controls.controls(films, rows, label, patient, sizes)
    assert with_files[0].name == "file size" and with_files[0].auroc == 1.0
    assert controls.controls(films[:9], rows[:9], np.ones(9), patient[:9]) == []


def test_thumbnails_are_block_means() -> None:
    film = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
    assert controls.thumbnails(film, 2)[0].tolist() == [[7.0, 10.0], [25.0, 28.0]]
    uneven = controls.thumbnails(np.full((2, 7, 7), 9, np.uint8), 3)
    assert np.all(uneven == 9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answered", [0, 2])
def test_few_answered_films_or_none_are_no_warnings_of_numpy(answered: int) -> None:
    scores = made_scores(8)
    probability = scores.probability.copy()
    probability[[i for i in range(len(scores)) if i not in (0, len(scores) - 1)[:answered]]] = (
        np.nan
    )
    found = measure(replace(scores, probability=probability), POINTS, draws=200)
    assert found.points["balanced"].referred == len(scores) - answered
