"""What processes give each other: in threads that play them, and in real ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hilum.training.exchange import LINE, Barrier, InMemory, in_memory


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_gradients_become_the_mean_of_all(size: int) -> None:
    """Beside them, what is only gathered; a step ahead of the slowest nobody overwrites it."""
    memory = torch.full((2, size * 4 * (50 + 7 + 6) + 3 * LINE), 255, dtype=torch.uint8)
    pairs = {pair: socket.socketpair() for pair in combinations(range(size), 2)}

    def values(rank: int, step: int, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(100 * step + rank))

    def process(rank: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        others = [ends[pair.index(rank)] for pair, ends in pairs.items() if rank in pair]
        exchange = InMemory(memory, rank, size, Barrier(others))
        found = []
        exchange.arrive()  # nothing given: nobody is waited for
        exchange.collect()
        for step in range(4):
            wide, narrow = values(rank, step, 50), values(rank, step, 7)
            assert exchange.average(wide).wait() is wide
            factors = exchange.gather(values(rank, step, 3, 2).bfloat16())
            exchange.average(narrow)
            exchange.arrive()
            exchange.collect()
            found.append((wide, narrow, factors.clone()))
        exchange.close()
        return found

    with ThreadPoolExecutor(size) as threads:
        results = list(threads.map(process, range(size)))
    for step in range(4):
        for k, shape in enumerate([(50,), (7,)]):
            mean = torch.stack([values(rank, step, *shape) for rank in range(size)]).mean(0)
            for result in results:
                assert torch.allclose(result[step][k], mean, atol=1e-6)
                assert torch.equal(result[step][k], results[0][step][k])
        factors = torch.stack([values(rank, step, 3, 2).bfloat16() for rank in range(size)])
        assert all(torch.equal(result[step][2], factors) for result in results)


def test_gradients_in_another_order_are_refused() -> None:
    """They would be taken for each other's."""
    near, far = socket.socketpair()
    memory = torch.zeros(2, 4096, dtype=torch.uint8)
    one, other = InMemory(memory, 0, 2, Barrier([near])), InMemory(memory, 1, 2, Barrier([far]))
    for exchange, order in ((one, (5, 7)), (other, (7, 5))):
        for count in order:
            exchange.gather(torch.ones(count))
        exchange.arrive()
    with pytest.raises(RuntimeError, match="it gave other gradients"):
        one.collect()
    one.close()
    other.close()


def test_who_leaves_is_missed() -> None:
    """So is one that says nothing."""
    near, far = socket.socketpair()
    near.settimeout(0.1)
    first = Barrier([near])
    with pytest.raises(RuntimeError, match="connection to a process of this machine: timed out"):
        first.wait(b"x")
    Barrier([far]).arrive(b"y")
    with pytest.raises(RuntimeError, match="of this machine: it gave other gradients"):
        first.wait(b"x")
    Barrier([far]).close()
    with pytest.raises(RuntimeError, match="connection to a process of this machine: it has gone"):
        first.wait(b"x")
    with pytest.raises(RuntimeError, match=r"process of this machine: .*Broken pipe"):
        first.arrive(b"x")
    first.close()


def test_more_processes_than_a_message_can_connect_do_not_share_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 0 does not open its door, where it would wait for the others."""
    monkeypatch.setattr("hilum.training.exchange.MOST", 2)
    group: Any = SimpleNamespace(
        rank=0, size=3, from_first=lambda make: make(), total=lambda mine: 3 * mine
    )
    assert in_memory(group, [50], [], 0.1) is None


# One of two processes; tells which way its gradients go, what they are and where they lead.
ONE_OF_TWO = """
import os, sys
from copy import deepcopy
import torch
from torch import nn
from hilum.machine import Place
from hilum.training import exchange, factors, group, optimiser, recipe
rank = int(os.environ["RANK"])
{first}
factors.WORTH_IT = 0
torch.manual_seed(rank)  # the first one's weights are everybody's
network = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 2))
with group.joined(Place("cpu", 2, 1, "float32")) as together:
    with torch.no_grad():
        for p in network.parameters():
            torch.distributed.broadcast(p, 0)
    statistics = nn.BatchNorm1d(2)
    statistics.running_mean += 2 * rank  # each of its own films
    together.agree(statistics)
    assert statistics.running_mean.tolist() == [1, 1]
    shared = together.wrap(network, 4)
    assert together.by_factors is not None
    x = torch.randn(4, 40, generator=torch.Generator().manual_seed(7))
    def gradients(films):
        network.zero_grad(set_to_none=True)
        shared(films).square().sum().backward()
        together.arrive()
        together.collect()
        return [p.grad.clone() for p in network.parameters()]
    for _ in range(3):
        found = gradients(x[rank::2])
    with together.alone(shared):
        own = gradients(x[rank::2])
    plain = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    mine = torch.autograd.grad(network(x[rank::2]).square().sum(), list(network.parameters()))
    for p, a, b in zip(network.parameters(), found, plain):
        rows = together.by_factors.rows(p)
        assert torch.allclose(a[rows], b[rows] / 2, atol=1e-5), (a - b / 2).abs().max()
    for a, b in zip(own, mine):
        assert torch.allclose(a, b, atol=1e-5), (a - b).abs().max()

    settings = recipe.Optimiser("{name}", lr=0.01)
    single = deepcopy(network)
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in single.parameters())
    theirs = optimiser.make(single, settings)
    ours = optimiser.make(network, settings, together.by_factors)
    for _ in range(3):
        gradients(x[rank::2])
        (single(x).square().sum() / 2).backward()
        for one in [*ours, *theirs]:
            one.step(0.5)
        single.zero_grad()
        together.meet()
    whole = [t for one in ours for ts in one.state().values() for t in ts]
    alike = [t for one in theirs for ts in one.state().values() for t in ts]
    for a, b in zip([*network.parameters(), *whole], [*single.parameters(), *alike], strict=True):
        assert torch.allclose(a, b, atol=1e-5), (a - b).abs().max()
    print(type(together._exchange).__name__)
"""


@pytest.mark.parametrize(
    ("way", "name", "first"),
    [
        ("InMemory", "adam", ""),
        ("InMemory", "sgd", ""),
        ("ByMessages", "adam", "del os.memfd_create"),
        ("ByMessages", "adam", "import socket\nif rank: socket.socket.connect_ex = lambda *_: 1"),
    ],
    ids=["one machine", "another optimiser", "not Linux", "no such door here"],
)
def test_memory_where_it_is_shared(way: str, name: str, first: str) -> None:
    from .test_group import free_port

    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO.format(name=name, first=first)],
            env={**os.environ, **own, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert said == [f"{way}\n"] * 2
