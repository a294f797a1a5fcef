"""Training on one GPU: the paper's ten epochs, a textbook loop beside it, the limits of the device.

    python benchmarks/gpu.py                       # everything on made-up films, some minutes
    python benchmarks/gpu.py --data kermany_224    # `fast` on real films, as its CPU run was
    python benchmarks/gpu.py --record              # keep the result under docs/records/gpu/
    python benchmarks/gpu.py --quick               # a short look: fewer films, epochs and rounds

Measured, in this order: what matrix products and copies reach; the paper's ten epochs (4,192 films
of 500 x 500 to train, 1,040 to validate, batch 16) in float32 (TF32) and bfloat16, start-up and
capture apart; steps beside a textbook loop with a DataLoader, the two in turn; `fast` here and on
this machine's CPU, to its quality (a validation AUROC within .002); steps on one core and on all;
a profile. Without a GPU it says so and ends with exit code 3.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hilum import heap, machine

machine.default_threads()
heap.keep()

import numpy as np  # noqa: E402
import torch  # noqa: E402

import roofline  # noqa: E402
from gpu_text import PAPER_RATIO, judged, reached, text  # noqa: E402
from hilum.datasets import phantom  # noqa: E402
from hilum.machine import Place  # noqa: E402
from hilum.networks.kernels import gpu  # noqa: E402
from hilum.storage import write_json  # noqa: E402
from hilum.training.backends import make_learner  # noqa: E402
from hilum.training.learner import class_weights, shrink  # noqa: E402
from hilum.training.loop import Epoch, batches, fit, order, steps_in_epoch  # noqa: E402
from hilum.training.parts import Films  # noqa: E402
from hilum.training.recipe import Recipe  # noqa: E402
from hilum.training.schedule import LearningRate  # noqa: E402
from sides import OWN, Process, quotients, spread  # noqa: E402

ROOT = Path(__file__).parent.parent
TRAIN, VALIDATION, SIZE = 4192, 1040, 500
PRECISIONS = ("float32", "bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="films for `fast`: whatever hilum train takes")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side beside the peer")
    parser.add_argument("--quick", action="store_true", help="fewer films, epochs and rounds")
    parser.add_argument("--record", action="store_true", help="keep it under docs/records/gpu/")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "benchmark: no GPU is seen by torch: nothing here can be measured. Run it on a machine "
            "with an NVIDIA GPU and a torch for CUDA (hilum doctor tells which).",
            file=sys.stderr,
        )
        return 3
    films = (TRAIN, VALIDATION) if not given.quick else (512, 128)
    train, validation = made_up(films[0], 0), made_up(films[1], 1)
    limits = measure_limits()
    result: dict[str, Any] = {
        "what": f"training on one GPU; {films[0]} films to train, {films[1]} to validate",
        "gpu": torch.cuda.get_device_name(),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        "versions": versions(),
        "processor": machine.processor(),
        "cores": machine.cores(),
        "load_average": os.getloadavg()[0],
        "limits": limits,
    }
    epochs = 2 if given.quick else 10
    result["paper"] = {name: paper(train, validation, name, epochs, limits) for name in PRECISIONS}
    result["textbook"] = beside_a_textbook(train, 2 if given.quick else given.rounds)
    result["cpu"] = on_the_cpu(train, result["paper"]["float32"]["ms_per_step"])
    result["fast"] = fast(given.data, given.quick)
    table, result["profile"] = profile(train)
    result["goals"] = judged(result)
    print(text(result))
    if given.record:
        folder = ROOT / "docs" / "records" / "gpu"
        name = result["gpu"].lower().replace(" ", "-")
        write_json(folder / f"{name}.json", result)
        (folder / f"{name}-profile.txt").write_text(table, "utf-8")
        (folder / f"{name}.md").write_text(text(result) + "\n", "utf-8")
    return 0


# --- films --------------------------------------------------------------------------------------


def draw(seed: int) -> Any:
    return phantom.draw(seed, positive=bool(seed % 4), size=(SIZE, SIZE))


def made_up(count: int, seed: int) -> Films:
    """Films of 500 x 500, three in four positive: 256 that are drawn, each shown in many shifts."""
    first = 100_000 * seed
    # Not forked: a process that holds a GPU's context must not be copied.
    with ProcessPoolExecutor(machine.cores(), mp_context=get_context("spawn")) as pool:
        drawn = np.stack(list(pool.map(draw, range(first, first + 256), chunksize=8)))
    rng = np.random.default_rng(seed)
    which = np.arange(count) % len(drawn)
    pixels = drawn[which]
    for film, (down, across) in zip(pixels, rng.integers(-12, 13, (count, 2)), strict=True):
        film[:] = np.roll(film, (int(down), int(across)), (0, 1))
    labels = (which % 4 > 0).astype(np.int8)
    return Films(pixels, np.arange(count), labels, rng.integers(0, 2**62, count))


# --- what the device reaches --------------------------------------------------------------------


def seconds(work: Callable[[], object], times: int) -> float:
    """Median seconds of one call, by the device's own clock."""
    for _ in range(3):
        work()
    found = []
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def measure_limits() -> dict[str, float]:
    """TFLOP/s of products of 8192 x 8192, GB/s of a copy of 1 GiB (read and written counted)."""
    side, found = 8192, {}
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for name, dtype, tf32 in (("bfloat16", torch.bfloat16, False), ("tf32", None, True)):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            a, b = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
            taken = seconds(lambda a=a, b=b: a @ b, 20)
            found[f"tflops_{name}"] = round(2 * side**3 / taken / 1e12, 1)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found["copy_gb_s"] = round(2 * 2**30 / seconds(lambda: target.copy_(source), 20) / 1e9, 1)
    return found


