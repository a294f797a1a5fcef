"""Films decoded in processes of their own: a codec that crashes or hangs costs one film.

Each worker is a fresh interpreter that talks over a socket pair. It does not import the caller's
``__main__`` (so scripts need no guard), imports only what the given function needs, bounds its own
memory, ignores the keyboard's interrupt and ends when its caller does.

    with Workers(2) as workers:
        for number, answer in workers.map(function, paths):
            ...  # what function returned, or an UnreadableFilm
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

from hilum.errors import Refused, UnreadableFilm, UsageError
from hilum.films.isolated import PAGE, SHARED, Board, Function, WorkerDefect, mapped
from hilum.films.wire import Wire, shared_memory
from hilum.machine import thread_settings

__all__ = ["WorkerDefect", "Workers"]

Task = tuple[int, Any]  # an item's number, and the item or its answer

SECONDS = 60.0
MEMORY = 4 << 30

_START = "import sys; from hilum.films.isolated import serve; serve(*map(int, sys.argv[1:]))"
_QUICK = 0.05  # seconds; a batch done sooner is followed by a larger one, for each costs a wake-up
_GROWTH = 2  # times ``chunk``, at most; 4 measured no better, and holds twice the memory
_STOPPED = 1.0  # seconds that a wait takes too long where this process was stopped meanwhile
_STARTS = 2  # workers in a row that may fail to start
_START_SECONDS = 300.0  # to start and to import what the function needs, on however busy a machine


class Workers:
    """A pool of isolated processes; they start when there is work and stay until ``close``.

    Parameters
    ----------
    count : processes; 0 runs everything in this process, without isolation or limits
    seconds : time for one film, after which its worker is killed (``timeout``)
    memory : bytes of address space that one worker may take beyond what it starts with; more is
        one ``too-large`` film, or a ``crashed`` one where a codec does not survive it
    """

    def __init__(
        self, count: int | None = None, *, seconds: float = SECONDS, memory: int = MEMORY
    ) -> None:
        if count is None:
            from hilum.machine import cores

            count = cores()
        self.count = count
        self.seconds = seconds
        self.memory = memory
        self._workers: list[_Worker] = []
        self._stillborn = 0  # workers lost before they answered at all, since the last answer

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are at."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def map(
        self,
        function: Function,
        items: Iterable[Any],
        *,
        chunk: int = 32,
        ordered: bool = False,
    ) -> Iterator[Task]:
        """Apply ``function`` to each item; answers come as they are ready.

        Parameters
        ----------
        function : importable by name, or a ``functools.partial`` of such a one; may raise
            ``UnreadableFilm``, which becomes the answer. Any other exception is a defect and is
            raised here. After a crash a few items may be done twice.
        items : read as they are needed, so memory does not grow with their number
        chunk : items that are handed to a worker at once, up to twice as many where they
            prove quick; small where films are few or slow
        ordered : yield in the order of ``items``

        Yields
        ------
        (number, answer) : the item's place, and what the function returned or ``UnreadableFilm``
        """
        if self.count == 0:
            yield from _here(function, items)
            return
        answers = self._answers(function, items, chunk)
        if not ordered:
            yield from answers
            return
        expected, early = 0, {}
        for number, answer in answers:
            early[number] = answer
            while expected in early:
                yield expected, early.pop(expected)
                expected += 1

    def _answers(self, function: Function, items: Iterable[Any], chunk: int) -> Iterator[Task]:
        main = getattr(function, "func", function)
        if getattr(main, "__module__", None) == "__main__":
            raise UsageError(
                f"a worker cannot import it: {main.__name__} of __main__. Put it into a module."
            )
        packed = pickle.dumps(function)
        tasks = _Tasks(items)
        idle = [worker for worker in self._workers if worker.process.poll() is None]
        busy: list[_Worker] = []
        try:
            while True:
                while (idle or len(busy) < self.count) and (batch := tasks.take(chunk)):
                    if not idle:
                        self._workers.append(_Worker(self.memory))
                        idle.append(self._workers[-1])
                    worker = idle.pop()
                    worker.give(packed, batch)
                    busy.append(worker)
                if not busy:
                    return
                deadline = min(worker.deadline(self.seconds) for worker in busy)
                now = time.monotonic()
                silence = min(1.0, max(0.01, deadline - now))
                heard = wait([worker.wire.end for worker in busy], silence)
                if time.monotonic() > now + silence + _STOPPED:
                    for worker in busy:
                        worker.resumed = time.monotonic()
                for worker in list(busy):
                    lost = None
                    answers: list[Task] = []
                    if worker.wire.end in heard:
                        try:
                            answers = worker.hear()
                            self._stillborn = 0
                        except (EOFError, OSError, pickle.UnpicklingError):
                            lost = UnreadableFilm("crashed", "the decoder crashed on this file")
                    elif time.monotonic() > worker.deadline(self.seconds):
                        lost = UnreadableFilm(
                            "timeout", f"decoding took longer than {self.seconds:g} seconds"
                        )
                    if lost is not None:
                        busy.remove(worker)
                        yield from self._bury(worker, lost, tasks)
                    elif not worker.batch:  # it decodes on while the caller takes these answers
                        if batch := tasks.take(worker.times() * chunk):
                            worker.give(packed, batch)
                        else:
                            busy.remove(worker)
                            idle.append(worker)
                    for number, answer in answers:
                        yield number, worker.wire.lift(answer)
        finally:
            for worker in busy:  # the caller stopped early, or a defect was raised
                worker.kill()
                self._workers.remove(worker)

    def _bury(self, worker: _Worker, lost: UnreadableFilm, tasks: _Tasks) -> Iterator[Task]:
        """Blame the film it was at, if any; what it had not answered otherwise is done again."""
        place, _ = worker.at()
        worker.kill()
        self._workers.remove(worker)
        self._stillborn += place < 0 and not worker.proved
        if self._stillborn > _STARTS:  # one may meet the kernel's out-of-memory killer, say
            raise Refused(
                "worker processes cannot start here: exit code "
                f"{worker.process.returncode}. Go on without them: --workers 0."
            )
        left = list(worker.batch)
        blamed = place - worker.heard
        tasks.again.extend(task for number, task in enumerate(left) if number != blamed)
        if 0 <= blamed < len(left):
            yield left[blamed][0], lost


class _Tasks:
    """Numbered items, those first that a lost worker has left undone."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.again: deque[Task] = deque()
        self._rest = enumerate(items)

    def take(self, count: int) -> list[Task]:
        batch: list[Task] = []
        while len(batch) < count:
            task = self.again.popleft() if self.again else next(self._rest, None)
            if task is None:
                break
            batch.append(task)
        return batch


