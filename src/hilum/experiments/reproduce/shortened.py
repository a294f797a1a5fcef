"""What a reproduction left out or shortened, for the heads of its pages."""

from __future__ import annotations

from hilum.datasets.manifest import number_of
from hilum.experiments import paper
from hilum.experiments.reproduce.reproduce import Reproduction, Settings


def sentences(done: Reproduction) -> list[str]:
    """What a reader must know first: all that makes this less than the paper."""
    recipe, sampled = done.comparison.recipe, done.manifest.notes.get("sampled")
    epochs, size = recipe.training.epochs, recipe.preprocessing.size
    found = []
    if epochs != len(paper.GPU) or size != paper.SIZE:
        found.append(
            f"shortened: {number_of(epochs, 'epochs')} and {size} × {size} pixels; the paper has "
            f"{len(paper.GPU)} and {paper.SIZE} × {paper.SIZE}."
        )
    if sampled:
        found.append(f"shortened: {sampled['films']:,} of {sampled['of']:,} films.")
    return [*found, *without_sequential(done), *_of_the_wishes(done), *_one_answer(done)]


def without_sequential(done: Reproduction) -> list[str]:
    """The sentence where the formulas alone did not train."""
    if done.sequential is not None:
        return []
    return [
        "left out: the sequential run by the paper's formulas (--sequential-films 0). Nothing here "
        "is compared with one."
    ]


def _one_answer(done: Reproduction) -> list[str]:
    points = list(done.wishes.points.values()) if done.wishes is not None else []
    many = sum(point.one_answer for point in points)
    if not many:
        return []
    return [
        f"of the {len(points)} models of the closing wishes {many} answer every film alike: their "
        "accuracy is the share of a class."
    ]


def _of_the_wishes(done: Reproduction) -> list[str]:
    if done.wishes is None:
        return ["left out: the closing wishes, more data and a more complex model (--no-wishes)."]
    asked, plain = done.settings, Settings()
    less = []
    if asked.wish_films is not None and asked.wish_films < len(done.manifest):
        less.append(f"about {asked.wish_films:,} films in place of {len(done.manifest):,}")
    if asked.wish_epochs < plain.wish_epochs:
        less.append(f"{number_of(asked.wish_epochs, 'epochs')} in place of {plain.wish_epochs}")
    if asked.wish_size < plain.wish_size:
        less.append(f"{asked.wish_size} pixels a side in place of {plain.wish_size}")
    return [f"shortened: the closing wishes, {', '.join(less)}."] if less else []