# --- the paper's training -----------------------------------------------------------------------


def run(
    recipe: Recipe, place: Place, train: Films, validation: Films
) -> tuple[dict[str, Any], list[Epoch]]:
    """All epochs, with what comes before the first step timed apart."""
    began = time.perf_counter()
    learner = make_learner(recipe, place, class_weights(train.labels, "balanced"))
    learner.warm_up(train, validation, 0)
    if place.kind == "cuda":
        torch.cuda.synchronize()
    start_up = time.perf_counter() - began
    epochs: list[Epoch] = []
    rate = LearningRate(recipe, steps_in_epoch(len(train), recipe))
    began = time.perf_counter()
    fit(learner, recipe, train, validation, rate=rate, ended=epochs.append)
    taken = time.perf_counter() - began
    return {
        "seconds": round(taken, 3),
        "start_up_seconds": round(start_up, 3),
        "epochs": [epoch.as_dict() for epoch in epochs],
        "ms_per_step": round(statistics.median(e.ms_per_step for e in epochs), 4),
    }, epochs


def paper(
    train: Films, validation: Films, precision: str, epochs: int, limits: dict[str, float]
) -> dict[str, Any]:
    recipe = Recipe.load("paper2021", [f"training.epochs={epochs}"])
    torch.cuda.reset_peak_memory_stats()
    found, _ = run(recipe, Place("cuda", 1, 1, precision), train, validation)
    half = precision == "bfloat16"
    peak = roofline.Limits(limits["tflops_bfloat16" if half else "tflops_tf32"],
                              limits["copy_gb_s"])  # fmt: skip
    width = roofline.BFLOAT16 if half else roofline.FLOAT32
    gflop = roofline.gflop_a_step()
    moved = roofline.gigabytes_a_step(width, own=gpu.available())
    found |= {
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "gflop_a_step": round(gflop, 2),
        "gigabytes_a_step": round(moved, 3),
        "shares": roofline.shares(found["ms_per_step"], peak, gflop, moved),
    }
    return found


# --- beside a textbook loop ---------------------------------------------------------------------


def ms(side: Process, chunks: int) -> float:
    """Milliseconds a step, the median of so many chunks."""
    return statistics.median(side.ask(chunks)["ms"]) / side.hello["steps"]


def beside_a_textbook(films: Films, rounds: int) -> dict[str, Any]:
    """All in turn, A B A B; the ratio is taken round by round, each precision by itself."""
    scripts = {}
    for precision in PRECISIONS:
        scripts[f"textbook {precision}"] = ["textbook_gpu.py", str(machine.cores()), precision]
        scripts[f"hilum {precision}"] = ["hilum_gpu.py", precision]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-gpu-"))
        np.save(Path(folder) / "pixels.npy", films.pixels[films.rows])
        np.save(Path(folder) / "labels.npy", films.labels)
        turns = [
            stack.enter_context(Process(name, OWN, script, [folder, *rest], quiet=False))
            for name, (script, *rest) in scripts.items()
        ]
        found: dict[str, list[float]] = {side.name: [] for side in turns}
        for side in turns:
            ms(side, 1)
        for turn in range(rounds):
            for side in turns:
                found[side.name].append(ms(side, 4))
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return {
        "rounds": rounds,
        "ms_per_step": {name: round(statistics.median(taken), 4) for name, taken in found.items()},
        "ratios": {
            name: spread(quotients(found[f"textbook {name}"], found[f"hilum {name}"]))
            for name in PRECISIONS
        },
        "workers": machine.cores(),
    }


