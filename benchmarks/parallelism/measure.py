"""The measurements: each part is a function of ``Scale`` and gives plain values for a JSON file.

step       the paper's own network at 500 × 500: time and bytes an update, by way
link       the same where all processes share one link of a stated rate
learn-S    updates and seconds to the same loss, by way, seed S
stale-S    asynchronous SGD with 4 and 8 workers: staleness, and updates to the same loss
delay      how long gradients wait for the parameter server, with 1 to 8 sleeping workers
batch      batch size against updates to the same loss
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import server
import split
import task as tasks
import ways
from group import context, launch
from numpy.typing import NDArray
from task import Model, Task

from hilum import heap, machine

PERIOD, TOGETHER = 8, 40  # of periodic averaging: updates apart, and how many are synchronous first
TARGET = 0.45  # the loss to reach: half of films told apart at random give 0.69
WINDOW = 5  # a loss is the median of so many copies in a row: single ones jump
WORKERS = (1, 2, 4, 8)
THINK = 0.06  # seconds that a worker of the delay's measurement sleeps for a gradient
LINK = "1gbit"


@dataclass(frozen=True)
class Way:
    """A row of the tables: ``kind`` of the function in ``ways``, ``server`` or ``split``."""

    words: str
    processes: int  # that hold a part of the batch
    run: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    served: int = 0  # processes besides
    shards: int = 0  # processes that hold one network together


WAYS = {
    "one": Way("one process", 1, ways.alone),
    "after": Way("synchronous, exchange after", 2, ways.after),
    "overlapped": Way("synchronous, overlapped", 2, ways.overlapped),
    "periodic": Way(f"periodic averaging, 1 in {PERIOD}", 2, ways.periodic, (PERIOD, TOGETHER)),
    "server": Way("asynchronous, parameter server", 2, server.asynchronous, served=1),
    "hogwild": Way("asynchronous, shared memory", 2, ways.hogwild),
    "model": Way("model parallel, dense layers", 2, split.split, (2, True), shards=2),
    "trick": Way("data + model parallel", 2, split.split, (2, False), shards=2),
    "after 4": Way("synchronous, exchange after", 4, ways.after),
    "gossip": Way("gossip on a ring", 4, ways.gossip),
    "hybrid": Way("hybrid 2 × 2", 4, split.split, (2, False), shards=2),
}


@dataclass(frozen=True)
class Scale:
    """How much is measured. ``folder`` holds the films, drawn once for all parts."""

    folder: Path
    quick: bool = False

    def task(self, seed: int) -> Task:
        """The network at 126 × 126 pixels: 115,457 parameters."""
        count, held_out, size = (256, 64, 94) if self.quick else (896, 128, 126)
        films = self._films("small", count, size)
        updates = 32 if self.quick else 300
        return Task(films, size, held_out, seed, updates=updates, every=4 if self.quick else 10)

    def true_task(self) -> Task:
        """The paper's: 500 × 500 pixels, batch 16, 1,467,137 parameters."""
        size = 190 if self.quick else 500
        updates = PERIOD if not self.quick else 2
        return Task(self._films("true", 32, size), size, 0, updates=updates, every=10**6)

    def _films(self, name: str, count: int, size: int) -> str:
        place = self.folder / name
        return str(place) if place.exists() else tasks.make_films(place, count, size)


def group_run(way: Way, task: Task) -> dict[str, Any]:
    """One run of one way: what its first process tells; time, bytes and staleness of all."""
    results = launch(way.processes + way.served, way.run, task, *way.arguments)
    first = results[0]
    holders = [first] if way.run in (server.asynchronous, ways.hogwild) else results
    first["copies"] = [
        (done, seconds, together(task, way, [r["copies"][i][2] for r in holders]))
        for i, (done, seconds, _) in enumerate(first["copies"])
    ]
    first["cpu"] = sum(r["cpu"] for r in results)
    first["sent"] = [r["sent"] for r in results]
    first["spoken"] = [r.get("spoken") for r in results]
    first["staleness"] = [s for r in results for s in r.get("staleness", [])]
    return first


