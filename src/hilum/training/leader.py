"""The process that leads a group on one machine: it starts the workers, follows and ends them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import distributed

from hilum import machine
from hilum.errors import HilumError, WorkerLost
from hilum.machine import Place
from hilum.progress import Progress
from hilum.training.group import STORE
from hilum.training.rollcall import rebuilt
from hilum.training.run import Run


def lead(run: Run, place: Place, progress: Progress) -> None:
    """Start the workers of a run whose folder is ready, follow them, and see them end.

    Raises
    ------
    WorkerLost
        One of them died; the others are ended and the last checkpoint is whole.
    HilumError
        Whatever stopped them.
    """
    cores = place.processes * max(1, place.threads)
    if place.kind == "cpu" and cores > machine.cores():
        progress.warn(
            f"{place} wants {cores} cores and there are {machine.cores()}: the processes wait for "
            f"each other at every step, about {cores / machine.cores():.1f} times as long or more."
        )
    # The store takes a free port itself, so none can be in use.
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    workers: list[subprocess.Popen[str]] = []
    try:
        for rank in range(place.processes):
            workers.append(_start(run.folder, rank, place.processes, store.port))
            threading.Thread(
                target=_listen, args=(rank, workers[rank], events), daemon=True
            ).start()
        _follow(run, workers, events, progress)
    finally:
        _end(workers)


def _start(folder: Path, rank: int, size: int, port: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size),
                   STORE: f"127.0.0.1:{port}"}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "hilum.training.worker", str(folder)],
        env=environment,
        stdin=subprocess.PIPE,  # closes when this process ends, however it ends
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the leader, which then ends them in order
    )


def _listen(rank: int, worker: subprocess.Popen[str], events: queue.Queue[Any]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        try:
            events.put((rank, json.loads(line)))
        except ValueError:
            sys.stderr.write(line)  # a library's own word, not hilum's
    worker.wait()
    events.put((rank, None))


def _follow(
    run: Run, workers: list[subprocess.Popen[str]], events: queue.Queue[Any], progress: Progress
) -> None:
    """Pass on what rank 0 reports until all have ended well."""
    running = set(range(len(workers)))
    failed: HilumError | None = None
    with ExitStack() as stages:
        advance: Callable[[int], None] = lambda steps: None  # noqa: E731
        while running:
            rank, event = events.get()
            if event is None:
                running.discard(rank)
                if workers[rank].returncode:
                    raise failed or _lost(run, workers, events)
            elif "stage" in event:
                stages.close()
                stage = progress.stage(event["stage"], event["total"], brief=event["brief"])
                advance = stages.enter_context(stage)
            elif "advance" in event:
                advance(event["advance"])
            elif "row" in event:
                stages.close()
                progress.row("training", event["row"])
            elif "error" in event and failed is None:
                failed = rebuilt(event["error"], event["text"])


def _lost(run: Run, workers: list[subprocess.Popen[str]], events: queue.Queue[Any]) -> HilumError:
    """What to say when a worker has ended badly without a word; the killed one is the cause."""
    until = time.monotonic() + 2
    while time.monotonic() < until and not any((w.poll() or 0) < 0 for w in workers):
        try:
            _, event = events.get(timeout=0.1)
        except queue.Empty:
            continue
        if event and "error" in event:
            return rebuilt(event["error"], event["text"])
    code, rank = min((w.poll() or 0, rank) for rank, w in enumerate(workers))
    if code == 0:
        code, rank = max((w.poll() or 0, rank) for rank, w in enumerate(workers))
    why = f"signal {-code}" if code < 0 else f"exit code {code}"
    done = len(run.epochs)
    return WorkerLost(
        f"a training process was lost: number {rank + 1} of {len(workers)} ({why}), after epoch "
        f"{done}, whose checkpoint is whole. {run.resume_line}."
    )


def _end(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()  # checkpoints are atomic, so nothing can be torn
    for worker in workers:
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                stream.close()
