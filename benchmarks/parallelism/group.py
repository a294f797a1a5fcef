"""Processes that work together: started, joined by gloo, asked for their results, ended."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from wire import Wire

from hilum import heap, machine

PATIENCE = timedelta(minutes=2)
# By the server that processes are forked from; the last is what DistributedDataParallel wants.
LOADED = ["hilum.datasets.phantom", "hilum.networks.paper2021", "torch._dynamo"]


@dataclass
class Member:
    """One process of a group; ``folder`` is the group's own, for memory that is shared."""

    rank: int
    size: int
    folder: Path
    wire: Wire = field(default_factory=Wire)

    def share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The films of a whole batch that this process takes."""
        return batch[self.rank :: self.size]


def context() -> Any:
    """Processes forked from a server that has torch loaded already: they stand within a second."""
    made = get_context("forkserver")
    made.set_forkserver_preload(LOADED)
    return made


def launch(processes: int, way: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``way(member, *arguments)`` in so many new processes of one thread; results by rank.

    Whatever one of them raises ends the group and is raised here.
    """
    make = context()
    with tempfile.TemporaryDirectory(prefix="hilum-group-") as folder:
        members, ears = [], {}
        for rank in range(processes):
            ear, mouth = make.Pipe(duplex=False)
            given = (rank, processes, folder, mouth, way, arguments)
            members.append(make.Process(target=_join, args=given, daemon=True))
            members[-1].start()
            mouth.close()
            ears[ear] = rank
        try:
            return _listen(ears)
        finally:
            for member in members:
                member.join(timeout=5)
                member.kill()


def _listen(ears: dict[Connection, int]) -> list[Any]:
    results: dict[int, Any] = {}
    size = len(ears)
    while ears:
        for ear in wait(list(ears)):
            assert isinstance(ear, Connection)
            rank = ears.pop(ear)
            try:
                failed, results[rank] = ear.recv()
            except EOFError:
                failed, results[rank] = True, "it ended without a word"
            if failed:
                raise RuntimeError(f"process {rank} of {size} has failed: {results[rank]}")
    return [results[rank] for rank in range(size)]


def _join(
    rank: int,
    size: int,
    folder: str,
    mouth: Connection,
    way: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    machine.set_threads(1)
    heap.keep()
    if Path("/sys/class/net/lo").exists():
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # of this process alone: all are on this machine
    torch.manual_seed(rank)
    store = f"file://{folder}/store"
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        result = way(Member(rank, size, Path(folder)), *arguments)
        distributed.barrier()  # nobody leaves while another still reads
        mouth.send((False, result))
    except Exception:
        mouth.send((True, traceback.format_exc()))
        os._exit(1)  # a group that broke must not be waited for
    distributed.destroy_process_group()
