"""Planted shortcuts are flagged, clean films stay silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.audit import probes
from hilum.audit.probes import CROSS_VALIDATED, Probing
from hilum.audit.rules import findings
from hilum.datasets import phantom

#: What each planted shortcut must be found by, beside the combined probe.
PLANTED = {
    "quality": {"JPEG quantiser", "bits a pixel"},
    "profile": {"ICC profile"},
    "shape": {"shape"},
    "size": {"width", "height"},
}


def probed(folder: Path, looked_at, shortcut: str | None, seed: int = 11) -> Probing:
    phantom.make(folder / "films", films=300, seed=seed, size=(64, 80), shortcut=shortcut)
    return probes.probe(*looked_at(folder / "films"))


@pytest.fixture(scope="module")
def clean_films(tmp_path_factory: pytest.TempPathFactory, looked_at):
    folder = tmp_path_factory.mktemp("clean") / "films"
    return looked_at(phantom.make(folder, films=300, seed=11, size=(64, 80)))


@pytest.fixture(scope="module")
def clean(clean_films) -> Probing:
    return probes.probe(*clean_films)


@pytest.mark.parametrize("shortcut", PLANTED)
def test_a_planted_shortcut_is_flagged_and_does_not_travel(
    shortcut: str, tmp_path: Path, looked_at
) -> None:
    found = probed(tmp_path, looked_at, shortcut)
    flagged = {result.probe.name: result for result in found.flagged}
    assert PLANTED[shortcut] <= set(flagged)
    assert "all of the file" in flagged
    for name in PLANTED[shortcut] - {"bits a pixel"}:
        assert flagged[name].areas[CROSS_VALIDATED].value > 0.98
        assert flagged[name].travels["test"] is False  # phantom leaves the test part clean
    untouched = {"ICC profile", "shape"} - PLANTED[shortcut] - {"size"}
    assert not untouched & set(flagged)


def test_clean_films_stay_silent(clean: Probing) -> None:
    found = clean
    assert found.flagged == []
    file = [r for r in found.results if r.probe.kind == "file" and r.areas]
    assert {r.probe.name for r in file} >= {"file size", "JPEG quantiser", "shape"}
    assert all(area.low < probes.BOUND for r in file for area in r.areas.values())
    assert {r.probe.name for r in found.results if r.constant} >= {"ICC profile", "colour mode"}


def test_all_intervals_are_corrected_for_their_number(clean: Probing) -> None:
    found = clean
    intervals = [area for r in found.results for area in r.areas.values()]
    assert found.confidence == pytest.approx(1 - 0.05 / len(intervals))
    assert all(area.low <= area.value <= area.high for area in intervals)
    assert found.trained_on == "train" and set(found.elsewhere) == {"test"}
    assert {area.n for r in found.results for area in r.areas.values()} == {
        found.films,
        found.elsewhere["test"],
    }


def test_too_few_films_are_not_probed(tmp_path: Path, looked_at) -> None:
    phantom.make(tmp_path / "films", films=40, size=(64, 80))
    manifest, seen = looked_at(tmp_path / "films")
    found = probes.probe(manifest, seen)
    assert "100 labelled films" in found.skipped and found.results == []
    codes = [finding.code for finding in findings(manifest, seen, [], found)]
    assert "probes-not-run" in codes


def test_a_view_that_tells_the_class_is_a_warning(tmp_path: Path, looked_at) -> None:
    phantom.make(tmp_path / "films", films=160, size=(64, 80), parts={})
    manifest, seen = looked_at(tmp_path / "films")
    view = tuple("AP" if label else "PA" for label in manifest.label.tolist())
    told = replace(manifest, extra={**manifest.extra, "view": view})
    found = probes.probe(told, seen)
    assert found.trained_on == "all films" and found.elsewhere == {}
    assert found.flagged == []  # kind table is never flagged as a file
    finding = next(f for f in findings(told, seen, [], found) if f.code == "table-tells-class")
    assert "view" in finding.title and finding.severity == "warning"


def test_a_fold_takes_whole_patients_of_both_classes() -> None:
    rng = np.random.default_rng(0)
    patient = np.unique(rng.integers(0, 90, 200), return_inverse=True)[1]
    label = (patient % 3 == 0).astype(int)
    fold = probes.folds(label, patient, seed=0)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[patient == who])) == 1 for who in range(patient.max() + 1))
    people = [len(set(patient[(fold == k) & (label == 1)])) for k in range(5)]
    assert max(people) - min(people) <= 1


def test_of_many_films_whole_patients_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST", 500)
    patient = np.sort(np.random.default_rng(0).integers(0, 400, 2000))
    patient = np.unique(patient, return_inverse=True)[1]
    rows, kept = probes._drawn(np.arange(2000), patient, seed=0)
    assert 450 <= len(rows) <= 500
    for who in np.unique(kept):
        assert (kept == who).sum() == (patient == who).sum()


def test_a_column_that_no_film_knows_is_no_error(clean_films, monkeypatch) -> None:
    """Of DICOM films no JPEG quality is known, and the combined probe looks at it all the same."""
    from threadpoolctl import threadpool_info

    manifest, seen = clean_films
    threads = set()

    def watched(seed: int, learner=probes._learner):
        pools = [pool for pool in threadpool_info() if "scikit" in pool["filepath"]]
        threads.update(pool["num_threads"] for pool in pools if pool["user_api"] == "openmp")
        return learner(seed)

    monkeypatch.setattr(probes, "_learner", watched)
    unknown = np.full(len(manifest), np.nan)
    seen = replace(seen, numbers={**seen.numbers, "jpeg_quality": unknown, "jpeg_oddness": unknown})
    found = {result.probe.name: result for result in probes.probe(manifest, seen).results}
    assert found["JPEG quantiser"].constant
    assert found["all of the file"].areas
    assert threads <= {1}  # more wait for each other, on a busy machine twenty times as long