def together(task: Task, way: Way, parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The one network that the processes stand for: their mean, or the pieces put together."""
    if way.shards:
        return split.merge(task, parts[: way.shards])
    middle: NDArray[np.float32] = np.mean(parts, axis=0)
    return middle


def judged(task: Task, copies: list[Any]) -> list[float]:
    """Held-out loss of every copy, on all cores."""
    with context().Pool(machine.cores(), machine.set_threads, (1,)) as pool:
        losses: list[float] = pool.map(task.held_out_loss, [weights for _, _, weights in copies])
    return losses


def smooth(losses: list[float]) -> list[float]:
    """From the ``WINDOW``-th on, the median of the last ``WINDOW``."""
    return [statistics.median(losses[i - WINDOW : i]) for i in range(WINDOW, len(losses) + 1)]


def reached(losses: list[float]) -> int | None:
    """Number of the copy at which the smoothed loss is down to the target."""
    return next((i + WINDOW - 1 for i, x in enumerate(smooth(losses)) if x <= TARGET), None)


def summary(task: Task, run: dict[str, Any]) -> dict[str, Any]:
    """A run with its losses: the weights themselves are let go."""
    losses = judged(task, run["copies"])
    done, seconds = [c[0] for c in run["copies"]], [c[1] for c in run["copies"]]
    at = reached(losses)
    return {
        "updates": done,
        "seconds": [round(s, 3) for s in seconds],
        "loss": [round(x, 4) for x in losses],
        "to_target": None if at is None else {"updates": done[at], "seconds": seconds[at]},
        "final_loss": smooth(losses)[-1],
        "ms_an_update": 1e3 * run["seconds"] / task.updates,
        "cpu_ms_an_update": 1e3 * run["cpu"] / task.updates,
        "sent_an_update": [s / task.updates for s in run["sent"]],
        "staleness": np.bincount(run["staleness"]).tolist() if run["staleness"] else None,
    }


def step(scale: Scale) -> dict[str, Any]:
    """Time and bytes of an update of the paper's own network, as many as a period has."""
    task, rows = scale.true_task(), {}
    in_period = replace(WAYS["periodic"], arguments=(PERIOD, 0))
    for name, way in WAYS.items():
        run = group_run(in_period if name == "periodic" else way, task)
        rows[name] = {
            "ms": 1e3 * run["seconds"] / task.updates,
            "cpu_ms": 1e3 * run["cpu"] / task.updates,
            "sent": [sent / task.updates for sent in run["sent"]],
            "spoken": [spoken and spoken / task.updates for spoken in run["spoken"]],
        }
    count = sum(p.numel() for p in task.network().parameters())
    return {"size": task.size, "batch": task.batch, "parameters": count, "ways": rows}


def link(scale: Scale) -> dict[str, Any]:
    """``step`` once more in a network of its own whose loopback carries ``LINK``, all in all."""
    if not (shutil.which("unshare") and shutil.which("tc")):
        return {"left_out": "needs unshare and tc (Linux, util-linux and iproute2)"}
    scale.true_task()  # draws the films here
    shape = f"ip link set lo up && tc qdisc add dev lo root tbf rate {LINK} burst 256kb latency 1s"
    inside = [sys.executable, str(Path(__file__).parent / "run.py"), "--inside", str(scale.folder)]
    inside += ["--quick"] if scale.quick else []
    command = ["unshare", "-rn", "sh", "-c", f'{shape} && exec "$@"', "sh", *inside]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"left_out": f"no network of its own here: {done.stderr.strip()[-300:]}"}
    return {"rate": LINK, **json.loads(done.stdout)}


def learn(scale: Scale, seed: int) -> dict[str, Any]:
    """Every way from the same start over the same films."""
    task = scale.task(seed)
    found = {name: summary(task, group_run(way, task)) for name, way in WAYS.items()}
    return {"seed": seed, "updates": task.updates, "batch": task.batch, "rate": task.rate,
            "size": task.size, "held_out": task.held_out, "ways": found,
            "parameters": sum(p.numel() for p in task.network().parameters())}  # fmt: skip