def _here(function: Function, items: Iterable[Any]) -> Iterator[Task]:
    for number, item in enumerate(items):
        try:
            yield number, function(item)
        except UnreadableFilm as error:
            yield number, error


class _Worker:
    """The caller's end of one process: the batch that it was given, less what it answered."""

    def __init__(self, memory: int) -> None:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, **thread_settings(1)}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with theirs, shared_memory(PAGE + SHARED) as file:
            shared = file.fileno()
            board, pixels = mapped(shared)
            self._board = Board(board)
            self._board.begin(-1)
            ends = (theirs.fileno(), shared)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, *map(str, ends)],
                pass_fds=ends,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # codecs write there as they please
                stderr=subprocess.DEVNULL,
            )
        self.wire = Wire(ours, incoming=pixels)
        with contextlib.suppress(OSError):  # as below
            self.wire.send(memory)
        self.batch: deque[Task] = deque()
        self.heard = 0  # answers of this batch so far
        self.resumed = 0.0  # when it went on after a stop of all processes (Ctrl-Z)
        self.proved = False  # it has started and answered: worker processes are possible here
        self._function = b""
        self._given = 0.0  # when it was given its batch
        self._times = 1

    def at(self) -> tuple[int, float]:
        """Which item of its batch the worker is at, and since when."""
        return self._board.read()

    def deadline(self, seconds: float) -> float:
        """When it must have finished the item it is at."""
        place, since = self.at()
        since = max(since, self.resumed)
        return since + (seconds if place >= 0 else max(seconds, _START_SECONDS))

    def times(self) -> int:
        """How many times the usual number of items its next batch should have."""
        quick = time.monotonic() < self._given + _QUICK
        self._times = min(_GROWTH, 2 * self._times) if quick else max(1, self._times // 2)
        return self._times

    def give(self, function: bytes, batch: list[Task]) -> None:
        self.batch.extend(batch)
        self.heard = 0
        self._board.begin(-1)
        self._given = time.monotonic()
        with contextlib.suppress(OSError):  # it died just now: noticed where it is listened to
            if function != self._function:
                self.wire.send(("function", function))
                self._function = function
            self.wire.send(("items", [item for _, item in batch]))

    def hear(self) -> list[Task]:
        """The answers in the next message, their arrays still to be lifted."""
        kind, content = self.wire.receive()
        self.proved = True
        if kind == "defect":
            raise content
        self.heard += len(content)
        return [(self.batch.popleft()[0], answer) for answer in content]

    def kill(self) -> None:
        self.wire.close()
        self.process.kill()
        self.process.wait()
