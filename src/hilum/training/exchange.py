"""How processes give each other what a step has made: by messages, or in memory that they share.

gloo's messages go through the kernel's network, to a neighbour on the same machine too: they are
copied in and out, by a thread that takes its time from the training's. On one machine each process
therefore copies its gradients into its row of a block that all of them see; when everyone has done
so, it reads the others' there. Large weights lie in that block themselves, once for all processes,
of which each moves some rows.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, distributed
from torch.futures import Future

if TYPE_CHECKING:
    from hilum.training.group import Group

LINE = 64  # bytes of a cache line: no two processes write into one
MET = b"met."  # no process gives a step's gradients while another still waits to meet it
MOST = 200  # processes that it is made for: a message takes 253 connections along (Linux)
FEW = 4  # processes of which each makes every mean itself; more of them share that out


class Exchange(Protocol):
    """Begun on the way back, with what is ready; ended behind it."""

    def gather(self, values: Tensor) -> Tensor:
        """Everyone's (size, ...) values, to be read behind :meth:`collect`.

        Every process gives the same shapes in the same order.
        """

    def arrive(self) -> None:
        """All is given: what this process does now, no other has to wait for."""

    def collect(self) -> None:
        """Wait for the others."""

    def hold(self, values: Tensor) -> Tensor:
        """The same values where all processes see them, if they share memory.

        Every process gives the same ones in the same order, before it first arrives.
        """

    def rows(self, count: int) -> slice:
        """Of so many rows of what is held, those that this process changes."""

    def meet(self) -> None:
        """Wait until all have changed their rows."""

    def close(self) -> None:
        """Leave: whoever still waits for this process is told in an error."""


class ByMessages:
    """Through torch's engine; gradients are torch's DistributedDataParallel's alone.

    Parameters
    ----------
    size : processes
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._under_way: list[Any] = []

    def gather(self, values: Tensor) -> Tensor:
        everyone = values.new_empty(self.size, *values.shape)
        # As bytes, since not every version of gloo knows bfloat16.
        theirs = list(everyone.view(torch.uint8).unbind())
        mine = values.view(torch.uint8)
        self._under_way.append(distributed.all_gather(theirs, mine, async_op=True))
        return everyone

    def arrive(self) -> None:
        """Messages are under way by themselves."""

    def collect(self) -> None:
        for work in self._under_way:
            work.wait()
        self._under_way.clear()

    def hold(self, values: Tensor) -> Tensor:
        return values

    def rows(self, count: int) -> slice:
        return slice(0, count)

    def meet(self) -> None:
        """Each has changed its own."""

    def close(self) -> None:
        """Torch's engine is left as a whole."""


class InMemory:
    """In memory that all processes see: each puts in what it has, then all meet once.

    Parameters
    ----------
    memory : (2, bytes) uint8, the same for all processes. Steps take its halves in turn: what one
        process still reads is not what another one, a step ahead, writes.
    barrier : of the same processes
    held : a buffer, the same for all processes too, for what they hold together
    """

    def __init__(
        self, memory: Tensor, rank: int, size: int, barrier: Barrier, held: Any = b""
    ) -> None:
        self.now, self.then = memory
        self.rank, self.size, self.barrier, self.held = rank, size, barrier, held
        self._used = self._holds = 0
        self._given = b""  # a digest of what was given in this step: how much each time
        self._means: list[tuple[Tensor, Tensor]] = []

    def gather(self, values: Tensor) -> Tensor:
        begin, end = self._used, self._used + self.size * values.nbytes
        self._used = _lines(end)
        self._given = crc32(self._given + end.to_bytes(8)).to_bytes(4)
        everyone = self.now[begin:end].view(values.dtype).view(self.size, *values.shape)
        everyone[self.rank] = values
        return everyone

    def average(self, gradients: Tensor) -> Future[Tensor]:
        """Make them, at :meth:`collect`, the mean of the processes'; the answer is what a hook of
        torch's DistributedDataParallel has to give."""
        self._means.append((gradients, self.gather(gradients)))
        done: Future[Tensor] = Future()
        done.set_result(gradients)
        return done

    def arrive(self) -> None:
        if self._used:
            self.barrier.arrive(self._given)

    def collect(self) -> None:
        if not self._used:
            return
        self.barrier.wait(self._given)
        if self.size > FEW:
            for _, everyone in self._means:
                mine = everyone.flatten(1).tensor_split(self.size, 1)[self.rank]
                mine[0] = mine.mean(0)
            self.barrier.arrive(self._given)
            self.barrier.wait(self._given)
        for gradients, everyone in self._means:
            if self.size > FEW:
                gradients.copy_(everyone[0])
            else:
                torch.mean(everyone, 0, out=gradients)
        self._means.clear()
        self._used, self._given, self.now, self.then = 0, b"", self.then, self.now

    def hold(self, values: Tensor) -> Tensor:
        # A storage of its own: who copies or saves this tensor does not want the whole block.
        here = torch.frombuffer(
            self.held, dtype=values.dtype, count=values.numel(), offset=self._holds
        )
        self._holds += _lines(values.nbytes)
        return here.view(values.shape).copy_(values)

    def rows(self, count: int) -> slice:
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def meet(self) -> None:
        if self._holds:
            self.barrier.arrive(MET)
            self.barrier.wait(MET)

    def close(self) -> None:
        self.barrier.close()