def stale(scale: Scale, seed: int) -> dict[str, Any]:
    """The parameter server with more workers than cores: updates count here, seconds do not.

    With 2 workers it is a way of ``learn``, and with 1 it is one process.
    """
    task = scale.task(seed)
    found = {}
    for workers in WORKERS[2:]:
        way = replace(WAYS["server"], processes=workers)
        found[str(workers)] = summary(task, group_run(way, task))
    return {"seed": seed, "workers": found}


def delay(scale: Scale) -> dict[str, Any]:
    """Trips to the server and back, messages of the paper's 1,467,137 parameters.

    The service is what a trip takes with one worker; what it takes longer with more is waiting.
    """
    task = replace(scale.true_task(), updates=24 if scale.quick else 120)
    found = {}
    for workers in WORKERS:
        first, *others = launch(workers + 1, server.waiting, task, THINK)
        # The first trips of all begin at one moment, the last end with nobody behind them.
        trips = sorted(1e3 * t for w in others for t in w["trips"][1:-1])
        found[str(workers)] = {
            "trip_ms": statistics.mean(trips),
            "median_ms": statistics.median(trips),
            "most_ms": trips[-1],
            "least_ms": trips[0],
            "updates_a_second": task.updates / first["seconds"],
            "server_sent_a_second": first["sent"] / first["seconds"],
            "staleness": np.bincount(first["staleness"]).tolist(),
        }
    service = found["1"]["trip_ms"]
    theory = server.queue_times(service, 1e3 * THINK, max(WORKERS))
    for workers, row in found.items():
        row["waiting_ms"] = row["trip_ms"] - service
        row["theory_ms"] = theory[int(workers) - 1]
    return {"think_ms": 1e3 * THINK, "updates": task.updates, "workers": found}


BATCHES = (8, 16, 32, 64, 128)
RATES = (0.025, 0.05, 0.1)


def batch(scale: Scale) -> dict[str, Any]:
    """Updates of one process to the target by batch size and rate (Shallue et al. 2019)."""
    batches, rates = (BATCHES[:3], RATES[1:2]) if scale.quick else (BATCHES, RATES)
    seeds = (0,) if scale.quick else (0, 1)
    films = 1600 if scale.quick else 5120
    cases = [
        replace(scale.task(seed), batch=size, rate=rate, updates=max(60, films // size))
        for seed, size, rate in product(seeds, batches, rates)
    ]
    cases.sort(key=lambda case: -case.batch)  # the longest first
    with context().Pool(machine.cores(), machine.set_threads, (1,)) as pool:
        found = pool.map(updates_to_target, cases, chunksize=1)
    rows = [
        {"batch": c.batch, "rate": c.rate, "seed": c.seed, "limit": c.updates, "updates": n}
        for c, n in zip(cases, found, strict=True)
    ]
    return {"runs": sorted(rows, key=lambda r: (r["batch"], r["rate"], r["seed"]))}


def updates_to_target(task: Task) -> int | None:
    """Updates until the smoothed loss is down to the target; None where the limit came first."""
    heap.keep()
    model, losses = Model(task), []
    every = max(2, 160 // task.batch)
    for update in range(task.updates):
        model.learn(task.batch_of(update), task.batch)
        model.step()
        if (update + 1) % every == 0:
            losses.append(task.held_out_loss(model.flat.weights.numpy()))
            if reached(losses) is not None:
                return update + 1
    return None


SEEDS = (0, 1, 2)
PARTS: dict[str, Callable[[Scale], dict[str, Any]]] = {
    "step": step,
    "link": link,
    **{f"learn-{s}": lambda scale, s=s: learn(scale, s) for s in SEEDS},
    **{f"stale-{s}": lambda scale, s=s: stale(scale, s) for s in SEEDS},
    "delay": delay,
    "batch": batch,
}


def surroundings() -> dict[str, Any]:
    """Machine and versions that a part was measured with."""
    import torch

    return {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "load_average": round(os.getloadavg()[0], 2),
    }
