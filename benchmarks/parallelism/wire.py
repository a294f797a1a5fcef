"""What the processes of a group send each other, counted as it is called.

Every exchange of this benchmark goes through a :class:`Wire`. It adds up the bytes that this
process hands to its peers, by the formula of the algorithm that gloo uses; :func:`spoken` is the
kernel's own count of what the process wrote, and the two are compared in the record and in a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed


def bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def all_reduce_bytes(size: int, processes: int) -> float:
    """Bytes that each process sends in a ring all-reduce of ``size`` bytes: 2 (P - 1) / P of it.

    P - 1 rounds of 1 / P of the vector to sum the pieces, and as many to hand the sums round
    (Patarasuk & Yuan 2009, *Bandwidth optimal all-reduce algorithms*); gloo's default.
    """
    return 2 * (processes - 1) / processes * size


def spoken() -> int | None:
    """Bytes that this process has written so far by the kernel's count; None off Linux.

    Sockets and files alike, so a process that only trains has written what it sent, and gloo's
    header of 48 bytes a message.
    """
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


class Wire:
    """The exchanges of one process; ``sent`` are the bytes it has handed to others so far."""

    def __init__(self) -> None:
        self.sent = 0.0

    def all_reduce(self, tensor: Tensor, group: Any = None, *, wait: bool = True) -> Any:
        """Sum over the group, in place; without ``wait`` the work that is under way."""
        processes = distributed.get_world_size(group)
        self.sent += all_reduce_bytes(bytes_of(tensor), processes)
        return distributed.all_reduce(tensor, group=group, async_op=not wait)

    def all_gather(self, tensor: Tensor, group: Any = None) -> list[Tensor]:
        """Everyone's tensor, in order of rank: each process sends its own P - 1 times."""
        processes = distributed.get_world_size(group)
        self.sent += (processes - 1) * bytes_of(tensor)
        found = [torch.empty_like(tensor) for _ in range(processes)]
        distributed.all_gather(found, tensor, group=group)
        return found

    def reduce_scatter(self, parts: Sequence[Tensor], group: Any = None) -> Tensor:
        """Part r of the sum over the group, for its member r: each sends every other its part.

        From sends and receives: gloo has a reduce-scatter of its own only in newer torch.
        """
        ranks = distributed.get_process_group_ranks(group or distributed.group.WORLD)
        own = ranks.index(distributed.get_rank())
        total = parts[own].clone()
        others = [place for place in range(len(ranks)) if place != own]
        found = [torch.empty_like(total) for _ in others]
        coming = [
            distributed.irecv(f, ranks[place]) for f, place in zip(found, others, strict=True)
        ]
        for place in others:
            self.send(parts[place].contiguous(), ranks[place])
        for work, theirs in zip(coming, found, strict=True):
            assert work is not None
            work.wait()
            total += theirs
        return total

    def exchange(self, tensor: Tensor, peer: int) -> Tensor:
        """The peer's tensor for ours, both ways at once."""
        theirs = torch.empty_like(tensor)
        coming = distributed.irecv(theirs, peer)
        self.send(tensor, peer)
        assert coming is not None
        coming.wait()
        return theirs

    def send(self, tensor: Tensor, peer: int) -> None:
        self.sent += bytes_of(tensor)
        distributed.send(tensor, peer)

    def receive(self, tensor: Tensor, peer: int | None = None) -> int:
        """Fill ``tensor`` with what the peer, or whoever comes first, sends; returns who it was."""
        return distributed.recv(tensor, peer)
