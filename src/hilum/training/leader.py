"""The process that leads a group on one machine: it starts the workers, follows and ends them."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from torch import distributed

from hilum.errors import HilumError, WorkerLost
from hilum.machine import Place
from hilum.progress import Progress, Retelling, heard
from hilum.training.meeting import member
from hilum.training.rollcall import rebuilt
from hilum.training.run import Run

DEFECT = 1  # the exit code of a worker with a traceback


def lead(run: Run, place: Place, progress: Progress) -> None:
    """Start the workers of a run whose folder is ready, follow them, and see them end.

    Raises
    ------
    WorkerLost
        One of them died; the others are ended and the last checkpoint is whole.
    HilumError
        Whatever stopped them.
    RuntimeError
        A defect in one of them, which has written its traceback to the screen.
    """
    # The store takes a free port itself, so none can be in use.
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    workers: list[subprocess.Popen[str]] = []
    listeners: list[threading.Thread] = []
    try:
        for rank in range(place.processes):
            workers.append(_start(run.folder, rank, place.processes, store.port))
            given = rank, workers[rank], events
            listener = threading.Thread(target=_listen, args=given, daemon=True)
            listener.start()
            listeners.append(listener)  # not before: one that never began cannot be waited for
        _follow(run, workers, events, progress)
    finally:
        _end(workers, listeners)


def _start(folder: Path, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hilum.training.worker", str(folder)],
        env=member(rank, size, port),
        stdin=subprocess.PIPE,  # closes when this process ends, however it ends
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the leader, which then ends them in order
    )


def _listen(rank: int, worker: subprocess.Popen[str], events: queue.Queue[Any]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        event = heard(line)
        if event is not None:
            events.put((rank, event))
        else:
            sys.stderr.write(line)  # a library's own word, not hilum's
    worker.wait()
    events.put((rank, None))


def _follow(
    run: Run, workers: list[subprocess.Popen[str]], events: queue.Queue[Any], progress: Progress
) -> None:
    """Pass on what rank 0 reports until all have ended well."""
    running = set(range(len(workers)))
    failed: HilumError | None = None
    with Retelling(progress) as told:
        while running:
            rank, event = events.get()
            if event is None:
                running.discard(rank)
                if workers[rank].returncode:
                    raise _reason(run, workers, events, failed)
            elif "error" in event:
                failed = failed or rebuilt(event["error"], event["text"])
            else:
                told.take(event)


def _reason(
    run: Run,
    workers: list[subprocess.Popen[str]],
    events: queue.Queue[Any],
    failed: HilumError | None,
) -> Exception:
    """Why a worker has ended badly: a defect, the workers' own word, or else one that was killed.

    A word that another was lost is not the last one: the other may be about to say why.
    """
    until = time.monotonic() + 2
    while failed is None or isinstance(failed, WorkerLost):
        codes = [worker.poll() or 0 for worker in workers]
        if DEFECT in codes:
            return RuntimeError("a training process has failed; its traceback stands above")
        if time.monotonic() > until or (failed is None and min(codes) < 0):
            break
        try:
            _, event = events.get(timeout=0.1)
        except queue.Empty:
            continue
        if event and "error" in event:
            failed = failed or rebuilt(event["error"], event["text"])
    if failed is not None:
        return failed
    code, rank = min((w.poll() or 0, rank) for rank, w in enumerate(workers))
    if code == 0:
        code, rank = max((w.poll() or 0, rank) for rank, w in enumerate(workers))
    why = f"signal {-code}" if code < 0 else f"exit code {code}"
    done = len(run.epochs)
    when = f"after epoch {done}, whose checkpoint is whole" if done else "in its first epoch"
    return WorkerLost(
        f"a training process was lost: number {rank + 1} of {len(workers)} ({why}), {when}. "
        f"{run.resume_line}."
    )


def _end(workers: list[subprocess.Popen[str]], listeners: list[threading.Thread]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()  # checkpoints are atomic, so nothing can be torn
    for worker, listener in zip(workers, listeners, strict=False):
        worker.wait()
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.close()
        listener.join(1)
        if not listener.is_alive():  # else a process of the worker's own still holds its end
            worker.stdout.close()
