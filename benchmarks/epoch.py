"""A training epoch of the paper's network, augmentation and data wait included, beside Keras's.

    python benchmarks/epoch.py               # everything; makes the peers' environment in .bench/
    python benchmarks/epoch.py --quick       # one round, Keras only if it is there
    python benchmarks/epoch.py --record      # keep the result under docs/

Made-up films of 500 x 500 on disk as PNG, the same for all sides; batches of 16. hilum's epoch is
its own loop over its cache with the augmentation of recipe paper2021 (``peers/hilum_epoch.py``);
Keras's are its whole pipeline, once with ``tf.data`` and once with the tutorial's generator, and
its pure steps on tensors in memory without augmentation (``peers/keras_epoch.py``). No side
validates. Sides take turns, an epoch each behind an untimed one; times are told by film.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import sides
from hilum import machine
from hilum.datasets import phantom
from sides import OWN, Load, Process, Side

SIZE = 500
# side: (environment or None for hilum's own, script, argument, work of that process)
SIDES: dict[str, tuple[str | None, str, str, str]] = {
    "hilum float32": (None, "hilum_epoch.py", "float32", ""),
    "hilum bfloat16": (None, "hilum_epoch.py", "bfloat16", ""),
    "hilum default": (None, "hilum_epoch.py", "auto", ""),
    "keras steps float32": ("keras", "keras_epoch.py", "float32", "pure"),
    "keras tf.data float32": ("keras", "keras_epoch.py", "float32", "data"),
    "keras generator float32": ("keras", "keras_epoch.py", "float32", "legacy"),
    "keras steps mixed_bfloat16": ("keras", "keras_epoch.py", "mixed_bfloat16", "pure"),
    "keras tf.data mixed_bfloat16": ("keras", "keras_epoch.py", "mixed_bfloat16", "data"),
    "gemm float32": (None, "gemm.py", "float32", ""),
    "gemm bfloat16": (None, "gemm.py", "bfloat16", ""),
}
RATIOS: list[tuple[str, str, float | None]] = [
    ("keras steps float32", "hilum float32", 2.0),
    ("keras steps mixed_bfloat16", "hilum bfloat16", 2.0),
    ("keras tf.data float32", "hilum float32", None),
    ("keras tf.data mixed_bfloat16", "hilum bfloat16", None),
    ("keras generator float32", "hilum float32", None),
    ("keras generator float32", "hilum default", None),
]


def make_films(folder: Path, count: int) -> None:
    """FOLDER/0/*.png and FOLDER/1/*.png, half of each."""
    for i in range(count):
        label = i % 2
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        film = phantom.draw(i, positive=bool(label), size=(SIZE, SIZE))
        Image.fromarray(np.asarray(film)).save(folder / str(label) / f"{i:05}.png")


def measure(names: list[str], rounds: int, films: int) -> dict[str, Any]:
    """All sides in turn, an epoch each."""
    load = Load()
    processes: dict[tuple[str, str], Process] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-bench-")))
        os.environ["HILUM_CACHE"] = str(folder / "cache")
        make_films(folder / "films", films)
        turns = []
        for name in names:
            place, script, argument, work = SIDES[name]
            if (script, argument) not in processes:
                interpreter = OWN if place is None else sides.environment(place)
                given = [] if script == "gemm.py" else [str(folder / "films")]
                process = Process(name, interpreter, script, [*given, argument])
                processes[script, argument] = stack.enter_context(process)
            turns.append(Side(name, processes[script, argument], work))
            if processes[script, argument].hello.get("films", films) != films:
                raise SystemExit(f"benchmark: {name} has left films out of its epoch.")
            turns[-1].process.ask(1, work)  # the first epoch decodes, compiles and warms up
        for turn in range(rounds):
            for side in turns:
                side.process.ask(1, side.work)  # untimed, as in step.py
                side.measure(1)
            load.round_ended(turn, rounds)
    result: dict[str, Any] = {
        "what": f"ms a film of a training epoch, paper2021 {SIZE} x {SIZE}, batch 16, "
        "augmented unless said, no validation",
        **sides.about_machine(),
        "load_average": load.entry(),
        "rounds": rounds,
        "films_an_epoch": films,
        "sides": {side.name: entry(side, films) for side in turns},
    }
    result["ratios"] = sides.compare({side.name: side.medians for side in turns}, RATIOS)
    return result


def entry(side: Side, films: int) -> dict[str, Any]:
    """A side's record: by film, and GEMM by product."""
    found = side.entry()
    if "gflop" in found:
        return {**found, "gflop_a_second": sides.gemm_rate(found)}
    return {
        **found,
        **{k: round(found[k] / films, 3) for k in ("ms", "least", "most", "cpu_ms")},
        "films_a_second": round(1e3 * films / found["ms"], 1),
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| side | ms a film | least–most | processor time | films/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, e in result["sides"].items():
        if "gflop" not in e:
            lines.append(
                f"| {name} | {e['ms']:.1f} | {e['least']:.1f}–{e['most']:.1f} "
                f"| {e['cpu_ms']:.1f} | {e['films_a_second']} |"
            )
    gemm = ", ".join(
        f"{e['gflop_a_second']} GFLOP/s ({name.split()[1]})"
        for name, e in result["sides"].items()
        if "gflop" in e
    )
    lines += [
        "",
        *sides.ratio_table(result["ratios"]),
        "",
        f"{sides.footer(result, result['sides'].values())}; matrix products in the same run: "
        f"{gemm or 'not measured'}; {result['rounds']} rounds of an epoch of "
        f"{result['films_an_epoch']} films, sides in turn.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--films", type=int, default=128, help="films of an epoch")
    parser.add_argument("--sides", help="some of them, by commas")
    parser.add_argument("--quick", action="store_true", help="one round, Keras only if there")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    given = parser.parse_args()
    names = given.sides.split(",") if given.sides else list(SIDES)
    if unknown := set(names) - SIDES.keys():
        parser.error(f"no such side: {', '.join(unknown)}. There are: {', '.join(SIDES)}.")
    if (
        not given.sides and not machine.has_bfloat16()
    ):  # else imitated, many times slower than float32
        print("no bfloat16 arithmetic on this processor: float32 alone", file=sys.stderr)
        names = [name for name in names if "bfloat16" not in name]
    if given.quick and not sides.environment("keras").exists():
        names = [name for name in names if not name.startswith("keras")]
    if any(name.startswith("keras") for name in names):
        sides.make_environment("keras")
    result = measure(names, 1 if given.quick else given.rounds, given.films)
    print(table(result))
    if given.record:
        sides.record(result, "epoch", {"epoch": table})


if __name__ == "__main__":
    main()
