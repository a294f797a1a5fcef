"""The back end of a place, behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.machine import Place
from hilum.training.gpu import CudaLearner
from hilum.training.learner import Learner, TorchLearner
from hilum.training.recipe import Recipe
from hilum.training.sequential import ReferenceLearner
from hilum.training.shards import ShardedLearner

if TYPE_CHECKING:
    from hilum.training.group import Group


def make_learner(
    recipe: Recipe,
    place: Place,
    weights: tuple[float, float],
    together: Group | None = None,
) -> Learner:
    """A new learner; its parameters are :class:`hilum.training.learner.TorchLearner`'s."""
    if place.kind == "reference":
        return ReferenceLearner(recipe, weights)
    if place.kind == "cpu" and together is None and recipe.training.shards > 1:
        return ShardedLearner(recipe, place, weights)
    kind = CudaLearner if place.kind == "cuda" else TorchLearner
    return kind(recipe, place, weights, together)
