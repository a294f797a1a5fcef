"""Figures 5 to 8 as the paper's, and those that it lacks: each function draws one.

Call them inside ``hilum.report.plot_style()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.experiments import paper
from hilum.experiments.compare import speed
from hilum.experiments.compare.agreement import WORDS, Equivalence
from hilum.experiments.compare.breakdown import PARTS
from hilum.experiments.compare.comparison import Comparison
from hilum.report import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Places are told apart by colour and by marker; the names are roles of the page's ink.
_COLOURS = ("first", "second", "ill", "healthy", "text", "soft")
_MARKERS = "osD^vP"
_PART_LOOKS = {
    "convolution": ("first", 1.0, ""),
    "pooling": ("first", 0.45, ""),
    "dense": ("healthy", 0.75, ""),
    "optimiser": ("second", 1.0, ""),
    "data": ("ill", 0.9, ""),
    "transfer": ("ill", 0.5, "//"),
    "exchange": ("second", 0.5, "\\\\"),
    "other": ("line", 1.0, ""),
}


def _looks(comparison: Comparison) -> dict[str, tuple[str, str]]:
    return {
        name: (INK[_COLOURS[k % len(_COLOURS)]], _MARKERS[k % len(_MARKERS)])
        for k, name in enumerate(comparison.measured)
    }


def _panels(comparison: Comparison, lines: int) -> tuple[Figure, Any, Any]:
    """Axes for ours, so many lines a place, and for the paper's where this is its network."""
    from matplotlib.figure import Figure

    both = comparison.recipe.network.name == "paper2021"
    # Legends stand below: many lines leave no free place among them.
    rows = -(-len(comparison.measured) * lines // 2)
    figure = Figure(figsize=(8.8 if both else 5.4, 3.3 + 0.17 * max(rows, 2)), layout="constrained")
    axes = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
    return figure, axes[0], axes[1] if both else None


def _finish(figure: Figure, ours: Any, theirs: Any, ylabel: str) -> Figure:
    for axes in (ours, theirs):
        if axes is not None:
            axes.set(xlabel="epoch", ylabel=ylabel)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.legend(
                fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17),
                handlelength=3.6,
            )  # fmt: skip
    if theirs is not None:
        ours.set_title("here")
        theirs.set_title("the paper")
    return figure


def curves(comparison: Comparison, key: str, ylabel: str) -> Figure:
    """Figures 5 and 6: training (dashed) and validation over the epochs, a line a place."""
    figure, ours, theirs = _panels(comparison, 2)
    for name, (colour, marker) in _looks(comparison).items():
        at = comparison.measured[name]
        for column, style, word in ((key, "--", "train"), (f"val_{key}", "-", "val.")):
            values = [np.nan if v is None else v for v in at.mean(column)]
            x = range(1, len(values) + 1)
            ours.plot(x, values, style, color=colour, marker=marker, markersize=4, lw=1.4,
                      label=f"{name}, {word}")  # fmt: skip
            if len(at.epochs) > 1 and column.startswith("val_"):
                runs = np.array(
                    [[e[column] for e in epochs] for epochs in at.epochs.values()], np.float64
                )
                ours.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.12, lw=0)
    if theirs is not None:
        for (side, epochs), colour in zip(
            paper.CURVES.items(), (INK["first"], INK["second"]), strict=True
        ):
            for column, style, word in ((key, "--", "train"), (f"val_{key}", "-", "val.")):
                values = [getattr(e, column) for e in epochs]
                theirs.plot(range(1, len(values) + 1), values, style, color=colour, marker="o",
                            markersize=3.5, lw=1.4, label=f"{side}, {word}")  # fmt: skip
    return _finish(figure, ours, theirs, ylabel)


