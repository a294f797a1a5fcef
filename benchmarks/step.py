"""One training step of the paper's network, hilum beside Keras, a textbook loop and the GEMM limit.

    python benchmarks/step.py                 # everything; makes the peers' environment in .bench/
    python benchmarks/step.py --quick         # a short look, without Keras where it is not there
    python benchmarks/step.py --busy          # the same beside one busy process, and without it
    python benchmarks/step.py --record        # keep the result under docs/

Films of 500 x 500 in memory, batches of 16, the same made-up films for all. Each side is a process
that stays alive; they are asked in turn, A B C A B C, so that a machine that grows slower does so
for all. Printed and kept: the median of all steps, the ratio to hilum round by round with its
spread, processor time, and the share of what matrix products of the same run reach.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hilum import machine
from hilum.datasets import phantom
from hilum.networks.arithmetic import layer_table, paper_network
from hilum.storage import write_json

HERE = Path(__file__).parent
ROOT = HERE.parent
BATCH, BATCHES, SIZE = 16, 4, 500
KERAS = ROOT / ".bench" / "keras" / "bin" / "python"
# side: (interpreter, script, arguments)
SIDES: dict[str, tuple[Path, str, list[str]]] = {
    "hilum float32": (Path(sys.executable), "hilum_step.py", ["float32"]),
    "hilum bfloat16": (Path(sys.executable), "hilum_step.py", ["bfloat16"]),
    "hilum default": (Path(sys.executable), "hilum_step.py", ["auto"]),
    "keras float32": (KERAS, "keras_step.py", ["float32"]),
    "keras mixed_bfloat16": (KERAS, "keras_step.py", ["mixed_bfloat16"]),
    "pytorch textbook": (Path(sys.executable), "textbook_step.py", []),
    "gemm float32": (Path(sys.executable), "gemm.py", ["float32"]),
    "gemm bfloat16": (Path(sys.executable), "gemm.py", ["bfloat16"]),
}
AMX = "amx_bf16" in machine.cpu_flags()
# Who is compared with whom: (slower, faster, goal).
RATIOS = [
    ("keras float32", "hilum float32", 3.0),
    ("keras mixed_bfloat16", "hilum bfloat16", 3.0 if AMX else 2.0),
    ("keras float32", "hilum default", 6.0),
    ("pytorch textbook", "hilum default", 20.0),
]


class Side:
    """A process that makes steps when asked."""

    def __init__(self, name: str, films: Path) -> None:
        interpreter, script, arguments = SIDES[name]
        given = [] if script == "gemm.py" else [str(films)]
        self.process = subprocess.Popen(
            [str(interpreter), str(HERE / "peers" / script), *given, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.name = name
        self.hello = self._answer()
        self.rounds: list[list[float]] = []
        self.cpu: list[float] = []

    def steps(self, count: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._answer()

    def measure(self, count: int) -> None:
        answer = self.steps(count)
        self.rounds.append(answer["ms"])
        self.cpu.append(answer["cpu_ms"] / count)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"benchmark: a side has ended: {self.name}. Run it by hand to see why."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


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


def make_keras() -> None:
    """Keras in an environment of its own."""
    if not KERAS.exists():
        print(f"making {KERAS.parent.parent} ...", file=sys.stderr)
        venv.create(KERAS.parent.parent, with_pip=True)
        wanted = str(HERE / "peers" / "keras.txt")
        subprocess.run([str(KERAS), "-m", "pip", "install", "-q", "-r", wanted], check=True)


def gflop_a_step() -> float:
    """Operations of plain sums, forward and backward; the first layer has no input gradient."""
    work = [layer.multiply_adds for layer in layer_table(paper_network(), SIZE)]
    first = next(w for w in work if w)
    return 2 * BATCH * (3 * sum(work) - first) / 1e9


def measure(names: list[str], rounds: int, steps: int, busy: bool) -> dict[str, Any]:
    """All sides in turn; with ``busy`` each round is made twice, idle and beside a busy process."""
    load = [os.getloadavg()[0]]
    crowded: dict[str, list[list[float]]] = {name: [] for name in names}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-bench-"))
        make_films(Path(folder) / "films.npz")
        sides = []
        for name in names:
            sides.append(Side(name, Path(folder) / "films.npz"))
            stack.callback(sides[-1].close)
        switch = stack.enter_context(busy_process()) if busy else None
        for side in sides:
            side.steps(2)  # warm up
        for turn in range(rounds):
            for side in sides:
                side.measure(steps)
                if switch is not None:
                    switch(True)
                    crowded[side.name].append(side.steps(steps)["ms"])
                    switch(False)
            load.append(os.getloadavg()[0])
            print(f"round {turn + 1} of {rounds}, load {load[-1]:.1f}", file=sys.stderr)
    result: dict[str, Any] = {
        "what": f"ms a training step, paper2021 {SIZE} x {SIZE}, batch {BATCH}, films in memory",
        "processor": machine.processor(),
        "cores": machine.cores(),
        "load_average": [round(x, 2) for x in (load[0], statistics.median(load), max(load))],
        "rounds": rounds,
        "steps_a_round": steps,
        "gflop_a_step": round(gflop_a_step(), 2),
        "sides": {},
    }
    medians = {side.name: [statistics.median(r) for r in side.rounds] for side in sides}
    for side in sides:
        every = sorted(x for r in side.rounds for x in r)
        entry = {
            "ms": round(statistics.median(every), 2),
            "least": round(every[0], 2),
            "most": round(every[-1], 2),
            "cpu_ms": round(statistics.median(side.cpu), 2),
            **side.hello,
        }
        if crowded[side.name]:
            entry["busy_ms"] = round(statistics.median(x for r in crowded[side.name] for x in r), 2)
            beside = [statistics.median(r) for r in crowded[side.name]]
            entry["busy_ratio"] = spread(quotients(beside, medians[side.name]))
        result["sides"][side.name] = entry
    add_limit(result)
    result["ratios"] = [
        {"of": a, "over": b, **spread(quotients(medians[a], medians[b])), "goal": g}
        for a, b, g in RATIOS
        if a in medians and b in medians
    ]
    return result


def quotients(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(ratios: list[float]) -> dict[str, float]:
    """Median, least and most of the ratios of the rounds."""
    return {
        "ratio": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "most": round(max(ratios), 2),
    }


def add_limit(result: dict[str, Any]) -> None:
    """Share of the speed that plain sums would have at the rate of matrix products."""
    sides = result["sides"]
    for name, entry in sides.items():
        if name.startswith("gemm"):
            entry["gflop_a_second"] = round(entry["gflop"] / entry["ms"] * 1e3, 1)
    for name, entry in sides.items():
        kind = "bfloat16" if "bfloat16" in (name, entry.get("precision")) or "bf" in name else ""
        limit = sides.get(f"gemm {kind or 'float32'}")
        if limit and "gflop" not in entry:
            ideal = result["gflop_a_step"] / limit["gflop_a_second"] * 1e3
            entry["share_of_gemm_limit"] = round(ideal / entry["ms"], 3)


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
    lines += ["", "| comparison | ratio | least–most | goal |", "|---|---:|---:|---:|"]
    lines += [
        f"| {r['of']} / {r['over']} | {r['ratio']} | {r['least']}–{r['most']} | ≥ {r['goal']} |"
        for r in result["ratios"]
    ]
    lines += [
        f"| {n}: beside a busy process / idle | {r['ratio']} | {r['least']}–{r['most']} | ≤ 2 |"
        for n, r in busy.items()
    ]
    low, middle, high = result["load_average"]
    versions = {k: v for e in result["sides"].values() for k, v in e.items() if k in VERSIONS}
    lines += [
        "",
        f"{result['processor']}, {result['cores']} cores; "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + f"; load average {low} before, {middle} (at most {high}) during; "
        f"{result['rounds']} rounds of {result['steps_a_round']} steps, sides in turn; "
        f"{result['gflop_a_step']} GFLOP a step.",
    ]
    return "\n".join(lines)


VERSIONS = ("torch", "keras", "tensorflow")


def record(result: dict[str, Any], name: str) -> None:
    """Keep the result as JSON and put its table into docs/benchmarks.md."""
    write_json(ROOT / "docs" / "records" / "benchmarks" / f"{name}.json", result)
    page = ROOT / "docs" / "benchmarks.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
    before, _, rest = page.read_text("utf-8").partition(begin)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}{table(result)}\n{end}{after}", "utf-8")


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
        make_keras()
    result = measure(names, 3 if given.quick else given.rounds, given.steps, given.busy)
    print(table(result))
    if given.record:
        record(result, "step-busy" if given.busy else "step")


if __name__ == "__main__":
    main()
