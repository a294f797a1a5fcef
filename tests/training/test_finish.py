"""The points that a finished model comes with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.decision import Calibration
from hilum.evaluation.thresholds import Choice

pytest.importorskip("torch")

from hilum.training.finish import operating_points
from hilum.training.recipe import Recipe


@pytest.mark.parametrize(
    ("films", "apart", "asked", "its_own"),
    [
        (800, 2.5, 0.99, True),
        (800, 2.5, 0.6, False),
        (60, 12.0, 0.99, False),  # no error among them: both keep all, at other thresholds
    ],
)
def test_screening_never_misses_more_than_balanced(
    films: int, apart: float, asked: float, its_own: bool
) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(films) % 2
    choice = Choice(label, tuple(map(str, range(films))), {"plain": rng.normal(apart * label)})
    recipe = Recipe.load("fast")
    recipe = replace(recipe, finish=replace(recipe.finish, screening_recall=asked))
    points = operating_points(choice, Calibration(), recipe)
    balanced, screening = points["balanced"], points["screening"]
    assert (screening.threshold < balanced.threshold) == its_own
    assert screening.threshold <= balanced.threshold
    assert screening.promise["recall"] >= balanced.promise["recall"]
    assert ("balanced keeps more" in screening.rule) != its_own