def times(comparison: Comparison, key: str, ylabel: str) -> Figure:
    """Figures 7 and 8: time of a step or an epoch over the epochs, on a logarithmic scale."""
    figure, ours, theirs = _panels(comparison, 1)
    for name, (colour, marker) in _looks(comparison).items():
        values = np.array(comparison.measured[name].mean(key), np.float64)
        ours.plot(range(1, len(values) + 1), values, color=colour, marker=marker, markersize=4,
                  lw=1.4, label=name)  # fmt: skip
    if theirs is not None:
        for (side, epochs), colour in zip(
            paper.CURVES.items(), (INK["first"], INK["second"]), strict=True
        ):
            values = np.array(
                [e.seconds if key == "seconds" else 1e3 * e.seconds_per_step for e in epochs]
            )
            theirs.plot(range(1, len(values) + 1), values, color=colour, marker="o", markersize=3.5,
                        lw=1.4, label=side)  # fmt: skip
    for axes in (ours, theirs):
        if axes is not None:
            _logarithmic(axes)
    return _finish(figure, ours, theirs, ylabel)


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis from a round number below to one above, with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = np.concatenate([line.get_ydata() for line in axes.lines])
    axes.set_yscale("log")
    axes.set_ylim(values.min() / 1.6, values.max() * 1.6)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def speed_ups(comparison: Comparison) -> Figure:
    """Every place over every baseline, by epoch: the ratio of the means, all paired ratios."""
    from matplotlib.figure import Figure

    rows = [r for r in comparison.ratios() if r["by"] == "epoch"]
    figure = Figure(figsize=(8.8, 0.9 + 0.32 * (len(rows) + 1)), layout="constrained")
    axes = figure.subplots()
    names = [f"{r['place']} over {r['over']}" for r in rows]
    for y, row in enumerate(rows):
        axes.plot([row["least"], row["most"]], [y, y], color=INK["soft"], lw=1)
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=INK["first"], lw=4, alpha=0.45)
        axes.plot([row["ratio"]], [y], "o", color=INK["first"], markersize=6)
        axes.text(row["ratio"], y - 0.28, speed.times(row["ratio"]), ha="center", fontsize=8)
    if comparison.recipe.network.name == "paper2021":
        names.append("the paper: GPU over CPU")
        pairs = [c.seconds / g.seconds for c, g in zip(paper.CPU, paper.GPU, strict=True)]
        y = len(rows)
        axes.plot([min(pairs), max(pairs)], [y, y], color=INK["soft"], lw=1)
        axes.plot([paper.SPEED_UP], [y], "D", color="none", markeredgecolor=INK["soft"])
        axes.text(paper.SPEED_UP, y - 0.28, f"{paper.SPEED_UP}", ha="center", fontsize=8)
    axes.axvline(1, color=INK["soft"], lw=0.9, ls=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.set_xscale("log")
    if rows:  # an interval of two or three runs would be all that is seen
        shown = [1.0, *(row[end] for row in rows for end in ("least", "most"))]
        axes.set_xlim(min(shown) / 1.6, max(*shown, paper.SPEED_UP) * 1.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}×" if value in _TICKS else "")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("times as fast, by epoch")
    return figure


_TICKS = (0.2, 0.5, 2.0, 3.0, 5.0, 20.0, 50.0)


def parts(comparison: Comparison) -> Figure:
    """Where the time of a step goes, in each place that was looked into."""
    from matplotlib.figure import Figure

    looked = {
        name: at.breakdown["parts"] for name, at in comparison.measured.items() if at.breakdown
    }
    figure = Figure(figsize=(8.8, 1.5 + 0.42 * len(looked)), layout="constrained")
    axes = figure.subplots()
    for y, found in enumerate(looked.values()):
        total, left = sum(found.values()), 0.0
        for part in (p for p in _PART_LOOKS if p in PARTS):
            share = found[part] / max(total, 1e-9)
            ink, strength, hatch = _PART_LOOKS[part]
            axes.barh(y, share, left=left, height=0.62, color=INK[ink], alpha=strength,
                      hatch=hatch, edgecolor=INK["paper"], lw=0.8,
                      label=part if y == 0 else None)  # fmt: skip
            if share > 0.06:
                dark = strength > 0.8 and ink in ("first", "ill")
                axes.text(left + share / 2, y, f"{100 * share:.0f} %", ha="center", va="center",
                          fontsize=8, color=INK["paper"] if dark else INK["text"])  # fmt: skip
            left += share
    axes.set_yticks(range(len(looked)), list(looked))
    axes.set(xlim=(0, 1), xlabel="share of a training step")
    axes.set_ylim(len(looked) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.grid(visible=False)
    figure.legend(loc="outside upper center", ncols=len(PARTS), fontsize=8, handlelength=1.2)
    return figure


def agreement(comparison: Comparison) -> Figure:
    """Differences from the baseline with their intervals, in units of the margin."""
    from matplotlib.figure import Figure

    rows: list[tuple[str, Equivalence | None]] = []
    for name, by_measure in comparison.equivalences.items():
        rows.append((name, None))
        rows += [(WORDS[measure], found) for measure, found in by_measure.items()]
    figure = Figure(figsize=(8.8, 1.0 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-1, 1, color=INK["band"], lw=0)
    axes.axvline(0, color=INK["soft"], lw=0.8)
    farthest = 1.6
    for y, (_, found) in enumerate(rows):
        if found is None:
            continue
        ends = [found.difference / found.margin]
        if found.low is not None and found.high is not None:
            ends = [found.low / found.margin, found.high / found.margin]
            axes.plot(ends, [y, y], color=INK["first"], lw=1.6)
        full = INK["paper"] if found.verdict == "not tested" else INK["first"]
        axes.plot([found.difference / found.margin], [y], "o", color=INK["first"], mfc=full, ms=5)
        farthest = max(farthest, *(abs(e) for e in ends))
    reach = min(farthest * 1.1, 6.0)
    for y, (_, found) in enumerate(rows):
        if found is None:
            continue
        off = found.difference / found.margin
        if abs(off) > reach:  # it does not show: said at the edge
            words = f"{off:+z.1f} margins".replace("-", "−")
            said, side = (f"{words} →", "right") if off > 0 else (f"← {words}", "left")
            edge = np.copysign(0.98 * reach, off)
            box = {"facecolor": INK["paper"], "edgecolor": "none", "pad": 1.5}
            axes.text(edge, y, said, ha=side, va="center", fontsize=7.5, color=INK["first"],
                      bbox=box)  # fmt: skip
        for end in (found.low, found.high):
            if end is None or abs(end) <= reach * found.margin:
                continue
            if abs(off) <= reach or end * off < 0:  # the interval goes on
                edge = np.copysign(0.985 * reach, end)
                axes.plot([edge], [y], ">" if end > 0 else "<", color=INK["first"], markersize=5)
    axes.set_yticks(range(len(rows)), [text for text, _ in rows])
    for text, (_, found) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if found is None else "normal")
    axes.set(xlim=(-reach, reach), ylim=(len(rows) - 0.4, -0.7))
    axes.grid(axis="y", visible=False)
    hollow = any(found is not None and found.verdict == "not tested" for _, found in rows)
    axes.set_xlabel(
        f"difference from {comparison.baseline}, in margins (shaded: counts as none"
        f"{'; hollow: not tested' if hollow else ''})"
    )
    return figure
