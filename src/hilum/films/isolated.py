"""The worker's side of ``workers``: a process that decodes what it is given, and says where it is.

Imports little: what the given function needs is all that a worker should hold.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from hilum.errors import HilumError, UnreadableFilm
from hilum.films.limits import bound_memory
from hilum.films.wire import Wire

Function = Callable[[Any], Any]

_TOGETHER = 64  # answers sent in one message, unless the first has waited this long:
_PATIENCE = 0.1  # seconds
PAGE = mmap.ALLOCATIONGRANULARITY
SHARED = 32 << 20  # bytes for pixels on their way, half for a batch; only touched ones count


class Board:
    """Which item of its batch a worker is at (-1: none yet), and since when (monotonic).

    Two numbers in shared memory, each written by one store. Packed together by ``struct`` they
    are zero for an instant, and a caller that looks just then sees a film begun at time 0.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._cells = memoryview(memory).cast("d")

    def begin(self, place: int) -> None:
        self._cells[1] = time.monotonic()
        self._cells[0] = place

    def read(self) -> tuple[int, float]:
        return int(self._cells[0]), self._cells[1]


def mapped(descriptor: int) -> tuple[mmap.mmap, mmap.mmap]:
    """What a caller and its worker share: the board, and memory for pixels on their way."""
    return mmap.mmap(descriptor, 16), mmap.mmap(descriptor, SHARED, offset=PAGE)


class WorkerDefect(RuntimeError):
    """What a function raised in a worker, its traceback as text: a defect of hilum's."""


def serve(descriptor: int, shared: int) -> None:
    """A worker's life: a function, then batches and answers, until the end of file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory_of_board, pixels = mapped(shared)
    board = Board(memory_of_board)
    wire = Wire(socket.socket(fileno=descriptor), outgoing=pixels)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        memory = wire.receive()
        function: Function | None = None
        while True:
            kind, content = wire.receive()
            if kind == "function":
                first, function = function is None, pickle.loads(content)
                if first:
                    bound_memory(memory)  # only now all that the function needs is imported
                continue
            assert function is not None
            wire.turn()
            try:
                for answers in _batch(function, content, board, wire):
                    wire.send(("answers", answers))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except HilumError as error:
                wire.send(("defect", error))
            except Exception:
                wire.send(("defect", WorkerDefect(traceback.format_exc())))


def _batch(function: Function, items: list[Any], board: Board, wire: Wire) -> Iterator[list[Any]]:
    """Answers to the items, some at a time; the board says which item is at work."""
    answers: list[Any] = []
    sent = time.monotonic()
    for place, item in enumerate(items):
        now = time.monotonic()
        if answers and (len(answers) >= _TOGETHER or now > sent + _PATIENCE):
            yield answers
            answers, sent = [], now
        board.begin(place)
        answers.append(wire.lay(_answer(function, item)))
    yield answers


def _answer(function: Function, item: Any) -> Any:
    try:
        return function(item)
    except UnreadableFilm as error:
        return error
    except MemoryError:
        return UnreadableFilm("too-large", "the film needs more memory than is allowed")
