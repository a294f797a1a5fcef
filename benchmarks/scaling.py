"""How training grows: with threads and processes, with the batch, with the number of films.

    python benchmarks/scaling.py              # about four minutes
    python benchmarks/scaling.py --quick      # fewer rounds and films
    python benchmarks/scaling.py --record     # keep it under docs/

1. A step of the paper's network, 500 x 500, batch 16, augmentation included, on ``cpu:1``,
   ``cpu:2`` and ``cpu:2x1``, sides in turn. Beside them two processes that know nothing of each
   other with eight films each: what these two cores give to anything that runs twice.
2. The same step on one core with batches of 1 to 32, in processor time: other work on the machine
   does not stretch it.
3. An epoch of hilum's own loop over more and more films, each in a process of its own: seconds,
   processor time, memory of its own, memory mapped from the file of films. One thread, since
   processor time then is the time of a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import sides
from hilum.datasets import phantom
from machines import Trainees

BATCH = 16
GOAL = 0.92
BATCHES = (1, 2, 4, 8, 16, 32)
FILMS = {"paper2021": (128, 192, 256, 320), "fast": (500, 1000, 1500, 2000)}
SIZES = {"paper2021": 500, "fast": 64}


def make_films(folder: Path, recipe: str, count: int) -> Path:
    """(count, s, s) uint8 on disk: 64 made-up films, moved sideways again and again."""
    size = SIZES[recipe]
    first = [phantom.draw(i, positive=bool(i % 2), size=(size, size)) for i in range(64)]
    path = folder / f"{recipe}.npy"
    kept = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size))
    for i in range(count):
        kept[i] = np.roll(first[i % 64], i // 64, axis=1)
    kept.flush()
    return path


def in_turn(films: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step of each side, round by round, and the ratios of interest."""
    with ExitStack() as stack:
        groups = [
            stack.enter_context(Trainees("paper2021", place, films, apart=apart))
            for place, apart in (("cpu:1", 0), ("cpu:2", 0), ("cpu:2x1", 0), ("cpu:1", 2))
        ]
        one, two, both, apart_ = groups
        share = {apart_.name: BATCH // 2}
        for group in groups:
            group.ask(batch=share.get(group.name, BATCH), steps=2)  # warm up
        rounds_of: dict[str, list[float]] = {group.name: [] for group in groups}
        cpu_of: dict[str, list[float]] = {group.name: [] for group in groups}
        backward: list[float] = []
        load = sides.Load()
        by_batch: dict[int, list[float]] = {batch: [] for batch in BATCHES}
        for turn in range(rounds):
            for group in groups:
                answers = group.ask(batch=share.get(group.name, BATCH), steps=steps)
                slowest = max(statistics.median(answer["ms"]) for answer in answers)
                rounds_of[group.name].append(slowest)
                cpu_of[group.name].append(sum(answer["cpu_ms"] for answer in answers) / steps)
                if group is one:
                    pairs = zip(answers[0]["backward_ms"], answers[0]["ms"], strict=True)
                    backward += [after / whole for after, whole in pairs]
            if turn < 3:
                for batch in BATCHES:
                    one.ask(batch=batch, steps=1)  # memory for this batch
                    by_batch[batch].append(one.ask(batch=batch, steps=1)[0]["cpu_ms"])
            load.round_ended(turn, rounds)
        hello = one.hello
    medians = {name: statistics.median(values) for name, values in rounds_of.items()}

    def efficiency(of: str, over: str, ideal: float) -> dict[str, Any]:
        shares = [q / ideal for q in sides.quotients(rounds_of[of], rounds_of[over])]
        found = sides.spread(shares, digits=3)
        return {"of": of, "over": over, "efficiency": found.pop("ratio"), **found}

    curve = {batch: statistics.median(values) for batch, values in by_batch.items()}
    return {
        "torch": hello["torch"],
        "gradient_bytes": hello["gradient_bytes"],
        "rounds": rounds,
        "steps_a_round": steps,
        "load_average": load.entry(),
        "ms": {
            name: {
                "ms": round(medians[name], 1),
                "least": round(min(rounds_of[name]), 1),
                "most": round(max(rounds_of[name]), 1),
                "cpu_ms": round(statistics.median(cpu_of[name]), 1),
            }
            for name in rounds_of
        },
        "efficiency": [
            efficiency(one.name, two.name, 2),
            efficiency(one.name, both.name, 2),
            efficiency(apart_.name, both.name, 1),
            efficiency(one.name, apart_.name, 2),
        ],
        "backward_share": round(statistics.median(backward), 3),
        "cpu_ms_by_batch": {str(batch): round(ms, 1) for batch, ms in curve.items()},
        "batch_line": line(list(curve), list(curve.values()), "batch"),
    }


def line(x: list[float], y: list[float], what: str) -> dict[str, float]:
    """Least squares ``y = fixed + each · x``, and the largest residual as a share of y."""
    each, fixed = np.polyfit(x, y, 1)
    rest = np.abs(np.array(y) - fixed - each * np.array(x)) / np.array(y)
    return {
        "fixed": round(float(fixed), 4),
        f"each_{what}": round(float(each), 6),
        "largest_residual": round(float(rest.max()), 4),
    }


def grown(recipe: str, films: Path, counts: tuple[int, ...]) -> dict[str, Any]:
    """An epoch over so many films, each count in a process of its own."""
    rows = []
    for count in counts:
        with Trainees(recipe, "cpu:1", films) as one:
            one.ask(batch=BATCH, steps=2)
            rows.append({"films": count, **one.ask(films=count)[0]})
        print(f"{recipe}: {rows[-1]}", file=sys.stderr)
    private = [row["private_mib"] for row in rows]
    return {
        "size": SIZES[recipe],
        "epochs": rows,
        "cpu_seconds_line": line(list(counts), [row["cpu_seconds"] for row in rows], "film"),
        "private_memory_most_over_least": round(max(private) / min(private), 3),
    }


def measure(quick: bool) -> dict[str, Any]:
    pace = sides.matrix_products()
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        counts = {r: c[: 3 if quick else 4] for r, c in FILMS.items()}
        films = {recipe: make_films(folder, recipe, counts[recipe][-1]) for recipe in FILMS}
        result: dict[str, Any] = {
            "what": "steps and epochs of training against threads, processes, batch and films",
            **sides.about_machine(),
            "goal": GOAL,
            **in_turn(films["paper2021"], 5 if quick else 60, 2),
            "films": {recipe: grown(recipe, films[recipe], counts[recipe]) for recipe in FILMS},
            "gemm": [pace, sides.matrix_products()],
        }
    return result


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "| side | ms a step | least–most | processor time, ms |",
        "|---|---:|---:|---:|",
    ]
    for name, entry in result["ms"].items():
        lines.append(
            f"| {name} | {entry['ms']} | {entry['least']}–{entry['most']} | {entry['cpu_ms']} |"
        )
    lines += ["", "| efficiency | median | least–most | goal |", "|---|---:|---:|---:|"]
    words = (
        "two threads: `cpu:1` / `cpu:2` / 2",
        "two processes: `cpu:1` / `cpu:2x1` / 2",
        "of that, what is exchange: two apart / `cpu:2x1`",
        "what two cores give at all: `cpu:1` / two apart / 2",
    )
    for k, (what, e) in enumerate(zip(words, result["efficiency"], strict=True)):
        goal = f"≥ {result['goal']}" if k == 1 else ""
        lines.append(f"| {what} | {e['efficiency']} | {e['least']}–{e['most']} | {goal} |")
    fit = result["batch_line"]
    fixed, each = fit["fixed"], fit["each_batch"]
    lines += [
        "",
        f"A step on one core: {fixed:.0f} ms and {each:.1f} ms a film (processor time, batches "
        f"of 1 to 32, largest residual {fit['largest_residual']:.1%}).",
        "",
        "| recipe | films | an epoch, s | processor time, s | own memory, MiB | mapped, MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for recipe, grown_ in result["films"].items():
        lines += [
            f"| {recipe} | {row['films']:,} | {row['seconds']} | {row['cpu_seconds']} | "
            f"{row['private_mib']} | {row['mapped_mib']} |"
            for row in grown_["epochs"]
        ]
    for recipe, grown_ in result["films"].items():
        fit = grown_["cpu_seconds_line"]
        lines += [
            "",
            f"`{recipe}`: {fit['fixed']:.2f} s + {1e3 * fit['each_film']:.2f} ms a film (processor "
            f"time), largest residual {fit['largest_residual']:.1%}; most memory / least: "
            f"{grown_['private_memory_most_over_least']}.",
        ]
    before = result["load_average"][0]  # nothing of its own
    lines += sides.busy(before, result["cores"])
    lines += [
        "",
        f"{sides.footer(result, [result])}; {result['rounds']} rounds of "
        f"{result['steps_a_round']} steps, sides in turn.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and films")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    given = parser.parse_args()
    result = measure(given.quick)
    print(table(result))
    if given.record:
        sides.record(result, "scaling", {"scaling": table})


if __name__ == "__main__":
    main()
