"""One training step of the paper's network, hilum beside Keras, a textbook loop and the GEMM limit.

    python benchmarks/step.py                 # everything; makes the peers' environment in .bench/
    python benchmarks/step.py --quick         # a short look, without Keras where it is not there
    python benchmarks/step.py --busy          # the same beside one busy process, and without it
    python benchmarks/step.py --record        # keep the result under docs/

Films of 500 x 500 in memory, batches of 16, the same made-up films for all. Each side is a process
that stays alive; they are asked in turn, A B C A B C, so that a machine that grows slower does so
for all. Printed and kept: the median of all steps, the ratio to hilum round by round with its
spread, processor time, the share of what matrix products of the same run reach, and the parts of
hilum's step. ``hilum fast`` is another work: the step that ``hilum train`` does by default.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import roofline
import sides
from hilum import machine
from hilum.datasets import phantom
from sides import OWN, Load, Process, Side

BATCH, BATCHES, SIZE = 16, 4, 500
KERAS = sides.environment("keras")
# side: (interpreter, script, arguments)
SIDES: dict[str, tuple[Path, str, list[str]]] = {
    "hilum float32": (OWN, "hilum_step.py", ["float32"]),
    "hilum bfloat16": (OWN, "hilum_step.py", ["bfloat16"]),
    "hilum default": (OWN, "hilum_step.py", ["auto"]),
    "hilum fast": (OWN, "hilum_step.py", ["auto", "fast"]),
    "keras float32": (KERAS, "keras_step.py", ["float32"]),
    "keras mixed_bfloat16": (KERAS, "keras_step.py", ["mixed_bfloat16"]),
    "pytorch textbook": (OWN, "textbook_step.py", []),
    "gemm float32": (OWN, "gemm.py", ["float32"]),
    "gemm bfloat16": (OWN, "gemm.py", ["bfloat16"]),
}
MORE = {"hilum fast": 8}  # short steps: so many times as many of them in a round
AMX = "amx_bf16" in machine.cpu_flags()
# Who is compared with whom: (slower, faster, goal).
RATIOS = [
    ("keras float32", "hilum float32", 3.0),
    ("keras mixed_bfloat16", "hilum bfloat16", 3.0 if AMX else 2.0),
    ("keras float32", "hilum default", 6.0),
    ("pytorch textbook", "hilum default", 20.0),
]


def start(name: str, films: Path) -> Process:
    interpreter, script, arguments = SIDES[name]
    given = [] if script == "gemm.py" else [str(films)]
    return Process(name, interpreter, script, [*given, *arguments])


@contextmanager
def busy_process() -> Iterator[Any]:
    """A process that keeps one core busy while it is switched on."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    process.send_signal(signal.SIGSTOP)
    try:
        yield lambda on: process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
    finally:
        process.kill()
        process.wait()


def make_films(path: Path) -> None:
    films = [
        phantom.draw(i, positive=bool(i % 2), size=(SIZE, SIZE)) for i in range(BATCH * BATCHES)
    ]
    labels = np.arange(len(films), dtype=np.int8) % 2
    np.savez(path, pixels=np.stack(films), labels=labels)


def measure(names: list[str], rounds: int, steps: int, busy: bool) -> dict[str, Any]:
    """All sides in turn; with ``busy`` each round is made twice, idle and beside a busy process."""
    load = Load()
    crowded: dict[str, list[list[float]]] = {name: [] for name in names}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-bench-"))
        make_films(Path(folder) / "films.npz")
        turns = [
            Side(name, stack.enter_context(start(name, Path(folder) / "films.npz")))
            for name in names
        ]
        switch = stack.enter_context(busy_process()) if busy else None
        for side in turns:
            side.process.ask(2)  # warm up
        for turn in range(rounds):
            for side in turns:
                count = steps * MORE.get(side.name, 1)
                side.process.ask(1)  # untimed: memory that lay idle comes back (docs/benchmarks.md)
                side.measure(count)
                if switch is not None:
                    switch(True)
                    crowded[side.name].append(side.process.ask(count)["ms"])
                    switch(False)
            load.round_ended(turn, rounds)
    result: dict[str, Any] = {
        "what": f"ms a training step, paper2021 {SIZE} x {SIZE}, batch {BATCH}, films in memory",
        **sides.about_machine(),
        "load_average": load.entry(),
        "rounds": rounds,
        "steps_a_round": steps,
        "gflop_a_step": round(roofline.gflop_a_step(BATCH, SIZE), 2),
        "sides": {},
    }
    for side in turns:
        entry = side.entry()
        if crowded[side.name]:
            entry["busy_ms"] = round(statistics.median(x for r in crowded[side.name] for x in r), 2)
            beside = [statistics.median(r) for r in crowded[side.name]]
            entry["busy_ratio"] = sides.spread(sides.quotients(beside, side.medians))
        result["sides"][side.name] = entry
    add_limit(result)
    result["ratios"] = sides.compare({side.name: side.medians for side in turns}, RATIOS)
    return result