class Barrier:
    """Where processes of one machine meet, in two halves as in C++: between them each may work.

    A word from one training thread to the other; gloo's barrier passes through two threads more
    on either side, and has one half.

    Parameters
    ----------
    others : a connection to each of them
    """

    def __init__(self, others: Sequence[socket.socket]) -> None:
        self.others = others

    def arrive(self, word: bytes) -> None:
        """Tell the others, who must come with the same word; raises RuntimeError if one of them
        has gone."""
        with _told():
            for other in self.others:
                other.sendall(word)

    def wait(self, word: bytes) -> None:
        """Until all others have arrived as often; raises RuntimeError if one of them has gone,
        comes with another word, or says nothing for longer than its connection's time-out."""
        with _told():
            for other in self.others:
                theirs = other.recv(len(word))
                if theirs != word:
                    raise ConnectionError("it gave other gradients" if theirs else "it has gone")

    def close(self) -> None:
        """Let the others see that this process will not come."""
        for other in self.others:
            other.close()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"connection to a process of this machine: {error}") from error


def _lines(size: int) -> int:
    """Bytes up to the end of a cache line."""
    return -(-size // LINE) * LINE


def in_memory(
    group: Group, gathered: Sequence[int], held: Sequence[int], seconds: float
) -> InMemory | None:
    """That exchange for a group, or None where its processes share no memory.

    They do where all of them find rank 0's door: a socket that only this machine or container
    sees. Through it they get the memory, which is no file and goes with the last of them.

    Parameters
    ----------
    gathered : how many numbers of four bytes a process gives each time, in one step; it may give
        some of them together
    held : how many numbers of four bytes the processes hold together, each time
    seconds : that one waits for another
    """
    half = sum(_lines(4 * numbers * group.size) for numbers in gathered)
    size = 2 * half + sum(_lines(4 * numbers) for numbers in held)
    with ExitStack() as stack:
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        door.settimeout(seconds)
        memory = -1

        def open_door() -> str:
            nonlocal memory
            name = f"\0hilum-{secrets.token_hex()}"
            with suppress(AttributeError, OSError):  # systems other than Linux; what forbids it
                memory = os.memfd_create("hilum")
                stack.callback(os.close, memory)
                os.ftruncate(memory, size)
                door.bind(name)
                door.listen(group.size)
                return name if group.size <= MOST else ""
            return ""

        name = group.from_first(open_door)
        found = bool(name) and (group.rank == 0 or door.connect_ex(name) == 0)
        if group.total(np.array([float(found)]))[0] < group.size:
            return None
        if group.rank == 0:
            others = _introduced(door, memory, group.size)
        else:
            _, (memory, *lines), _, _ = socket.recv_fds(door, 1, group.size)
            stack.callback(os.close, memory)
            others = [socket.socket(fileno=line) for line in lines]
        for other in others:
            other.settimeout(seconds)
        block = memoryview(mmap.mmap(memory, size))
    given = torch.frombuffer(block[: 2 * half], dtype=torch.uint8).view(2, half)
    return InMemory(given, group.rank, group.size, Barrier(others), block[2 * half :])


def _introduced(door: socket.socket, memory: int, size: int) -> list[socket.socket]:
    """Give each who comes to the door the memory and a line to each other process; returns those
    of the process that opens."""
    lines: list[list[socket.socket]] = [[] for _ in range(size)]
    for one in range(size):
        for other in range(one):
            for end, whose in zip(socket.socketpair(), (one, other), strict=True):
                lines[whose].append(end)
    for ends in lines[1:]:
        guest, _ = door.accept()
        with guest:
            socket.send_fds(guest, [b"."], [memory, *(end.fileno() for end in ends)])
        for end in ends:
            end.close()
    return lines[0]
