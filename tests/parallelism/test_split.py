"""A network split over processes gives the outputs, gradients and updates of the whole one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import ways
from group import Member, launch
from split import Split, merge, split
from task import Model, Task
from wire import all_reduce_bytes

CASES = {"model": (2, 2, True), "one weird trick": (2, 2, False), "hybrid": (4, 2, False),
         "hybrid, replicated": (4, 2, True)}  # fmt: skip


def once(member: Member, task: Task, shards: int, replicated: bool) -> tuple[Any, ...]:
    """Logits of the first batch as this process's group has them, gradient, bytes sent."""
    model = Split(member, task, shards, replicated)
    batch = task.batch_of(0)
    model.learn(batch, task.batch)
    sent = member.wire.sent
    with torch.no_grad():
        logits = model.forward(task.films()[0][model.shares(batch)[0]])
    return logits.numpy(), model.flat.gradient.numpy(), sent


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_one_process(task: Task, case: str) -> None:
    size, shards, replicated = CASES[case]
    results = launch(size, once, task, shards, replicated)
    whole = Model(task)
    batch = task.batch_of(0)
    whole.learn(batch, task.batch)
    with torch.no_grad():
        wanted = whole.network(task.films()[0][batch]).numpy()
    teams = size // shards
    for rank, (logits, _, _) in enumerate(results):
        places = np.arange(task.batch)[rank // shards :: teams]
        if not replicated:
            places = np.concatenate([places[s::shards] for s in range(shards)])
        assert np.allclose(logits, wanted[places], atol=1e-5)
    gradient = whole.flat.gradient.numpy()
    for team in range(teams):
        parts = [results[team * shards + s][1] for s in range(shards)]
        apart = np.linalg.norm(merge(task, parts) - gradient)
        assert apart < 1e-4 * np.linalg.norm(gradient)


def test_bytes_are_those_of_the_formulas(task: Task) -> None:
    network, n = task.network(), task.batch
    features, sums = n * network.dense1.in_features * 4, n * network.dense2.out_features * 4
    whole = Model(task).flat.weights.nbytes
    dense = 4 * sum(p.numel() for k, p in network.named_parameters() if k.startswith("dense"))
    shard = once_size(network)
    for case, formula in {
        "model": all_reduce_bytes(sums, 2) + all_reduce_bytes(features, 2),
        "one weird trick": all_reduce_bytes(sums, 2) + features / 2 + features / 2
        + all_reduce_bytes(whole - dense, 2),
        "hybrid": all_reduce_bytes(sums // 2, 2) + features / 4 + features / 4
        + all_reduce_bytes(whole - dense, 4) + all_reduce_bytes(shard, 2),
    }.items():  # fmt: skip
        size, shards, replicated = CASES[case]
        assert {r[2] for r in launch(size, once, task, shards, replicated)} == {formula}, case


def once_size(network: Any) -> int:
    """Bytes of the dense layers in one of two processes."""
    split_up = network.dense1.weight.numel() + network.dense1.bias.numel()
    split_up += network.dense2.weight.numel()
    rest = network.dense2.bias.numel() + sum(p.numel() for p in network.dense3.parameters())
    return 4 * (split_up // 2 + rest)


@pytest.mark.parametrize("case", ["model", "hybrid"])
def test_updates_are_those_of_one_process(task: Task, case: str) -> None:
    size, shards, replicated = CASES[case]
    results = launch(size, split, task, shards, replicated)
    (one,) = launch(1, ways.alone, task)
    start = Model(task).flat.weights.numpy()
    last = merge(task, [r["copies"][-1][2] for r in results[:shards]])
    wanted = one["copies"][-1][2]
    assert np.linalg.norm(last - wanted) < 2e-4 * np.linalg.norm(wanted - start)
