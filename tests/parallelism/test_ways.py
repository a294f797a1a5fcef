"""Every way of ``benchmarks/parallelism`` computes what it says, and sends what is counted."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import server
import ways
from group import Member, launch
from numpy.typing import NDArray
from task import Model, Task
from wire import all_reduce_bytes

Weights = NDArray[np.float32]


def weights_of(result: dict[str, Any], place: int = -1) -> Weights:
    found: Weights = result["copies"][place][2]
    return found


def near(a: Weights, b: Weights, of: Weights) -> bool:
    """Whether two runs moved alike, to rounding, from the weights they began with."""
    return float(np.linalg.norm(a - b)) < 2e-4 * float(np.linalg.norm(b - of))


@pytest.fixture(scope="module")
def start(task: Task) -> Weights:
    return Model(task).flat.weights.numpy().copy()


@pytest.fixture(scope="module")
def one(task: Task) -> dict[str, Any]:
    """One process."""
    before = dict(os.environ)
    (result,) = launch(1, ways.alone, task)
    assert dict(os.environ) == before  # what the members' gloo is told is theirs
    return result


def test_one_process_learns_and_sends_nothing(
    task: Task, one: dict[str, Any], start: Weights
) -> None:
    assert np.linalg.norm(weights_of(one) - start) > 0.01
    assert one["sent"] == 0 and len(one["copies"]) == len(one["at"]) == task.updates


@pytest.mark.parametrize("way", [ways.after, ways.overlapped])
def test_synchronous_updates_are_those_of_one_process(
    task: Task, one: dict[str, Any], start: Weights, way: Any
) -> None:
    results = launch(2, way, task)
    for update in range(task.updates):
        a, b = (weights_of(r, update) for r in results)
        assert np.array_equal(a, b)
        assert near(a, weights_of(one, update), start)
    for r in results:
        assert r["sent"] == task.updates * all_reduce_bytes(start.nbytes, 2)
        assert_spoken(r, task.updates * 40)


def assert_spoken(result: dict[str, Any], messages: int) -> None:
    """The kernel counts what we do and some headers: a ring sends in several messages."""
    if result["spoken"] is not None:
        assert result["sent"] <= result["spoken"] <= result["sent"] + 100 * messages


def test_averaging_every_time_is_synchronous(
    task: Task, one: dict[str, Any], start: Weights
) -> None:
    for r in launch(2, ways.periodic, task, 1, 0):
        assert near(weights_of(r), weights_of(one), start)
        assert r["sent"] == task.updates * all_reduce_bytes(start.nbytes, 2)


def test_periodic_averaging_sends_once_in_a_period(task: Task, start: Weights) -> None:
    results = launch(2, ways.periodic, task, 3, 1)  # after updates 1, 3 and at the end
    assert [np.array_equal(*(weights_of(r, u) for r in results)) for u in range(4)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert all(r["sent"] == 3 * all_reduce_bytes(start.nbytes, 2) for r in results)


def keep_the_mean(member: Member, task: Task) -> tuple[Weights, Weights, float]:
    """Gossip that learns nothing, from other weights in every process."""
    model = Model(replace(task, seed=member.rank))
    before = model.flat.weights.numpy().copy()
    for update in range(2):
        ways.meet(member, model.flat.weights, update)
    return before, model.flat.weights.numpy(), member.wire.sent


def test_gossip_keeps_the_mean_and_brings_all_nearer(task: Task) -> None:
    before, after, sent = zip(*launch(4, keep_the_mean, task), strict=True)
    middle = np.mean(before, axis=0)
    assert np.allclose(np.mean(after, axis=0), middle, atol=1e-7)
    apart = [np.linalg.norm(np.stack(w) - middle) for w in (before, after)]
    assert apart[1] < 0.6 * apart[0]
    assert set(sent) == {2 * before[0].nbytes}


def test_neighbours_meet_each_other_and_both_sides_in_turn() -> None:
    for size in (2, 4, 6):
        for update in range(3):
            pairs = [ways.neighbour(rank, update, size) for rank in range(size)]
            assert [pairs[p] for p in pairs] == list(range(size))
        assert size == 2 or ways.neighbour(0, 0, size) != ways.neighbour(0, 1, size)


def test_the_server_applies_every_gradient_once(task: Task, start: Weights) -> None:
    many = replace(task, updates=12)
    first, *workers = launch(4, server.asynchronous, many)
    assert sorted(first["applied"]) == list(range(12))
    assert sum(len(w["trips"]) for w in workers) == 12
    stale = first["staleness"]
    assert len(stale) == 12 and min(stale) >= 0 and max(stale) > 0
    # Of W gradients on their way at any time, each other is applied once on average.
    assert sum(stale) <= 12 * 2
    message = start.nbytes + 4
    assert first["sent"] == 12 * message
    assert sum(w["sent"] for w in workers) == 12 * message
    assert_spoken(first, 16 * 16)


def test_a_server_with_one_worker_is_one_process(
    task: Task, one: dict[str, Any], start: Weights
) -> None:
    first, _ = launch(2, server.asynchronous, task)
    assert first["staleness"] == [0] * task.updates
    assert near(weights_of(first), weights_of(one), start)


def test_stale_gradients_bear_a_smaller_rate() -> None:
    def ends(staleness: int, rate: float) -> float:
        way = [1.0] * (staleness + 1)
        for _ in range(4000):
            way.append(way[-1] - rate * way[-1 - staleness])
        return max(map(abs, way[-50:]))

    for staleness in (0, 1, 3, 7):
        limit = server.largest_rate(staleness)
        assert ends(staleness, 0.97 * limit) < 1e-3 < 1e3 < ends(staleness, 1.03 * limit)
    assert server.largest_rate(0) == 2


def test_a_trip_takes_longer_the_more_workers_there_are() -> None:
    trips = server.queue_times(1.0, 4.0, 60)
    assert trips[0] == 1.0 and trips == sorted(trips)
    assert trips[59] == pytest.approx(60 * 1.0 - 4.0, rel=1e-3)  # the server never rests
    # Two workers, by hand: the second meets the first at the server with probability 1/5.
    assert trips[1] == pytest.approx(1.2)


def test_hogwild_loses_no_process(task: Task, start: Weights) -> None:
    results = launch(2, ways.hogwild, replace(task, updates=10))
    assert results[0]["done"] == [5, 5]
    assert [len(r["staleness"]) for r in results] == [5, 5]
    last = weights_of(results[0])
    assert np.isfinite(last).all() and np.linalg.norm(last - start) > 0.01
    assert all(r["sent"] == 0 for r in results)


def test_hogwild_of_one_is_one_process(task: Task, one: dict[str, Any]) -> None:
    (result,) = launch(1, ways.hogwild, task)
    assert np.array_equal(weights_of(result), weights_of(one))


def fail(member: Member) -> None:
    if member.rank == 1:
        raise ValueError("a reason")


def test_a_process_that_fails_ends_its_group_with_the_reason() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2 has failed.*a reason"):
        launch(2, fail)
