"""What was measured as tables, figures and files under docs/."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import claims
from figures import draw
from measure import LINK, TARGET, WAYS, WORKERS, Way
from wire import all_reduce_bytes

import sides
from hilum.storage import atomic_write, write_json

Parts = dict[str, dict[str, Any]]
TABLES = ("step", "learn", "stale", "delay", "batch", "claims")
SLACK = 1.02  # gloo's headers, and pieces that are no whole number of values


def seeds(parts: Parts, kind: str) -> list[dict[str, Any]]:
    """The parts ``kind-0``, ``kind-1``, ... that there are."""
    return [part for name, part in parts.items() if name.startswith(f"{kind}-")]


def span(values: Sequence[float | None], digits: int = 0, over: float | None = None) -> str:
    """The mean and the least and most; values that were not reached are above ``over``."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        some = f"; {', '.join(f'{v:.{digits}f}' for v in sorted(known))}" if known else ""
        limit = f"> {over:.0f}" if over else "not"
        return f"{limit} in {len(values) - len(known)} of {len(values)}{some}"
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return f"{statistics.mean(known):.{digits}f}" + (f" ({low}–{high})" if low != high else "")


def table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * (1 + 0) + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def named(way: Way) -> str:
    count = way.processes + way.served
    return f"{way.words}, {count} processes" if count > 1 else way.words


def megabytes(values: Sequence[float]) -> str:
    """Bytes by process as MB: one number, or the first process's and another's."""
    texts = list(dict.fromkeys(f"{v / 1e6:.2f}" for v in values))
    return " / ".join(texts[:2])


def step_rows(parts: Parts) -> Iterator[Sequence[str]]:
    ways, slow = parts["step"]["ways"], parts.get("link", {}).get("ways", {})
    for name, row in ways.items():
        there = f"{slow[name]['ms']:.0f}" if name in slow else "–"
        yield (
            named(WAYS[name]),
            f"{row['ms']:.0f}",
            there,
            f"{row['cpu_ms']:.0f}",
            megabytes(row["sent"]),
        )


def learn_rows(parts: Parts) -> Iterator[Sequence[str]]:
    runs = seeds(parts, "learn")
    limit = runs[0]["updates"]
    for name, way in WAYS.items():
        found = [run["ways"][name] for run in runs]
        goal = [f["to_target"] for f in found]
        yield (
            named(way),
            span([f["ms_an_update"] for f in found]),
            span([f["cpu_ms_an_update"] for f in found]),
            span([g and g["updates"] for g in goal], over=limit),
            span([g and g["seconds"] for g in goal], 1),
            span([f["final_loss"] for f in found], 2),
            staleness([f["staleness"] for f in found]),
        )


def total(histograms: Sequence[Sequence[int]]) -> list[int]:
    """The sum of histograms of different lengths."""
    longest = max(map(len, histograms))
    return [sum(h[i] for h in histograms if i < len(h)) for i in range(longest)]


def staleness(histograms: Sequence[Sequence[int] | None]) -> str:
    known = [h for h in histograms if h]
    if not known:
        return "0"
    counts = total(known)
    mean = sum(i * n for i, n in enumerate(counts)) / sum(counts)
    return f"{mean:.2f} (at most {len(counts) - 1})"


def by_workers(parts: Parts) -> dict[int, list[dict[str, Any]]]:
    """Runs of the parameter server by number of workers; one worker is one process."""
    learnt = [run["ways"] for run in seeds(parts, "learn")]
    found = {1: [ways["one"] for ways in learnt], 2: [ways["server"] for ways in learnt]}
    for workers in WORKERS[2:]:
        found[workers] = [run["workers"][str(workers)] for run in seeds(parts, "stale")]
    return found


def stale_rows(parts: Parts) -> Iterator[Sequence[str]]:
    limit = seeds(parts, "learn")[0]["updates"]
    for workers, found in by_workers(parts).items():
        if not found:
            continue
        goal = [f["to_target"] and f["to_target"]["updates"] for f in found]
        final = span([f["final_loss"] for f in found], 2)
        stale = staleness([f["staleness"] for f in found])
        yield str(workers), stale, span(goal, over=limit), final


def delay_rows(parts: Parts) -> Iterator[Sequence[str]]:
    for workers, row in parts["delay"]["workers"].items():
        yield (
            workers,
            f"{row['trip_ms']:.1f}",
            f"{row['waiting_ms']:.1f}",
            f"{row['theory_ms']:.1f}",
            f"{row['updates_a_second']:.0f}",
            f"{row['server_sent_a_second'] / 1e6:.0f}",
        )


