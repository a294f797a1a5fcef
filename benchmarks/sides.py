"""What all benchmarks share: sides that take turns, ratios with their spread, where results go.

A side is a piece of work in a process that stays alive (``peers/protocol.py``). Sides are asked in
turn, A B C A B C, so that a machine that grows slower does so for all, and two sides are compared
round by round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hilum import machine
from hilum.storage import atomic_write, write_json

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = HERE / "peers"
PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = ROOT / "docs" / "records" / "benchmarks"
# Processors whose speeds cannot be compared, the best first: the flag that tells one, and its name.
KINDS: dict[str, tuple[str | None, str]] = {
    "amx": ("amx_bf16", "AVX-512, bfloat16 and matrix tiles (AMX)"),
    "avx512": ("avx512_bf16", "AVX-512 and bfloat16"),
    "avx512f": ("avx512f", "AVX-512 without bfloat16"),
    "held": ("", "more, but held to AVX2 (`benchmarks/held.sh`)"),  # no processor's own
    "avx2": ("avx2", "AVX2 alone"),
    "other": (None, "no vectors that kernels use"),
}
Table = Callable[[dict[str, Any]], str]
OWN = Path(sys.executable)
VERSIONS = ("torch", "keras", "tensorflow", "pillow", "opencv", "simplejpeg")


def environment(name: str) -> Path:
    """The interpreter of the peers' environment ``.bench/NAME``, where it is or will be."""
    return ROOT / ".bench" / name / "bin" / "python"


def make_environment(name: str) -> Path:
    """The same, made from the pinned ``peers/NAME.txt`` unless it holds these versions already."""
    interpreter, wanted = environment(name), PEERS / f"{name}.txt"
    folder = interpreter.parent.parent
    mark = folder / "installed.txt"  # what was asked for when it was made
    if mark.is_file() and mark.read_text("utf-8") == wanted.read_text("utf-8"):
        return interpreter
    print(f"making {folder} ...", file=sys.stderr)
    if not interpreter.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([str(interpreter), "-m", "pip", "install", "-q", "-r", str(wanted)], check=True)
    mark.write_text(wanted.read_text("utf-8"), "utf-8")
    return interpreter


