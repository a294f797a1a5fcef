"""Where a GPU finds a set's films: in its own memory, or streamed to it batch by batch.

    Resident   every film as uint8 on the device; a batch is gathered there
    Stream     a thread gathers the batches to come into pinned memory, a stream of copies carries
               them over while the batch before is computed

Films may lie in a memory map that holds other films too (``Films.rows`` says where); neither
asks for more than its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilum.training.parts import Films

#: Batches that are gathered ahead, and batches on the device: one computed, one on its way.
GATHERED_AHEAD, BUFFERS = 4, 2
#: Bytes of one piece when a whole set is carried over.
PIECE = 32 << 20


def size_of(films: Films) -> int:
    """Bytes that the films take on a device, with their labels and numbers."""
    return len(films) * (films.pixels.shape[-1] ** 2 + 12)


class OnDevice:
    """A set's labels (n,) float32 and numbers (n,) int64 on the device, and its films.

    Parameters
    ----------
    films : the set
    batch : films of the largest batch
    device : where to
    resident : whether the pixels are to lie there as well

    Attributes
    ----------
    pixels : (n, s, s) uint8 on the device, None where they are streamed
    stream : what carries them otherwise
    """

    def __init__(self, films: Films, batch: int, device: torch.device, *, resident: bool) -> None:
        self.films, self.resident = films, resident
        self.labels = torch.from_numpy(films.labels).to(device, torch.float32)
        self.identity = torch.from_numpy(films.identity).to(device)
        self.pixels = upload(films, device) if resident else None
        self.stream = None if resident else Stream(films, batch, device)

    @property
    def bytes(self) -> int:
        """What it takes of the device's memory."""
        held = (self.labels, self.identity, *([] if self.pixels is None else [self.pixels]))
        streamed = 0 if self.stream is None else sum(one.nbytes for one in self.stream.buffers)
        return sum(one.nbytes for one in held) + streamed

    def widen(self, batch: int) -> None:
        """Be ready for batches of so many films."""
        if self.stream is not None and self.stream.size < batch:
            self.stream.close()
            self.stream = Stream(self.films, batch, self.labels.device)

    def begin(self, plan: Sequence[NDArray[np.int64]]) -> None:
        """These batches are to come."""
        if self.stream is not None:
            self.stream.begin(plan)

    def fetch(self, batch: NDArray[np.int64]) -> Tensor:
        """Films (n, s, s) of a set that is streamed; see ``Stream.fetch``."""
        assert self.stream is not None
        return self.stream.fetch(batch)


