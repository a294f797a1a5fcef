"""Shards of a batch, each in a thread of its own: the same result with one thread and with more,
up to the shards."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from hilum.machine import Place
from hilum.training.learner import TorchLearner
from hilum.training.loop import fit, steps_in_epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.schedule import LearningRate
from hilum.training.shards import ShardedLearner, Team

from .conftest import films_of, recipe_of

PAPER: dict[str, Any] = {
    "network": {"name": "paper2021", "options": {"filters": [4, 4, 4, 4, 4], "units": [8, 8]}},
    "preprocessing": {"size": 94},
}


def place(threads: int) -> Place:
    return Place("cpu", 1, threads, "float32")


def trained(recipe: Recipe, threads: int, part: Films, other: Films) -> ShardedLearner:
    learner = ShardedLearner(recipe, place(threads), (1.5, 0.75))
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    fit(learner, recipe, part, other, rate=rate)
    return learner


def bits(learner: Any) -> list[bytes]:
    return [value.numpy().tobytes() for value in learner.network().state_dict().values()]


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}])
def test_the_number_of_threads_changes_no_bit(
    part: Films, other: Films, options: dict[str, Any]
) -> None:
    network = {"options": {"width": 8, "blocks": [1, 1], **options}}
    recipe = recipe_of(training={"shards": 3, "batch": 10, "epochs": 2}, network=network)
    one, three = (trained(recipe, threads, part, other) for threads in (1, 3))
    assert bits(one) == bits(three)
    assert (one.logits(other, 32) == three.logits(other, 32)).all()


def test_resumed_to_the_bit(part: Films, other: Films) -> None:
    recipe = recipe_of(training={"shards": 2, "epochs": 2})
    whole = trained(recipe, 2, part, other)
    states: list[Any] = []
    first = ShardedLearner(recipe, place(2), (1.5, 0.75))
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    with pytest.raises(KeyboardInterrupt):
        fit(first, recipe, part, other, rate=rate, ended=lambda e: _keep(first, states))
    second = ShardedLearner(recipe, place(2), (1.5, 0.75))
    second.restore(states[0])
    fit(second, recipe, part, other, rate=rate, first=1)
    assert bits(second) == bits(whole)


def _keep(learner: ShardedLearner, states: list[Any]) -> None:
    import copy

    states.append(copy.deepcopy(learner.state()))
    raise KeyboardInterrupt


def test_without_batch_statistics_shards_are_the_whole_batch() -> None:
    part = films_of(22, 94)
    recipe = recipe_of(training={"shards": 4, "batch": 9}, **PAPER)
    whole = TorchLearner(recipe, place(1), (1.5, 0.75))
    apart = ShardedLearner(recipe, place(2), (1.5, 0.75))
    for learner in (whole, apart):
        learner.begin(part, 0)
        for batch in (np.arange(9), np.arange(9, 18), np.arange(18, 22)):
            learner.step(batch, 1e-3)
    for mine, theirs in zip(apart.finish(), whole.finish(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    for mine, theirs in zip(apart.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_running_statistics_are_the_mean_of_the_shards(part: Films) -> None:
    recipe = recipe_of(training={"shards": 2, "batch": 8})
    learner = ShardedLearner(recipe, place(2), (1.0, 1.0))
    learner.begin(part, 0)
    learner.step(np.arange(8), 1e-3)
    apart = [dict(replica.named_buffers()) for replica in learner.replicas]
    name = next(name for name in apart[0] if name.endswith("running_mean"))
    expected = torch.stack([one[name] for one in apart]).mean(0)
    assert not torch.equal(apart[0][name], apart[1][name])
    learner.finish()
    assert torch.equal(dict(learner.model.named_buffers())[name], expected)
    learner.begin(part, 1)
    assert torch.equal(dict(learner.replicas[1].named_buffers())[name], expected)


def test_an_average_of_weights_follows_the_mean_of_the_shards(part: Films) -> None:
    """With a decay of nothing the average is the network of the last step, statistics and all."""
    recipe = recipe_of(training={"shards": 2, "batch": 8}, averaging={"decay": 1e-9, "every": 1})
    learner = ShardedLearner(recipe, place(2), (1.0, 1.0))
    learner.begin(part, 0)
    for batch in (np.arange(8), np.arange(8, 16)):
        learner.step(batch, 1e-3)
    learner.finish()
    average = dict(learner.average.named_buffers())
    for name, value in learner.model.named_buffers():
        if value.is_floating_point():
            assert torch.allclose(average[name], value, atol=1e-5), name


@pytest.mark.parametrize(
    ("threads", "most", "size", "each"),
    [(0, 2, 1, 1), (1, 2, 1, 1), (2, 2, 2, 1), (3, 2, 1, 3), (4, 2, 2, 2), (4, 3, 3, 1),
     (7, 4, 3, 2), (2, 3, 2, 1)],
)  # fmt: skip
def test_a_team_uses_its_threads(threads: int, most: int, size: int, each: int) -> None:
    team = Team(threads, most)
    assert (team.size, team.each) == (size, each)
    barrier = threading.Barrier(size)  # passed when all members work at once

    def seen(k: int) -> tuple[int, int, int]:
        barrier.wait(10)
        return k, threading.get_ident(), torch.get_num_threads()

    before = torch.get_num_threads()
    found = list(team.map(seen, range(size)))
    assert [k for k, _, _ in found] == list(range(size))
    assert len({thread for _, thread, _ in found}) == size
    assert threading.get_ident() in {thread for _, thread, _ in found}
    assert {number for _, _, number in found} == {each}
    assert torch.get_num_threads() == before


def test_a_team_raises_what_a_member_raised() -> None:
    def fail(k: int) -> int:
        if k == 1:
            raise MemoryError("full")
        return k

    assert list(Team(2, 2).map(lambda k: k * k, range(5))) == [0, 1, 4, 9, 16]
    with pytest.raises(MemoryError):
        list(Team(2, 2).map(fail, range(3)))


def test_behind_an_error_a_team_begins_nothing() -> None:
    begun: list[int] = []

    def work(k: int) -> None:
        begun.append(k)
        time.sleep(0.01)
        if k < 2:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Team(2, 2).map(work, range(100))
    assert len(begun) < 10
