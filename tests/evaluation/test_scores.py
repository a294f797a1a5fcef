"""Scores: through the cache, to CSV and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.bundle import Bundle
from hilum.datasets.manifest import Manifest
from hilum.errors import UsageError
from hilum.evaluation.scores import Scores, fill, score_cached
from hilum.inference.model import Model
from hilum.progress import SILENT

from .conftest import made_scores


def score(model: Model, films: Manifest) -> Scores:
    return score_cached(model, films, fill(model, films, 0, SILENT))


def test_scores_equal_the_models_answers(films: Manifest, bundle: Bundle) -> None:
    model = Model(bundle.sealed(), 1)
    scores = score(model, films)
    assert scores.film == films.path and np.array_equal(scores.label, films.label)
    answers = model.predict(films.files(), workers=1)
    assert scores.logit == pytest.approx([a.logit for a in answers], abs=1e-6)
    assert scores.probability == pytest.approx([a.probability for a in answers], abs=1e-9)
    assert scores.is_judged.all() and not any(scores.refused)


def test_an_unreadable_film_costs_itself_only(films: Manifest, bundle: Bundle) -> None:
    broken = films.files()[3]
    broken.write_bytes(broken.read_bytes()[:200])
    (films.root / films.path[5]).unlink()
    scores = score(Model(bundle.sealed(), 1), films)
    assert np.flatnonzero(scores.is_unreadable).tolist() == [3, 5]
    assert scores.error[5].startswith("missing: ") and ": " in scores.error[3]
    assert np.isnan(scores.probability[[3, 5]]).all()
    assert np.isfinite(np.delete(scores.probability, [3, 5])).all()
    assert scores.is_judged.sum() == len(films) - 2


def test_csv_round_trip(tmp_path: Path) -> None:
    scores = made_scores(refused=3)
    odd = replace(
        scores,
        film=("with, comma.png", 'with "quotes".png', *scores.film[2:]),
        label=np.where(np.arange(len(scores)) == 4, -1, scores.label).astype(np.int8),
        error=("", "", "", "", "", "truncated: ends early", *scores.error[6:]),
    )
    decision = np.array(["refer"] * 3 + ["positive"] * (len(scores) - 3), object)
    odd.write(tmp_path / "scores.csv", balanced=decision)
    assert (tmp_path / "scores.csv").read_text().splitlines()[0].endswith(",error,balanced")
    again = Scores.read(tmp_path / "scores.csv")
    for name in ("film", "patient", "part", "refused", "error"):
        assert getattr(again, name) == getattr(odd, name)
    assert np.array_equal(again.label, odd.label)
    assert again.logit == pytest.approx(odd.logit, rel=1e-8, nan_ok=True)
    assert again.probability == pytest.approx(odd.probability, rel=1e-8, nan_ok=True)
    assert not again.is_judged[4] and not again.is_judged[5] and again.is_judged[0]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("other.csv", "absent.csv"):
        with pytest.raises(UsageError, match="not a table of scores"):
            Scores.read(tmp_path / name)