class Process(AbstractContextManager["Process"]):
    """A script of ``peers/`` that works when asked.

    Parameters
    ----------
    quiet : what it writes on its standard error is dropped

    Attributes
    ----------
    hello : what it said of itself: versions, settings
    """

    def __init__(
        self,
        name: str,
        interpreter: Path,
        script: str,
        arguments: Iterable[str],
        *,
        quiet: bool = True,
    ) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [str(interpreter), str(PEERS / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )
        self.hello = self._answer()

    def ask(self, count: int, work: str = "") -> dict[str, Any]:
        """Do a work so many times: ``ms`` of each, and ``cpu_ms`` of all."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {work}\n")
        self.process.stdin.flush()
        return self._answer()

    def __exit__(self, *_: object) -> None:
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


class Side:
    """A work of a process, with what it took in each round.

    Attributes
    ----------
    rounds : milliseconds, a list of each round's
    cpu : mean processor time of one, milliseconds, by round
    """

    def __init__(self, name: str, process: Process, work: str = "") -> None:
        self.name, self.process, self.work = name, process, work
        self.rounds: list[list[float]] = []
        self.cpu: list[float] = []

    def measure(self, count: int) -> None:
        answer = self.process.ask(count, self.work)
        self.rounds.append(answer["ms"])
        self.cpu.append(answer["cpu_ms"] / count)

    @property
    def medians(self) -> list[float]:
        """Of each round."""
        return [statistics.median(r) for r in self.rounds]

    def entry(self) -> dict[str, Any]:
        """What belongs into the record."""
        every = [x for r in self.rounds for x in r]
        return {
            "ms": round(statistics.median(every), 2),
            "least": round(min(every), 2),
            "most": round(max(every), 2),
            "cpu_ms": round(statistics.median(self.cpu), 2),
            **self.process.hello,
        }


class Load:
    """The machine's load average over a run."""

    def __init__(self) -> None:
        self.seen = [os.getloadavg()[0]]

    def round_ended(self, turn: int, rounds: int) -> None:
        self.seen.append(os.getloadavg()[0])
        print(f"round {turn + 1} of {rounds}, load {self.seen[-1]:.1f}", file=sys.stderr)

    def entry(self) -> list[float]:
        """Before, in the middle, at most."""
        return [round(x, 2) for x in (self.seen[0], statistics.median(self.seen), max(self.seen))]


def quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(ratios: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, least and most of the ratios of the rounds."""
    return {
        "ratio": round(statistics.median(ratios), digits),
        "least": round(min(ratios), digits),
        "most": round(max(ratios), digits),
    }


def compare(
    medians: Mapping[str, Sequence[float]], pairs: Iterable[tuple[str, str, float | None]]
) -> list[dict[str, Any]]:
    """Ratios of pairs (slower, faster, goal) of which both were measured, round by round."""
    return [
        {"of": a, "over": b, **spread(quotients(medians[a], medians[b])), "goal": goal}
        for a, b, goal in pairs
        if a in medians and b in medians
    ]


def ratio_table(ratios: Iterable[Mapping[str, Any]]) -> list[str]:
    """Ratios as lines of Markdown."""
    lines = ["| comparison | ratio | least–most | goal |", "|---|---:|---:|---:|"]
    for r in ratios:
        goal = "" if r["goal"] is None else f"≥ {r['goal']}"
        lines.append(
            f"| {r['of']} / {r['over']} | {r['ratio']} | {r['least']}–{r['most']} | {goal} |"
        )
    return lines


def about_machine() -> dict[str, Any]:
    return {"processor": machine.processor(), "cores": machine.cores()}


def footer(result: Mapping[str, Any], sides: Iterable[Mapping[str, Any]]) -> str:
    """Processor, versions, load and, where it was measured, the machine's pace in one line."""
    versions = {k: v for side in sides for k, v in side.items() if k in VERSIONS}
    low, middle, high = result["load_average"]
    said = (
        f"{result['processor']}, {result['cores']} cores; "
        + ", ".join(f"{k} {v}" for k, v in versions.items())
        + f"; load average {low} before, {middle} (at most {high}) during"
    )
    if "gemm" in result:
        before, after = result["gemm"]
        said += f"; float32 matrix products {before} GFLOP/s before and {after} after"
    return said


def busy(others: float, cores: int) -> list[str]:
    """Lines that warn where the load average of others was above half of the cores."""
    if others <= cores / 2:
        return []
    return [
        "",
        "**The machine was busy with other work, so these wall times say little; to be measured "
        "again on a quiet one.**",
    ]


def gemm_rate(entry: Mapping[str, Any]) -> float:
    """GFLOP/s of ``peers/gemm.py`` by its median."""
    return round(entry["gflop"] / entry["ms"] * 1e3, 1)


def matrix_products() -> float:
    """GFLOP/s of large float32 products, now: the machine's pace."""
    with Process("gemm float32", OWN, "gemm.py", ["float32"]) as process:
        process.ask(3)
        ms = statistics.median(process.ask(15)["ms"])
        return gemm_rate({"ms": ms, "gflop": process.hello["gflop"]})


def kind() -> str:
    """The best of ``KINDS`` that this processor is."""
    if "BENCHMARK_HELD" in os.environ:
        return "held"
    flags = machine.cpu_flags()
    return next(name for name, (flag, _) in KINDS.items() if flag is None or flag in flags)


def record(result: dict[str, Any], name: str, tables: Mapping[str, Table]) -> None:
    """Keep the result as JSON by the kind of processor, and put tables into docs/benchmarks.md.

    ``tables`` by the name of their place, which gets one for every kind that was ever measured.
    """
    folder = KEPT / kind()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", result)
    put(PAGE, {place: of_all(name, table) for place, table in tables.items()})


def of_all(name: str, table: Table) -> str:
    """The tables of one benchmark's records, each under its kind of processor."""
    found = [
        f"With {said}:\n\n{table(json.loads(path.read_text('utf-8')))}"
        for folder, (_, said) in KINDS.items()
        if (path := KEPT / folder / f"{name}.json").exists()
    ]
    return "\n\n".join(found)


def put(page: Path, tables: Mapping[str, str]) -> None:
    """Tables by name, each into its place of a page; all of them or none."""
    text = page.read_text("utf-8")
    for name, table in tables.items():
        text = placed(text, name, table)
    with atomic_write(page, "w") as stream:
        stream.write(text)


def placed(page: str, name: str, table: str) -> str:
    """The page with ``table`` between ``<!-- name -->`` and ``<!-- end name -->``; it has both."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(
            f"benchmark: no place for the table: {begin.strip()} and, below it, {end.strip()}"
        )
    return f"{before}{begin}{table}\n{end}{after}"