def batch_best(parts: Parts) -> dict[int, dict[str, Any]]:
    """By batch size: the rate that needed the fewest updates, mean over seeds, all reached."""
    best: dict[int, dict[str, Any]] = {}
    runs = parts["batch"]["runs"]
    for size, rate in sorted({(r["batch"], r["rate"]) for r in runs}):
        found = [r["updates"] for r in runs if (r["batch"], r["rate"]) == (size, rate)]
        if None not in found:
            mean = statistics.mean(found)
            if size not in best or mean < best[size]["mean"]:
                best[size] = {"rate": rate, "mean": mean, "updates": found}
    return best


def batch_rows(parts: Parts) -> Iterator[Sequence[str]]:
    for size, row in batch_best(parts).items():
        films = [size * u for u in row["updates"]]
        yield str(size), f"{row['rate']:g}", span(row["updates"]), span(films)


def checked(parts: Parts) -> str:
    """The largest difference between the bytes that were counted and the kernel's count."""
    worst = max(
        spoken / sent - 1
        for row in parts["step"]["ways"].values()
        for sent, spoken in zip(row["sent"], row["spoken"], strict=True)
        if sent and spoken
    )
    assert 0 <= worst < SLACK - 1, f"counted and written bytes differ by {worst:.1%}"
    whole = 4 * parts["step"]["parameters"]
    assert parts["step"]["ways"]["after"]["sent"][0] == all_reduce_bytes(whole, 2)
    return f"{worst:.2%}"


def page(parts: Parts) -> dict[str, str]:
    """Tables in Markdown of what there is, by name."""
    made = {}
    if "step" in parts:
        heads = [
            "way",
            "ms an update",
            f"over {LINK}",
            "processor ms",
            "MB sent an update, by process",
        ]
        made["step"] = table(heads, step_rows(parts))
        made["step"] += f"\n\n{machine_of(parts['step'])}; the kernel counted at most "
        made["step"] += f"{checked(parts)} more bytes than these."
    if seeds(parts, "learn"):
        heads = ["way", "ms an update", "processor ms", f"updates to {TARGET}", "seconds",
                 "loss at the end", "staleness"]  # fmt: skip
        made["learn"] = table(heads, learn_rows(parts))
        run = seeds(parts, "learn")[0]
        made["learn"] += f"\n\n{machine_of(run)}; {run['parameters']:,} parameters, "
        made["learn"] += f"{run['updates']} updates of {run['batch']} films, rate {run['rate']}, "
        made["learn"] += f"{len(seeds(parts, 'learn'))} seeds: mean (least–most)."
    if seeds(parts, "learn"):
        heads = ["workers", "staleness", f"updates to {TARGET}", "loss at the end"]
        made["stale"] = table(heads, stale_rows(parts))
    if "delay" in parts:
        heads = ["workers", "trip ms", "of it waiting", "by theory: trip", "updates a second",
                 "MB a second out of the server"]  # fmt: skip
        made["delay"] = table(heads, delay_rows(parts))
        made["delay"] += f"\n\n{machine_of(parts['delay'])}; workers sleep "
        made["delay"] += f"{parts['delay']['think_ms']:.0f} ms for each gradient."
    if "batch" in parts:
        heads = ["batch", "best rate", f"updates to {TARGET}", "films"]
        made["batch"] = table(heads, batch_rows(parts))
    made["claims"] = table(["what is said", "what was measured"], claims.rows(parts)).replace(
        "---:", "---"
    )
    return made


def machine_of(part: dict[str, Any]) -> str:
    return (
        f"{part['processor']}, {part['cores']} cores, torch {part['torch']}, "
        f"load average {part['load_average']} at the start"
    )


def record(parts: Parts, missing: Sequence[str], docs: Path, *, quick: bool) -> None:
    """JSON, CSV and figures under ``records/parallelism``, tables into ``parallelism.md``.

    What is missing is named in the JSON, and a table that cannot be made says so.
    """
    folder = docs / "records" / "parallelism"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"quick": quick, "not_measured": list(missing), "parts": parts}
    write_json(folder / "parallelism.json", kept)
    with atomic_write(folder / "curves.csv", "w") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["way", "seed", "updates", "seconds", "loss"])
        for run in seeds(parts, "learn"):
            for name, way in run["ways"].items():
                for point in zip(way["updates"], way["seconds"], way["loss"], strict=True):
                    rows.writerow([name, run["seed"], *point])
    draw(parts, by_workers(parts), folder)
    made = page(parts)
    tables = {name: made.get(name, "Not measured yet.") for name in TABLES}
    sides.put(docs / "parallelism.md", tables)
