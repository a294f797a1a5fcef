"""Where the time of a training step goes, measured on a few steps of their own.

On torch by its profiler, on the reference by timers around its formulas. The timed epochs of a
comparison run without either. Parts, in milliseconds a step:

    data          films gathered, augmented and scaled while the network waits
    transfer      to and from another device
    convolution   forward and backward; hilum's own kernels do ReLU and pooling in the same pass,
                  and all of a residual block
    pooling       where it is a step of its own
    dense         matrix products of dense layers
    optimiser     the update of the weights
    exchange      what sharing gradients between processes adds to a step
    other         activations, loss, bookkeeping, waiting
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import WorkerLost
from hilum.experiments.compare.jobs import WORKER, Job
from hilum.experiments.compare.speed import around_the_median
from hilum.experiments.compare.timers import timers
from hilum.machine import Place
from hilum.progress import heard

PARTS = (
    "data",
    "transfer",
    "convolution",
    "pooling",
    "dense",
    "optimiser",
    "exchange",
    "other",
)
WARM, STEPS = 3, 12
PAIRS = 48  # steps with the exchange and without: of few, a neighbour's share hides what it costs

# Names of operators and of their gradients hold these words; the first that is found counts.
_WORDS = {
    "convolution": ("conv",),
    "pooling": ("pool",),
    "dense": ("linear", "addmm", "aten::mm", "matmul"),
}
# Ranges that are marked here.
_RANGES = {"hilum data": "data", "hilum optimiser": "optimiser"}


def breakdown(job: Job) -> dict[str, Any]:
    """Milliseconds a step by part, for the place of a job that was trained before.

    Returns
    -------
    dict with ``parts``, ``ms_per_step`` (median of the same steps without a profiler),
    ``exchange`` (the 95 % interval of that part, None but of a group), ``steps`` and ``method``;
    the same from every process of a group
    """
    from hilum import heap, machine
    from hilum.datasets.cache import Cache
    from hilum.datasets.manifest import Manifest
    from hilum.training import group, meeting
    from hilum.training.backends import make_learner
    from hilum.training.learner import class_weights
    from hilum.training.parts import films_of
    from hilum.training.recipe import Recipe

    heap.keep()
    place = Place.parse(job.place).resolved()
    if place.processes > 1 and meeting.STORE not in os.environ:
        return _by_a_group(job, place)
    machine.set_threads(place.threads or 1)
    recipe = Recipe.load(job.recipe, job.overrides)
    manifest = Manifest.read(job.manifest)
    films = films_of(manifest, Cache.fill(manifest, recipe.preprocessing), "train")
    weights = class_weights(films.labels, recipe.training.class_weights)
    steps = _batches(len(films), recipe)
    if place.kind == "reference":
        return _reference(make_learner(recipe, place, weights), films, recipe, steps[0])
    if place.processes == 1:
        return _torch(make_learner(recipe, place, weights), films, recipe, steps)
    with group.joined(place) as together:
        learner = make_learner(recipe, place, weights, together)
        try:
            return _torch(learner, films, recipe, steps)
        finally:
            learner.leave()  # type: ignore[attr-defined]


def of_learner(learner: Any, films: Any, recipe: Any) -> dict[str, Any]:
    """The same for a learner on torch that has these films at hand; it is spent afterwards."""
    return _torch(learner, films, recipe, _batches(len(films), recipe))


def _batches(films: int, recipe: Any) -> list[NDArray[np.int64]]:
    """Whole batches in the order of the first epoch, as many as are ever wanted."""
    from hilum.training.loop import batches, order

    plan = batches(order(recipe.training.seed, 0, films), recipe.training.batch, "drop")
    return [plan[i % len(plan)] for i in range(WARM + PAIRS + STEPS)]


def _torch(learner: Any, films: Any, recipe: Any, plan: list[NDArray[np.int64]]) -> dict[str, Any]:
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    from hilum.training.loop import steps_in_epoch

    def marked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with record_function(name):
                return function(*arguments)

        return call

    lr = recipe.optimiser.lr
    on_gpu = learner.device.type == "cuda"
    wait: Callable[[], Any] = torch.cuda.synchronize if on_gpu else lambda: None

    def timed(batch: NDArray[np.int64], *, alone: bool = False) -> float:
        with learner.group.alone(learner.shared) if alone else nullcontext():
            wait()
            began = time.perf_counter()
            learner.step(batch, lr)
            wait()
            return 1e3 * (time.perf_counter() - began)

    def all_here() -> None:
        """Wait for the others: who was ahead would pay for their lateness as exchange."""
        if learner.group is not None:
            learner.group.total(np.zeros(1))

    def begun(batches: list[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        """An epoch holds so many steps and no more."""
        for number, batch in enumerate(batches):
            if number % steps_in_epoch(len(films), recipe) == 0:
                learner.begin(films, recipe.training.epochs - 1)
            yield batch

    for batch in begun(plan[:WARM]):
        timed(batch)
    plain, alone = [], []
    many = STEPS if learner.group is None else PAIRS
    for batch in begun(plan[WARM : WARM + many]):
        all_here()
        plain.append(timed(batch))
        if learner.group is not None:
            all_here()
            alone.append(timed(batch, alone=True))
    # A GPU's step is one graph, whose operators have no names: those are seen one by one.
    learner.eager = True
    learner.prepare = marked(learner.prepare, "hilum data")
    for one in learner.optimisers:
        one.step = marked(one.step, "hilum optimiser")
    for batch in begun(plan[:WARM]):
        timed(batch)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as profiled:
        for batch in begun(plan[-STEPS:]):
            with record_function("hilum step"):
                timed(batch)
    parts = _sorted(profiled.events(), on_gpu)
    exchange = None
    if alone:
        more = sorted(with_it - without for with_it, without in zip(plain, alone, strict=True))
        parts["exchange"] = max(0.0, statistics.median(more))
        exchange = around_the_median(more)
    usual = statistics.median(plain)
    known = sum(parts.values())
    parts["other"] = max(0.0, (usual if on_gpu or alone else _whole(profiled.events())) - known)
    method = "torch.profiler" + (
        ", time on the GPU; what it does not compute is other" if on_gpu else ", time on the CPU"
    )
    team = getattr(learner, "team", None)
    if team and team.size > 1 and not learner.in_turn:  # the profiler sees this thread alone
        method += f"; of the leading one of {team.size} threads"
    if alone:
        method += f"; exchange: {PAIRS} steps with and without it"
    return _result(parts, usual, STEPS, method, exchange)


def _sorted(events: Any, on_gpu: bool) -> dict[str, float]:
    """Own time of every operator by part, ms a step; what has no name of its own is left out.

    The median over the steps: a neighbour that holds a core for one of them is no part of it.
    """
    steps = _steps(events)
    starts = [step.time_range.start for step in steps]
    found = [dict.fromkeys(PARTS, 0.0) for _ in steps]
    for event in events:
        number = bisect_right(starts, event.time_range.start) - 1
        part = _part(event)
        if number < 0:
            continue
        if on_gpu:
            for kernel in event.kernels:
                copies = kernel.name.lower().startswith("memcpy")
                where = "transfer" if copies and "dtod" not in kernel.name.lower() else part
                if where:
                    found[number][where] += kernel.duration
        elif part and _within_a_step(event):
            found[number][part] += event.self_cpu_time_total
    return {name: statistics.median(step[name] for step in found) / 1e3 for name in PARTS}


def _steps(events: Any) -> list[Any]:
    """The steps that were marked, in their order; a GPU marks them once more on its own clock."""
    marked = (e for e in events if e.name == "hilum step" and str(e.device_type).endswith("CPU"))
    return sorted(marked, key=lambda event: event.time_range.start)


def _part(event: Any) -> str | None:
    """The part that an operator belongs to: a marked range around it, else its nearest name."""
    named: str | None = None
    while event is not None:
        for mark, part in _RANGES.items():
            if event.name == mark:
                return part
        if named is None:
            name = event.name.lower()
            named = next((p for p, words in _WORDS.items() if any(w in name for w in words)), None)
        event = event.cpu_parent
    return named


def _within_a_step(event: Any) -> bool:
    while event is not None:
        if event.name == "hilum step":
            return True
        event = event.cpu_parent
    return False


def _whole(events: Any) -> float:
    """ms a step while the profiler watched, the median."""
    return statistics.median(float(e.cpu_time_total) for e in _steps(events)) / 1e3


def _result(
    parts: dict[str, float],
    usual: float,
    steps: int,
    method: str,
    exchange: tuple[float, float] | None = None,
) -> dict[str, Any]:
    return {
        "parts": {name: round(parts[name], 3) for name in PARTS},
        "ms_per_step": round(usual, 3),
        "exchange": None if exchange is None else [round(end, 3) for end in exchange],
        "steps": steps,
        "method": method,
    }


def _reference(learner: Any, films: Any, recipe: Any, batch: NDArray[np.int64]) -> dict[str, Any]:
    """One step of the NumPy formulas, each timed where it is called."""
    learner.begin(films, 0)
    with timers() as spent:
        began = time.perf_counter()
        learner.step(batch, recipe.optimiser.lr)
        usual = 1e3 * (time.perf_counter() - began)
    parts = {**dict.fromkeys(PARTS, 0.0), **{k: 1e3 * s for k, s in spent.items()}}
    parts["other"] = max(0.0, usual - sum(parts.values()))
    return _result(parts, usual, 1, "timers around the formulas")


# --- processes that share gradients ---------------------------------------------------------------


def _by_a_group(job: Job, place: Place) -> dict[str, Any]:
    """The breakdown of rank 0, from processes that train together."""
    from torch import distributed

    from hilum.training import meeting

    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks: list[subprocess.Popen[str]] = []
    asked = json.dumps({**job.as_dict(), "began": time.time()}) + "\n"
    try:
        for rank in range(place.processes):
            process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                env=meeting.member(rank, place.processes, store.port),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ranks.append(process)
            assert process.stdin is not None
            process.stdin.write(asked)
            process.stdin.flush()
        return _answer(ranks)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()


def _answer(ranks: list[subprocess.Popen[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for process in reversed(ranks):  # rank 0 last: its words are the answer
        assert process.stdout is not None
        outcome: dict[str, Any] = {"status": "failed", "reason": "a process left no word"}
        for line in process.stdout:
            event = heard(line)
            if event is None:
                continue  # a library's own word
            if "error" in event:  # of one that had to leave at once, as GPUs' processes do
                outcome = {"status": "failed", "reason": event["text"]}
            outcome = event.get("outcome", outcome)
        if outcome["status"] != "done":
            raise WorkerLost(outcome["reason"])
        found = outcome["found"]
    return found
