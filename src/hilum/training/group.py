"""Data-parallel training by torch's own engine: gloo between CPU processes, NCCL between GPUs.

Each process holds the whole network and takes its share of every global batch; gradients are
summed while the way back still runs. So the batch, the order, the augmentation and (but for
networks with batch statistics, which each process takes from its own share) the result are those
of one process. A run of ``cpu:PxT`` or ``cuda:K`` starts its workers itself, each as
``python -m hilum.training.group RUN``; under torchrun the processes are there already.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from hilum import errors, machine
from hilum.errors import HilumError, WorkerLost
from hilum.machine import Place
from hilum.progress import Progress
from hilum.training.run import Run

STORE = "HILUM_STORE"
PATIENCE = timedelta(minutes=10)


class Group:
    """The processes that train together, as one of them sees it.

    Attributes
    ----------
    rank : this process's number; 0 alone writes and reports
    size : how many there are
    device : the device of this process
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What ``make`` gives on rank 0, on every rank; what it raises there, everywhere."""
        box: list[Any] = [None, None, None]
        if self.rank == 0:
            try:
                box[0] = make()
            except HilumError as error:
                box[1:] = [type(error).__name__, str(error)]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        if box[1] is not None:
            raise rebuilt(box[1], box[2])
        return box[0]

    def share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The films of a global batch that this process takes."""
        return batch[self.rank :: self.size]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes on the way back."""
        with warnings.catch_warnings():
            # Its new name exists from torch 2.13 on; buffers are ours to agree on.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                network, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over the processes, element by element."""
        both = torch.from_numpy(values).to(self.device)
        distributed.all_reduce(both)
        return both.cpu().numpy()

    def gathered(self, values: NDArray[np.float64], places: NDArray[np.int64], n: int) -> Any:
        """(n,) values by film; each film is one process's, so none is counted twice."""
        mine = np.zeros(n)
        mine[places] = values
        return self.total(mine)

    def agree(self, network: nn.Module) -> None:
        """Make running statistics the mean of the processes'."""
        for value in network.buffers():
            if value.is_floating_point():
                distributed.all_reduce(value)
                value /= self.size


def rebuilt(kind: str, text: str) -> HilumError:
    """An error of ``hilum.errors`` from its name and message."""
    error = getattr(errors, kind, HilumError)(text)
    assert isinstance(error, HilumError)
    return error


def by_torchrun() -> bool:
    """Whether torchrun (or a like launcher) has started this process as one of several."""
    return STORE not in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(place: Place) -> Iterator[Group]:
    """Join the group that the environment names: that of ``lead``, or torchrun's."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device(place.device)
    if place.kind == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    backend = "nccl" if place.kind == "cuda" else "gloo"
    distributed.init_process_group(
        backend, store=_store(), rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        yield Group(rank, size, device)
    finally:
        distributed.destroy_process_group()


def _store() -> distributed.Store:
    """Where the processes of a group find each other."""
    if STORE in os.environ:
        host, _, port = os.environ[STORE].partition(":")
        first = False
    else:
        host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        first = os.environ["RANK"] == "0" and not served
    store = distributed.TCPStore(
        host, int(port), is_master=first, wait_for_workers=False, timeout=PATIENCE
    )
    # torchrun keeps one store over its restarts, and with it the addresses of the dead.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return distributed.PrefixStore(f"hilum/{attempt}", store)


# --- the process that leads ---------------------------------------------------------------------


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
        [sys.executable, "-m", "hilum.training.group", str(folder)],
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


# --- a worker -----------------------------------------------------------------------------------


class Telling(Progress):
    """Progress as JSON lines to the leader."""

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, *, brief: bool = False
    ) -> Iterator[Callable[[int], None]]:
        tell(stage=name, total=total, brief=brief)
        told, waiting = time.monotonic(), 0

        def advance(steps: int = 1) -> None:
            nonlocal told, waiting
            waiting += steps
            if time.monotonic() - told > 0.2:
                tell(advance=waiting)
                told, waiting = time.monotonic(), 0

        yield advance
        tell(advance=waiting)

    def row(self, table: str, values: dict[str, object]) -> None:
        tell(row=values)

    def warn(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


def tell(**event: object) -> None:
    """One event to the leader, as a line of JSON on the pipe that is this worker's stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _die_with_the_leader() -> None:
    os.read(0, 1)  # nothing ever comes but the end
    os._exit(1)


def main(folder: str) -> int:
    """One worker: train the run in ``folder`` as the environment's rank; its exit code."""
    from hilum.training.train import work

    threading.Thread(target=_die_with_the_leader, daemon=True).start()
    try:
        work(Run(Path(folder)), Telling() if os.environ["RANK"] == "0" else Progress())
    except HilumError as error:
        tell(error=type(error).__name__, text=str(error))
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: what others wait for must not hang on threads of a group that broke