def upload(films: Films, device: torch.device) -> Tensor:
    """All films (n, s, s) uint8 on the device, carried over in pieces."""
    side = films.pixels.shape[-1]
    whole = torch.empty((len(films), side, side), dtype=torch.uint8, device=device)
    many = max(1, min(len(films), PIECE // side**2))
    stream = Stream(films, many, device)
    plan = [np.arange(i, min(i + many, len(films))) for i in range(0, len(films), many)]
    stream.begin(plan)
    try:
        for piece in plan:
            whole[piece[0] : piece[-1] + 1].copy_(stream.fetch(piece), non_blocking=True)
    finally:
        stream.close()
    return whole


@dataclass
class _Gathered:
    """A batch in host memory, or what went wrong with it."""

    host: Tensor
    error: BaseException | None = None


class Stream:
    """Carries batches to a device, those of a plan ahead of time.

    Parameters
    ----------
    films : where from
    size : films of the largest batch
    device : where to; on a CPU the same happens without pinned memory and a stream of copies

    Notes
    -----
    The thread only gathers. It calls nothing of CUDA's, which would break a graph that is being
    captured meanwhile.
    """

    def __init__(self, films: Films, size: int, device: torch.device) -> None:
        self._free: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Gathered] = queue.SimpleQueue()
        self.films, self.size, self.device = films, size, device
        side = films.pixels.shape[-1]
        shape, cuda = (size, side, side), device.type == "cuda"
        self.hosts = [
            torch.empty(shape, dtype=torch.uint8, pin_memory=cuda) for _ in range(GATHERED_AHEAD)
        ]
        self.buffers = [
            torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(BUFFERS)
        ]
        self.copies: Any = torch.cuda.Stream(device) if cuda else None
        if self.copies is not None:  # the buffers may be memory that others still compute on
            self.copies.wait_stream(torch.cuda.current_stream(device))
        self._turn = 0
        self._read: list[Any] = [None] * BUFFERS  # events: the buffer's last reader is done
        self._worker: threading.Thread | None = None
        self._planned: list[NDArray[np.int64]] = []
        self._sent: list[tuple[Tensor, Any]] = []

    def begin(self, plan: Sequence[NDArray[np.int64]]) -> None:
        """These batches are to come, in this order; what was planned before is forgotten."""
        self.close()
        self._planned = list(plan)
        if not self._planned:
            return
        for host in self.hosts:
            self._free.put(host)
        self._worker = threading.Thread(
            target=_gather,
            args=(self.films, list(plan), self._free, self._ready),
            name="hilum-films",
            daemon=True,
        )
        self._worker.start()

    def fetch(self, batch: NDArray[np.int64]) -> Tensor:
        """The batch's films (n, s, s) uint8 on the device, until ``BUFFERS`` fetches later.

        The host does not wait for the device, and only for the thread where the disk is slower
        than the device. A batch that is not the next one of the plan is gathered now.

        Raises
        ------
        Exception
            Whatever the thread met while it gathered this batch.
        """
        if not self._planned or not np.array_equal(batch, self._planned[0]):
            self.close()
            host = torch.from_numpy(self.films.pixels[self.films.rows[batch]])
            return self._send(host.pin_memory() if self.copies else host)[0]
        self._planned.pop(0)
        gathered = self._ready.get()
        if gathered.error is not None:
            self.close()
            raise gathered.error
        target, copied = self._send(gathered.host[: len(batch)])
        self._sent.append((gathered.host, copied))
        if len(self._sent) > BUFFERS:
            host, copied = self._sent.pop(0)
            if copied is not None:
                copied.synchronize()  # long done, unless the device is two batches behind
            self._free.put(host)
        return target

    def __del__(self) -> None:
        self._free.put(None)  # a thread that nobody fetches from any more ends

    def close(self) -> None:
        """End the thread and forget the plan."""
        if self._worker is not None:
            self._free.put(None)
            self._worker.join()
        for _, copied in self._sent:
            if copied is not None:
                copied.synchronize()  # its host memory is about to be filled again
        self._worker, self._planned, self._sent = None, [], []
        self._free, self._ready = queue.SimpleQueue(), queue.SimpleQueue()

    def _send(self, host: Tensor) -> tuple[Tensor, Any]:
        """Start the copy to the next buffer; the buffer, and the event after the copy."""
        turn, self._turn = self._turn % BUFFERS, self._turn + 1
        target = self.buffers[turn][: len(host)]
        if self.copies is None:
            return target.copy_(host), None
        now = torch.cuda.current_stream(self.device)
        # Whoever reads the buffer before this one has queued that by now.
        self._read[turn - 1] = now.record_event()
        if self._read[turn] is not None:
            self.copies.wait_event(self._read[turn])
        with torch.cuda.stream(self.copies):
            target.copy_(host, non_blocking=True)
            copied = self.copies.record_event()
        now.wait_event(copied)
        return target, copied


def _gather(
    films: Films,
    plan: list[NDArray[np.int64]],
    free: queue.SimpleQueue[Tensor | None],
    ready: queue.SimpleQueue[_Gathered],
) -> None:
    """Fill free memory with the plan's batches until it ends or None comes."""
    for batch in plan:
        host = free.get()
        if host is None:
            return
        try:
            np.take(films.pixels, films.rows[batch], 0, out=host.numpy()[: len(batch)])
            ready.put(_Gathered(host))
        except BaseException as error:  # told to whoever fetches the batch
            ready.put(_Gathered(host, error))
            return