def add_limit(result: dict[str, Any]) -> None:
    """Share of the speed that plain sums would have at the rate of matrix products."""
    entries = result["sides"]
    for name, entry in entries.items():
        if name.startswith("gemm"):
            entry["gflop_a_second"] = sides.gemm_rate(entry)
    parts = roofline.gflop_by_part(BATCH, SIZE)
    for name, entry in entries.items():
        kind = "bfloat16" if "bfloat16" in (name, entry.get("precision")) or "bf" in name else ""
        limit = entries.get(f"gemm {kind or 'float32'}")
        if limit and "gflop" not in entry and name != "hilum fast":
            ideal = result["gflop_a_step"] / limit["gflop_a_second"] * 1e3
            entry["share_of_gemm_limit"] = round(ideal / entry["ms"], 3)
            for part, taken in shown(entry).items():
                if part in parts:
                    ideal = parts[part] / limit["gflop_a_second"] * 1e3
                    entry["breakdown"][f"{part}_of_gemm_limit"] = round(ideal / taken, 3)


def shown(entry: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a step's parts, as the table has them; empty where nobody looked.

    The profiler's shares of the step that was timed without it.
    """
    if "breakdown" not in entry:
        return {}
    found = entry["breakdown"]["parts"]
    each = entry["ms"] / sum(found.values())
    return {
        "augmentation": each * found["data"],
        "convolution": each * (found["convolution"] + found["pooling"]),
        "dense": each * found["dense"],
        "optimiser": each * found["optimiser"],
        "rest": each * found["other"],
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| side | ms a step | least–most | processor time | of the GEMM limit |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, e in result["sides"].items():
        share = e.get("share_of_gemm_limit")
        last = f"{e['gflop_a_second']} GFLOP/s" if "gflop" in e else f"{share:.2f}" if share else ""
        lines.append(f"| {name} | {e['ms']} | {e['least']}–{e['most']} | {e['cpu_ms']} | {last} |")
    busy = {n: e["busy_ratio"] for n, e in result["sides"].items() if "busy_ratio" in e}
    lines += ["", *sides.ratio_table(result["ratios"])]
    lines += [
        f"| {n}: beside a busy process / idle | {r['ratio']} | {r['least']}–{r['most']} | ≤ 2 |"
        for n, r in busy.items()
    ]
    lines += [
        "",
        f"{sides.footer(result, result['sides'].values())}; {result['rounds']} rounds of "
        f"{result['steps_a_round']} steps, sides in turn; {result['gflop_a_step']} GFLOP a step.",
    ]
    return "\n".join(lines)


def parts_table(result: dict[str, Any]) -> str:
    """Where hilum's steps go, as Markdown."""
    lines = [
        "| side | augmentation | convolution, ReLU, pooling | of the GEMM limit | dense | "
        "of the GEMM limit | optimiser | loss and rest |",
        "|---|" + "---:|" * 7,
    ]
    for name, entry in result["sides"].items():
        if parts := shown(entry):
            cells = [name]
            for part, ms in parts.items():
                cells.append(f"{ms:.1f} ms, {ms / entry['ms']:.0%}")
                if part in ("convolution", "dense"):
                    share = entry["breakdown"].get(f"{part}_of_gemm_limit")
                    cells.append(f"{share:.2f}" if share else "")
            lines.append(f"| {' | '.join(cells)} |")
    looks = (e["breakdown"].get("method", "") for e in result["sides"].values() if "breakdown" in e)
    shards = (
        "were looked at one after another in one thread"  # older records
        if any("one after another" in method for method in looks)
        else "are looked at in the thread that leads"
    )
    lines += [
        "",
        "Shares by torch.profiler, from a few steps before the rounds, of the step above; shards "
        f"{shards}. `hilum fast` is the step of recipe `fast`, augmentation included; its batch "
        "normalisation is in the rest.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=2, help="steps of each side in a round")
    parser.add_argument("--sides", help="some of them, by commas")
    parser.add_argument("--busy", action="store_true", help="also beside one busy process")
    parser.add_argument("--quick", action="store_true", help="three rounds, Keras only if there")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    given = parser.parse_args()
    names = given.sides.split(",") if given.sides else list(SIDES)
    if unknown := set(names) - SIDES.keys():
        parser.error(f"no such side: {', '.join(unknown)}. There are: {', '.join(SIDES)}.")
    if given.quick and not KERAS.exists():
        names = [name for name in names if not name.startswith("keras")]
    if any(name.startswith("keras") for name in names):
        sides.make_environment("keras")
    result = measure(names, 3 if given.quick else given.rounds, given.steps, given.busy)
    print(table(result), parts_table(result), sep="\n\n")
    if given.record:
        sides.record(result, "step", {"step": table, "step-parts": parts_table})


if __name__ == "__main__":
    main()