# --- beside the CPU -----------------------------------------------------------------------------


def on_the_cpu(films: Films, gpu_ms: float, steps: int = 6) -> dict[str, Any]:
    """Milliseconds a step of the paper's network on one core and on all, in float32."""
    recipe = Recipe.load("paper2021")
    plan = batches(order(0, 0, len(films)), recipe.training.batch, "drop")
    found: dict[str, Any] = {"steps": steps, "paper": PAPER_RATIO}
    for threads in sorted({1, machine.cores()}):
        machine.set_threads(threads)
        learner = make_learner(recipe, Place("cpu", 1, threads, "float32"), (1.0, 1.0))
        learner.begin(films, 0)
        times = []
        for batch in plan[: steps + 2]:
            began = time.perf_counter()
            learner.step(batch, recipe.optimiser.lr)
            times.append(1e3 * (time.perf_counter() - began))
        ms = statistics.median(times[2:])
        found[f"cpu:{threads}"] = {"ms_per_step": round(ms, 2), "ratio": round(ms / gpu_ms, 1)}
    machine.set_threads(machine.cores())
    return found


def fast(data: str | None, quick: bool) -> dict[str, Any]:
    """`fast` on the CPU and on the GPU; seconds of training until as good as the CPU's end."""
    recipe = Recipe.load("fast", ["training.epochs=2"] if quick else [])
    train, validation, what = films_for(data, recipe)
    cpu = Place("cpu", 1, machine.cores(), "float32")
    machine.set_threads(machine.cores())
    slow, _ = run(recipe, cpu, train, validation)
    quickly, epochs = run(recipe, Place("cuda", 1, 1, "bfloat16"), train, validation)
    wanted = slow["epochs"][-1]["val_auroc"]
    return {
        "films": what,
        "cpu": slow,
        "cuda": quickly,
        "cpu_val_auroc": wanted,
        "cuda_val_auroc": quickly["epochs"][-1]["val_auroc"],
        "seconds_to_quality": reached(epochs, wanted),
    }


def films_for(data: str | None, recipe: Recipe) -> tuple[Films, Films, str]:
    size = recipe.preprocessing.size
    if data is not None:
        from hilum.datasets.cache import Cache
        from hilum.datasets.index import open_data
        from hilum.training.parts import films_of

        manifest = open_data(data)
        cache = Cache.fill(manifest, recipe.preprocessing)
        parts = films_of(manifest, cache, "train"), films_of(manifest, cache, "validation")
        return *parts, f"{Path(data).name}, {len(parts[0])} and {len(parts[1])} films"

    def small(films: Films) -> Films:
        return replace(films, pixels=shrink(torch.from_numpy(films.pixels), size).numpy())

    return small(made_up(3694, 2)), small(made_up(790, 3)), "made up, 3694 and 790 films"


# --- where the time goes ------------------------------------------------------------------------


def profile(films: Films, steps: int = 20) -> tuple[str, list[dict[str, Any]]]:
    """torch.profiler's table of a step's kernels, and the ten that take longest."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    recipe = Recipe.load("paper2021")
    learner = make_learner(recipe, Place("cuda", 1, 1, "bfloat16"), (1.0, 1.0))
    plan = batches(order(0, 0, len(films)), recipe.training.batch, "drop")
    learner.begin(films, 0, plan)
    for batch in plan[:3]:
        learner.step(batch, 1e-3)
    torch.cuda.synchronize()
    with watch(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for batch in plan[3 : 3 + steps]:
            learner.step(batch, 1e-3)
        torch.cuda.synchronize()
    averages = seen.key_averages()
    longest = sorted(averages, key=lambda e: -e.self_device_time_total)[:10]
    kernels = [
        {"kernel": e.key[:120], "ms_per_step": round(e.self_device_time_total / 1e3 / steps, 4)}
        for e in longest
    ]
    return averages.table(sort_by="self_device_time_total", row_limit=40), kernels


# --- the result ---------------------------------------------------------------------------------


def versions() -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "capability": ".".join(str(n) for n in torch.cuda.get_device_capability()),
        "kernels": gpu.status(),
    }


if __name__ == "__main__":
    sys.exit(main())
