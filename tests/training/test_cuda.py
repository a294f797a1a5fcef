"""What only a GPU can show: graphs, streams of copies, and that it ends where a CPU ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilum.errors import TrainingStopped
from hilum.machine import Place
from hilum.training import memory
from hilum.training.faults import explained
from hilum.training.gpu import CudaLearner
from hilum.training.learner import TorchLearner, class_weights
from hilum.training.loop import fit, order, steps_in_epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.run import Run
from hilum.training.schedule import LearningRate

from .conftest import CPU, recipe_of
from .test_gpu import RECIPES, holed, weights

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("gpu")]
GPU = Place("cuda", 1, 1, "float32")


@pytest.fixture(autouse=True)
def without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a GPU's convolutions can be compared with a CPU's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def trained(place: Place, recipe: Recipe, part: Films, other: Films, **setting: Any) -> Any:
    kind = CudaLearner if place.kind == "cuda" else TorchLearner
    learner = kind(recipe, place, class_weights(part.labels, "balanced"))
    for name, value in setting.items():
        setattr(learner, name, value)
    epochs: list[Any] = []
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    fit(learner, recipe, part, other, rate=rate, ended=epochs.append)
    return learner, epochs


# Dropout draws otherwise on a GPU, and Muon computes in bfloat16 there.
COMPARABLE = {name: RECIPES[name] for name in ("adam", "adamw", "sgd")}
COMPARABLE["all but dropout"] = {
    **RECIPES["everything"],
    "network": {"options": {"width": 4}},
}


@pytest.mark.parametrize("name", COMPARABLE)
def test_it_ends_where_a_cpu_ends(name: str, part: Films, other: Films) -> None:
    recipe = recipe_of(**COMPARABLE[name])
    _, expected = trained(CPU, recipe, part, other)
    _, found = trained(GPU, recipe, part, other)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=0.02)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=0.05)


@pytest.mark.parametrize("name", RECIPES)
def test_a_captured_step_is_the_step_and_the_same_every_time(
    name: str, part: Films, other: Films
) -> None:
    recipe = recipe_of(**RECIPES[name])
    captured, _ = trained(GPU, recipe, part, other)
    again, _ = trained(GPU, recipe, part, other)
    streamed, _ = trained(GPU, recipe, part, other, room=0)
    plain, _ = trained(GPU, recipe, part, other, graphs=False)
    assert torch.equal(weights(again), weights(captured))
    assert torch.equal(weights(streamed), weights(captured))
    if "dropout" not in str(RECIPES[name]):  # a graph draws from another place of the generator
        torch.testing.assert_close(weights(plain), weights(captured), rtol=1e-4, atol=1e-5)


def test_steps_are_not_waited_for(part: Films) -> None:
    recipe = recipe_of(**RECIPES["everything"])
    for room in (None, 0):
        learner = CudaLearner(recipe, GPU, (1.0, 1.0))
        learner.room = room
        plan = [order(0, 0, len(part))[:8]] * 4
        learner.begin(part, 0, plan)
        learner.step(plan[0], 0.001)  # captured here
        torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in plan[1:]:
                learner.step(batch, 0.001)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        losses, _ = learner.finish()
        assert np.isfinite(losses).all()


def test_films_that_are_streamed_arrive_whole() -> None:
    from hilum.training.resident import Stream, upload

    films = holed(200, 64)
    device = torch.device("cuda")
    expected = films.pixels[films.rows]
    assert np.array_equal(upload(films, device).cpu().numpy(), expected)
    stream = Stream(films, 16, device)
    plan = [order(0, 0, 200)[i : i + 16] for i in range(0, 192, 16)]
    stream.begin(plan)
    found = []
    for batch in plan:  # each is read late, behind other work
        busy = torch.randn(2048, 2048, device=device)
        for _ in range(10):
            busy = busy @ busy / 2048
        found.append(stream.fetch(batch).clone())
    for batch, pixels in zip(plan, found, strict=True):
        assert np.array_equal(pixels.cpu().numpy(), expected[batch])


def test_a_full_memory_is_told_with_what_fits(
    part: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of()
    with (
        pytest.raises(TrainingStopped, match=r"is full: .*training\.batch=\d"),
        explained(Run(tmp_path), recipe, GPU),
    ):
        torch.empty(2 * memory.of_gpu()[1], dtype=torch.uint8, device="cuda")
