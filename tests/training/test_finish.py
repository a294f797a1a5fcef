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


@pytest.mark.parametrize(("asked", "its_own"), [(0.99, True), (0.6, False)])
def test_screening_never_misses_more_than_balanced(asked: float, its_own: bool) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(800) % 2
    choice = Choice(label, tuple(map(str, range(800))), {"plain": rng.normal(2.5 * label)})
    recipe = Recipe.load("fast")
    recipe = replace(recipe, finish=replace(recipe.finish, screening_recall=asked))
    points = operating_points(choice, Calibration(), recipe)
    balanced, screening = points["balanced"], points["screening"]
    assert (screening.threshold < balanced.threshold) == its_own
    assert screening.threshold <= balanced.threshold
    assert screening.promise["recall"] >= balanced.promise["recall"]
    assert ("balanced keeps more" in screening.rule) != its_own
