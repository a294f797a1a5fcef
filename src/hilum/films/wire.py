"""Whole objects over a socket, arrays without a copy (pickle protocol 5, PEP 574)."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

_HEAD = struct.Struct("<QI")  # bytes of the pickle, number of buffers beside it
_SIZE = struct.Struct("<Q")


class Wire:
    """One end of a connected socket; only for a process of one's own at the other end."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, content: Any) -> None:
        """Send an object; waits until the other end has taken nearly all of it."""
        beside: list[pickle.PickleBuffer] = []
        data = pickle.dumps(content, protocol=5, buffer_callback=beside.append)
        raw = [buffer.raw() for buffer in beside]
        head = _HEAD.pack(len(data), len(raw))
        sizes = b"".join(_SIZE.pack(buffer.nbytes) for buffer in raw)
        self.end.sendall(head + sizes + data if len(data) < 1 << 16 else head + sizes)
        if len(data) >= 1 << 16:
            self.end.sendall(data)
        for buffer in raw:
            self.end.sendall(buffer)

    def receive(self) -> Any:
        """The next object; raises ``EOFError`` when the other end has gone."""
        length, count = _HEAD.unpack(self._take(_HEAD.size))
        sizes = [size for (size,) in _SIZE.iter_unpack(self._take(count * _SIZE.size))]
        data = self._take(length)
        return pickle.loads(data, buffers=[self._take(size) for size in sizes])

    def close(self) -> None:
        self.end.close()

    def _take(self, count: int) -> bytearray:
        taken = bytearray(count)
        rest = memoryview(taken)
        while rest:
            got = self.end.recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return taken
