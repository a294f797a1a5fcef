"""Whole objects over a socket, arrays beside it (pickle protocol 5, PEP 574).

An array crosses in memory that both ends share where there is room, else through the socket too:
a film of 50 kB through a socket takes as long as a fifth of its decoding. An answer that is itself
an array is laid there as soon as it is made and only its place is pickled: kept until the message
is sent, sixteen films drive each other out of the processor's cache, and numpy's own pickling costs
more than the copy.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
import tempfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<QI")  # bytes of the pickle, number of buffers beside it
_BUFFER = struct.Struct("<Qq")  # bytes of a buffer, its place in the shared memory; -1: it follows


# An answer as it crosses: itself and None, or None and where its array lies in the shared memory
# (first byte, bytes, shape, dtype). Plain tuples: a class of one's own takes ten times as long to
# pickle.
Laid = tuple[int, int, tuple[int, ...], str]
Crossing = tuple[Any, Laid | None]


def shared_memory(size: int) -> IO[bytes]:
    """Zeros to be mapped by two processes: a file without a name, and on Linux without a disk."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("hilum"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by whoever asked for it)
    file.truncate(size)
    return file


class Wire:
    """One end of a connected socket; only for a process of one's own at the other end.

    Parameters
    ----------
    incoming, outgoing : memory shared with the other end, whose ``outgoing`` is our ``incoming``
    """

    def __init__(
        self,
        end: socket.socket,
        *,
        incoming: mmap.mmap | None = None,
        outgoing: mmap.mmap | None = None,
    ) -> None:
        self.end = end
        self._incoming = incoming
        self._outgoing = outgoing
        self._half = len(outgoing) // 2 if outgoing is not None else 0
        self._used, self._end = 0, self._half  # of ``outgoing``: filled up to, and may be

    def turn(self) -> None:
        """Use the other half of the shared memory, from its start.

        What was laid before the last turn must have been lifted; what was laid since may wait.
        """
        self._used = self._half if self._end == self._half else 0
        self._end = self._used + self._half

    def lay(self, answer: Any) -> Crossing:
        """Put an answer that is an array of numbers into the shared memory, if there is room."""
        if type(answer) is np.ndarray and answer.dtype.kind in "buif" and answer.flags.c_contiguous:
            place = self._share(answer)
            if place >= 0:
                return None, (place, answer.nbytes, answer.shape, answer.dtype.str)
        return answer, None

    def lift(self, crossing: Crossing) -> Any:
        """The answer that the other end laid; an array is a copy."""
        answer, laid = crossing
        if laid is None:
            return answer
        place, count, shape, dtype = laid
        return np.ndarray(shape, dtype, self._fetch(count, place))

    def send(self, content: Any) -> None:
        """Send an object; waits until the other end has taken nearly all of it."""
        beside: list[pickle.PickleBuffer] = []
        data = pickle.dumps(content, protocol=5, buffer_callback=beside.append)
        raw = [buffer.raw() for buffer in beside]
        places = [self._share(buffer) for buffer in raw]
        head = _HEAD.pack(len(data), len(raw)) + b"".join(
            _BUFFER.pack(buffer.nbytes, place) for buffer, place in zip(raw, places, strict=True)
        )
        if len(data) < 1 << 16:
            self.end.sendall(head + data)
        else:
            self.end.sendall(head)
            self.end.sendall(data)
        for buffer, place in zip(raw, places, strict=True):
            if place < 0:
                self.end.sendall(buffer)

    def receive(self) -> Any:
        """The next object; raises ``EOFError`` when the other end has gone."""
        length, count = _HEAD.unpack(self._take(_HEAD.size))
        buffers = list(_BUFFER.iter_unpack(self._take(count * _BUFFER.size)))
        data = self._take(length)
        return pickle.loads(data, buffers=[self._fetch(*buffer) for buffer in buffers])

    def close(self) -> None:
        self.end.close()

    def _share(self, buffer: memoryview | NDArray[Any]) -> int:
        """Put a buffer into the shared memory; its place, -1 where there is no room."""
        place = self._used
        if self._outgoing is None or place + buffer.nbytes > self._end:
            return -1
        self._outgoing[place : place + buffer.nbytes] = buffer  # type: ignore[assignment]
        self._used += buffer.nbytes
        return place

    def _fetch(self, count: int, place: int) -> bytearray:
        if place < 0:
            return self._take(count)
        assert self._incoming is not None
        with memoryview(self._incoming) as view:
            return bytearray(view[place : place + count])  # a copy: the memory will be used again

    def _take(self, count: int) -> bytearray:
        taken = bytearray(count)
        rest = memoryview(taken)
        while rest:
            got = self.end.recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return taken
