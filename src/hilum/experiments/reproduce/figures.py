"""Figures 1 to 4 and 9, drawn from the films and the network themselves.

Those that return a ``Figure`` are called inside ``hilum.report.plot_style()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.manifest import Manifest
from hilum.experiments.reproduce.wishes import Point, Wishes
from hilum.networks.arithmetic import Layer
from hilum.report import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def films(manifest: Manifest, readable: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Figure 1: a film without pneumonia and one with it, by chance.

    Parameters
    ----------
    readable : (n,) whether a film of the manifest has pixels; others are not drawn
    """
    from hilum.films.picture import mosaic, view

    rng = np.random.default_rng(0)
    label = np.asarray(manifest.label)
    pictures = []
    for kind in (0, 1):
        row = int(rng.permutation(np.flatnonzero(readable & (label == kind)))[0])
        pictures.append(view(manifest.read_film(row), 420))
    labels = [f"without: {manifest.classes[0]}", f"with: {manifest.classes[1]}"]
    return mosaic(pictures, columns=2, labels=labels)


def dense(table: Sequence[Layer]) -> Figure:
    """Figure 2: densely connected layers, the network's own, a few neurons of each."""
    from matplotlib.figure import Figure

    layers = [row for row in table if row.kind == "flatten" or row.kind.startswith("dense")]
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    axes = figure.subplots()
    columns, most = [], 9
    for x, row in enumerate(layers):
        count = int(np.prod(row.shape))
        shown = min(count, most)
        columns.append(np.linspace(-1, 1, shown) if shown > 1 else np.zeros(1))
        for k, y in enumerate(columns[-1]):
            middle = count > most and k == most // 2
            if middle:
                axes.text(x, y, "⋮", ha="center", va="center", fontsize=13, zorder=4)
            else:
                axes.plot([x], [y], "o", color=INK["paper"], markeredgecolor=INK["first"],
                          markersize=11, zorder=3)  # fmt: skip
        axes.text(x, 1.22, f"{count:,}", ha="center", fontsize=10)
        words = {"flatten": "features"}.get(row.name, row.name)
        axes.text(x, -1.3, f"{words}\n{row.parameters:,}" if row.parameters
                  else words, ha="center", va="top", fontsize=8.5, color=INK["soft"])  # fmt: skip
    for x, (left, right) in enumerate(pairwise(columns)):
        for a in left:
            for b in right:
                axes.plot([x, x + 1], [a, b], color=INK["line"], lw=0.6, zorder=1)
    axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(-1.75, 1.4))
    axes.set_axis_off()
    return figure


def kernel(film: NDArray[np.uint8], weights: NDArray[Any], bias: float) -> Figure:
    """Figure 3: a corner of a real film times a kernel that was learnt, by the formula.

    Parameters
    ----------
    film : (s, s) uint8; weights : (3, 3), of the first convolution; bias : its own
    """
    from matplotlib.figure import Figure

    from hilum.networks.reference import correlate

    side = 6
    patch = _liveliest(film, side) / 255.0
    w = np.asarray(weights, np.float64)
    out = correlate(patch[None], w[None, None], np.array([bias]))[0]
    figure = Figure(figsize=(8.8, 3.1), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(side, 3.4, side - 2))
    grids = (
        (patch, "pixels of a film, 0 to 1", (0, 1)),
        (w, "a kernel of the first layer, learnt", None),
        (out, f"what comes out, bias {bias:+.3f} added", None),
    )
    for axes, (values, title, span) in zip(panels, grids, strict=True):
        _grid(axes, values, title, span)
    _frame(panels[0], 3)
    _frame(panels[2], 1)
    first = float((patch[:3, :3] * w).sum() + bias)
    figure.supxlabel(
        f"framed: the sum of nine products, {first - bias:+.3f}, and the bias, "
        f"gives {out[0, 0]:+.3f}",
        fontsize=9,
    )
    return figure


