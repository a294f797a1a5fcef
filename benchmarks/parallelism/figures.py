"""Two figures: the way to the loss, and what grows with the number of workers."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from measure import RATES, TARGET, WAYS, smooth
from server import queue_times

from hilum.report import INK, plot_style, save

# Colours that are told apart by lightness too; the way of drawing says how many processes.
COLOURS = {
    "one": INK["text"],
    "after": INK["first"],
    "periodic": "#7a4fa3",
    "server": INK["ill"],
    "hogwild": INK["second"],
    "gossip": "#4f8f4f",
}


def draw(
    parts: dict[str, dict[str, Any]], servers: dict[int, list[dict[str, Any]]], folder: Path
) -> None:
    """``learning`` and ``growth``, PNG and SVG; ``servers``: runs by number of workers."""
    from matplotlib.figure import Figure

    with plot_style():
        if servers[1]:
            figure = Figure(figsize=(9.2, 3.9), layout="constrained")
            by_updates, by_seconds = figure.subplots(1, 2, sharey=True)
            curves(by_updates, parts, "updates")
            curves(by_seconds, parts, "seconds")
            by_updates.set_ylabel("held-out loss, median of five copies")
            by_updates.legend(loc="lower left")
            save(figure, folder, "learning")
        panels: list[Any] = [(staleness, servers)] if servers[1] else []
        panels += [(draw_one, parts[n]) for n, draw_one in GROWTH.items() if n in parts]
        if panels:
            figure = Figure(figsize=(3.1 * len(panels), 3.5), layout="constrained")
            all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
            for axes, (draw_one, what) in zip(all_axes, panels, strict=True):
                draw_one(axes, what)
            save(figure, folder, "growth")


def curves(axes: Any, parts: dict[str, dict[str, Any]], against: str) -> None:
    runs = [part for name, part in parts.items() if name.startswith("learn-")]
    for name, colour in COLOURS.items():
        for i, run in enumerate(runs):
            way = run["ways"][name]
            losses = smooth(way["loss"])
            x = way[against][-len(losses) :]
            many = f" ({WAYS[name].processes})" if WAYS[name].processes > 1 else ""
            words = f"{WAYS[name].words}{many}" if i == 0 else None
            axes.plot(x, losses, color=colour, alpha=0.85, linewidth=1.3, label=words)
    axes.axhline(TARGET, color=INK["soft"], linewidth=0.8, linestyle=":")
    axes.set_xlabel({"updates": "updates of 16 films", "seconds": "seconds"}[against])
    axes.set_title({"updates": "What an update is worth", "seconds": "What it takes"}[against])
    axes.set_ylim(0, 0.75)
    axes.set_xlim(0)


def staleness(axes: Any, runs: dict[int, list[dict[str, Any]]]) -> None:
    for found in runs.values():
        for run in found:
            counts = run["staleness"] or [1]
            mean = sum(i * n for i, n in enumerate(counts)) / sum(counts)
            axes.plot([mean], [run["final_loss"]], "o", color=INK["ill"], alpha=0.8)
    last = runs[1][0]["updates"][-1]
    axes.set_title("Stale gradients")
    axes.set_xlabel("mean staleness (1, 2, 4, 8 workers)")
    axes.set_ylabel(f"held-out loss after {last} updates")
    axes.set_ylim(0, 0.75)


def delay(axes: Any, part: dict[str, Any]) -> None:
    workers = [int(w) for w in part["workers"]]
    trips = [row["trip_ms"] for row in part["workers"].values()]
    theory = queue_times(trips[0], part["think_ms"], max(workers))
    bound = [max(trips[0], w * trips[0] - part["think_ms"]) for w in range(1, max(workers) + 1)]
    every = range(1, max(workers) + 1)
    axes.plot(every, theory, color=INK["soft"], linestyle="--", linewidth=1.2, label="theory")
    axes.plot(every, bound, color=INK["soft"], linestyle=":", linewidth=1.2, label="least possible")
    axes.plot(workers, trips, "o-", color=INK["first"], label="measured")
    axes.set_title("The master's delay")
    axes.set_xlabel("workers")
    axes.set_ylabel("ms to the server and back")
    axes.set_ylim(0)
    axes.legend()


def batches(axes: Any, part: dict[str, Any]) -> None:
    runs = part["runs"]
    sizes = sorted({run["batch"] for run in runs})
    for rate, colour in zip(RATES, (INK["healthy"], INK["first"], INK["second"]), strict=True):
        points = []
        for size in sizes:
            found = [r["updates"] for r in runs if (r["batch"], r["rate"]) == (size, rate)]
            if found and None not in found:
                points.append((size, statistics.mean(found)))
                axes.plot([size] * len(found), found, ".", color=colour, alpha=0.6)
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=f"rate {rate:g}")
    known = [r["updates"] * r["batch"] for r in runs if r["updates"] and r["batch"] == sizes[0]]
    if known:
        ideal = statistics.mean(known)
        line = {"color": INK["soft"], "linestyle": ":", "linewidth": 1.2}
        axes.plot(sizes, [ideal / size for size in sizes], label="as many films", **line)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set_title("Larger batches")
    axes.set_xlabel("batch")
    axes.set_ylabel(f"updates to {TARGET}")
    axes.legend()


GROWTH = {"delay": delay, "batch": batches}
