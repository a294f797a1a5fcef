from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hilum.errors import UsageError
from hilum.training import optimiser, placement
from hilum.training.learner import TorchLearner, class_weights
from hilum.training.loop import Epoch, fit, steps_in_epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.schedule import LearningRate
from hilum.training.sequential import ReferenceLearner

from .conftest import CPU, films_of, recipe_of

SMALL = {"options": {"filters": [3, 2, 2, 3, 2], "units": [5, 4]}}


@pytest.fixture(scope="module")
def small() -> Recipe:
    return recipe_of(
        "paper2021",
        94,
        network=SMALL,
        training={"epochs": 2, "batch": 4, "label_smoothing": 0.1},
        optimiser={"lr": 1e-3, "epsilon": 1e-7},
        augmentation={"zoom": 0.2, "shear": 0.2},
    )


def losses_of(learner: Any, recipe: Recipe, films: Films) -> tuple[list[float], list[Epoch]]:
    losses: list[float] = []
    step = learner.step

    def watched(batch: Any, lr: float) -> float | None:
        loss: float | None = step(batch, lr)
        losses.append(float(learner._losses[-1]))
        return loss

    learner.step = watched
    epochs: list[Epoch] = []
    rate = LearningRate(recipe, steps_in_epoch(len(films), recipe))
    fit(learner, recipe, films, films, rate=rate, ended=epochs.append)
    return losses, epochs


def test_it_goes_the_way_that_torch_goes(small: Recipe) -> None:
    films = films_of(18, 94)
    weights = class_weights(films.labels, "balanced")
    fast = TorchLearner(small, CPU, weights)
    fast.model.double()
    fast.dtype, fast.weights = torch.float64, fast.weights.double()
    fast.optimisers = optimiser.make(fast.model, small.optimiser)
    ours, epochs = losses_of(ReferenceLearner(small, weights), small, films)
    theirs, _ = losses_of(fast, small, films)
    assert len(ours) == 2 * steps_in_epoch(18, small)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert epochs[1].loss < epochs[0].loss


def test_its_state_comes_back(small: Recipe) -> None:
    films = films_of(8, 94)
    one, two = (ReferenceLearner(small, (1.0, 1.0)) for _ in range(2))
    for epoch in range(2):
        one.begin(films, epoch)
        one.step(np.arange(4), 1e-3)
    two.begin(films, 0)
    two.step(np.arange(4), 1e-3)
    two.restore(two.state())
    two.begin(films, 1)
    two.step(np.arange(4), 1e-3)
    for name, value in one.model.parameters.items():
        np.testing.assert_array_equal(value, two.model.parameters[name])


def test_its_weights_become_the_torch_network(small: Recipe) -> None:
    films = films_of(6, 94)
    learner = ReferenceLearner(small, (1.0, 1.0))
    learner.begin(films, 0)
    learner.step(np.arange(4), 1e-2)
    network = learner.network()
    with torch.no_grad():
        theirs = network(torch.from_numpy(films.pixels)[:, None].float() / 255).flatten()
    np.testing.assert_allclose(learner.logits(films, 94), theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"network": {"name": "compact", "options": {}}}, "network.name = 'compact'"),
        ({"optimiser": {"name": "sgd"}}, "optimiser.name = 'sgd'"),
        ({"averaging": {"decay": 0.9}}, "averaging.decay = 0.9"),
        ({"sizes": {"phases": [[94, 1.0]]}}, "sizes.phases"),
    ],
)
def test_what_it_does_not_do_is_refused(table: dict[str, Any], words: str) -> None:
    recipe = recipe_of("paper2021", 94, **{"network": SMALL, **table})
    with pytest.raises(UsageError, match=words):
        ReferenceLearner(recipe, (1.0, 1.0))


def test_what_the_reference_does_not_do_is_told_before_there_is_a_folder() -> None:
    with pytest.raises(UsageError, match="cannot train this recipe: network"):
        placement.resolve("reference", Recipe.load("fast"))
    assert placement.resolve("reference", Recipe.load("paper2021")).precision == "float32"