def _liveliest(film: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The piece of the film with the largest spread of grey: an edge to see."""
    pieces = np.lib.stride_tricks.sliding_window_view(film, (side, side))[::side, ::side]
    row, column = np.unravel_index(pieces.std((2, 3)).argmax(), pieces.shape[:2])
    return np.asarray(pieces[row, column])


def _grid(axes: Any, values: NDArray[Any], title: str, span: tuple[float, float] | None) -> None:
    low, high = span or (-np.abs(values).max(), np.abs(values).max())
    axes.imshow(values, cmap="gray" if span else "RdBu_r", vmin=low, vmax=high, alpha=0.9)
    for (row, column), value in np.ndenumerate(values):
        light = (value - low) / max(high - low, 1e-9)
        dark = light < 0.5 if span else abs(light - 0.5) > 0.3
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                  color=INK["paper"] if dark else INK["text"])  # fmt: skip
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _frame(axes: Any, side: int) -> None:
    """Around the upper left values."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((-0.5, -0.5), side, side, fill=False, lw=2.4, edgecolor=INK["second"]))


def network(table: Sequence[Layer]) -> Figure:
    """Figure 4: the network, layer by layer, from its own layer table."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(8.8, 3.7), layout="constrained")
    axes = figure.subplots()
    largest = max(row.shape[-1] for row in table if len(row.shape) == 3)
    x = 0.0
    for row in table:
        flat = len(row.shape) == 1
        if flat:
            high, wide, ink = 0.25 + 0.55 * np.log10(row.shape[0] + 1) / 4.1, 0.34, "second"
        else:
            channels, side = row.shape[0], row.shape[1]
            high, wide = 0.16 + 1.3 * (side / largest) ** 0.5, 0.14 + 0.1 * np.log2(channels + 1)
            ink = "first" if row.kind.startswith("conv") else "healthy"
        if row.kind == "input":
            ink = "soft"
        axes.add_patch(Rectangle((x, -high / 2), wide, high, facecolor=INK[ink], alpha=0.85, lw=0))
        size = f"{row.shape[0]:,}" if flat else f"{row.shape[0]} × {row.shape[1]}²"
        axes.text(x + wide / 2, high / 2 + 0.06, size, ha="center", va="bottom", fontsize=7.5,
                  rotation=90)  # fmt: skip
        axes.text(x + wide / 2, -high / 2 - 0.06, row.name, ha="center", va="top", fontsize=7.5,
                  rotation=90, color=INK["soft"])  # fmt: skip
        x += wide + 0.24
    axes.set(xlim=(-0.15, x), ylim=(-1.35, 1.6))
    axes.set_axis_off()
    for k, (ink, words) in enumerate(
        (
            ("first", "convolution 3 × 3, ReLU"),
            ("healthy", "max-pooling 2 × 2"),
            ("second", "flatten and dense"),
        )
    ):
        axes.text(0.42 + 0.21 * k, 0.97, f"■ {words}", transform=axes.transAxes, fontsize=8.5,
                  color=INK[ink])  # fmt: skip
    return figure


def wishes(found: Wishes) -> Figure:
    """Accuracy and AUROC over patients, size of the film, and parameters, with intervals."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(8.8, 3.3), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    rows = (
        ("patients", "patients to learn from", lambda p: p.patients),
        ("size", "side of the films in pixels", lambda p: p.setting.size),
        ("network", "parameters", lambda p: p.setting.parameters),
    )
    for axes, (row, words, at) in zip(panels, rows, strict=True):
        points = [p for p in found.of(row) if p.accuracy is not None]
        _with_intervals(axes, points, at, "accuracy", INK["first"], "o")
        _with_intervals(axes, points, at, "auroc", INK["second"], "s")
        axes.set_xscale("log")
        axes.set_xticks([at(p) for p in points], [_short(at(p)) for p in points])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(words)
    panels[0].set_ylabel(f"on {found.part.split(' (')[0]}")
    # Above the panels: whatever corner it took, an interval might lie there.
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside upper left", ncols=2)
    return figure


def _short(number: float) -> str:
    return f"{number / 1e6:.2g} M" if number >= 1e6 else f"{number:,.0f}"


def _with_intervals(
    axes: Any, points: list[Point], at: Any, metric: str, colour: str, marker: str
) -> None:
    # A little apart, so that the intervals of both can be seen.
    x = [at(p) * (1.03 if metric == "auroc" else 1 / 1.03) for p in points]
    estimates = [getattr(p, metric) for p in points]
    axes.plot(x, [e.value for e in estimates], marker=marker, color=colour, lw=1.3, markersize=5,
              label={"auroc": "AUROC"}.get(metric, metric))  # fmt: skip
    for place, e in zip(x, estimates, strict=True):
        if e.low is not None and e.high is not None:
            axes.plot([place, place], [e.low, e.high], color=colour, lw=1)
