"""The figures of an audit: probes as a forest, and how the files look by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.audit.probes import BOUND, CROSS_VALIDATED, Probing, Result
from hilum.report import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hilum.audit.audit import Audit

KINDS = {
    "file": "the file: should tell nothing",
    "pixel": "the film without its detail",
    "table": "what the table says",
}
#: What is drawn by class: title, axis on a log scale.
SHOWN = {
    "width": ("width, pixels", False),
    "aspect": ("shape, width / height", False),
    "bits_a_pixel": ("bits a pixel", True),
    "mean": ("brightness, mean grey value", False),
}
LEAST = 10  # films of a class in a part that are drawn as a curve


def forest(probing: Probing) -> Figure:
    """AUROC of each probe with its corrected interval, by where it was judged."""
    from matplotlib.figure import Figure

    rows: list[tuple[str, Result | None]] = []
    for kind, words in KINDS.items():
        here = [r for r in probing.results if r.probe.kind == kind and r.areas]
        if here:
            rows += [(words, None), *((r.probe.name, r) for r in here)]
    places = [CROSS_VALIDATED, *probing.elsewhere]
    figure = Figure(figsize=(7.6, 1.1 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(BOUND, 1.02, color=INK["band"], lw=0, alpha=0.6)
    axes.axvline(0.5, color=INK["soft"], lw=1)
    styles = ((INK["first"], "o"), (INK["second"], "s"), (INK["ill"], "D"))
    for k, (place, (colour, marker)) in enumerate(zip(places, styles, strict=False)):
        shift = 0.17 * (k - (len(places) - 1) / 2) * (2 if len(places) == 2 else 1.5)
        label = f"cross-validated in {probing.trained_on}" if not k else f"learnt there, on {place}"
        for y, (_, result) in enumerate(rows):
            area = None if result is None else result.areas.get(place)
            if area is None or area.value is None or area.low is None or area.high is None:
                continue
            axes.plot([area.low, area.high], [y + shift] * 2, color=colour, lw=1.4)
            axes.plot([area.value], [y + shift], marker, color=colour, markersize=5, label=label)
            label = ""
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    for text, (_, result) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if result is None else "normal")
        if result is not None and result.flagged:
            text.set_color(INK["ill"])
    lows = [a.low for r in probing.results for a in r.areas.values() if a.low is not None]
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(max(0.0, min([0.4, *lows]) - 0.03), 1.02))
    axes.set_xlabel("AUROC of the label (0.5: it tells nothing, 1: it tells all)")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower center", ncols=len(places), bbox_to_anchor=(0.5, 1.0))
    return figure


def distributions(audit: Audit, columns: Mapping[str, NDArray[Any]], rows: NDArray[Any]) -> Figure:
    """Size, shape, compression and brightness by class, a column a part.

    Parameters
    ----------
    columns : values of the films ``rows``, by name, as ``columns.Facts``
    """
    from matplotlib.figure import Figure

    manifest = audit.manifest
    label = manifest.label[rows]
    part = {name: manifest.part.equal(name)[rows] for name in [*manifest.parts(), ""]}
    parts = [name for name, here in part.items() if _enough(label[here])]
    # What is the same in all films needs no picture.
    names = [
        name for name in SHOWN if len(np.unique(columns[name][np.isfinite(columns[name])])) > 1
    ]
    across = max(len(parts), 2)  # one part alone takes two columns
    lines = -(-len(names) * max(len(parts), 1) // across)
    figure = Figure(figsize=(2.6 * across + 1.2, 1.75 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, across, squeeze=False).ravel()
    edges = {
        name: _edges(values[np.isfinite(values)], SHOWN[name][1])
        for name, values in ((name, columns[name]) for name in names)
    }
    drawn = [(name, which) for name in names for which in parts]
    for axes, (name, which) in zip(panels, drawn, strict=False):
        title, logarithmic = SHOWN[name]
        for kind, colour in ((0, INK["healthy"]), (1, INK["ill"])):
            chosen = columns[name][part[which] & (label == kind)]
            chosen = np.clip(chosen[np.isfinite(chosen)], edges[name][0], edges[name][-1])
            if len(chosen) < LEAST:
                continue
            height = np.histogram(chosen, edges[name])[0] / len(chosen)
            axes.stairs(height, edges[name], color=colour, lw=1.6, label=manifest.classes[kind])
            axes.stairs(height, edges[name], color=colour, fill=True, alpha=0.18, lw=0)
        axes.set(xlabel=title, yticks=[], ylim=(0, None))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        if logarithmic:
            axes.set_xscale("log")
            ticks = _ticks(edges[name])
            axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axes.minorticks_off()
        if name == names[0]:
            axes.set_title(which or "all films")
    for axes in panels[len(drawn) :]:
        axes.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _enough(label: NDArray[Any]) -> bool:
    return bool((label == 0).sum() >= LEAST or (label == 1).sum() >= LEAST)


def _edges(values: NDArray[Any], logarithmic: bool) -> NDArray[Any]:
    """Bins over the middle 99 % of the values, or around them where they hardly differ."""
    bins = int(np.clip(np.sqrt(len(values)), 12, 36))
    low, high = np.quantile(values, [0.005, 0.995])
    if high - low < 1e-6 * max(1.0, abs(high)):
        spread = 0.1 * max(abs(high), 1e-3)
        low, high = low - spread, high + spread
    if logarithmic and low > 0:
        return np.geomspace(low, high, bins + 1)
    return np.linspace(low, high, bins + 1)


def _ticks(edges: NDArray[Any]) -> Sequence[float]:
    """Round numbers on a log axis: finer ones where it spans less than a decade."""
    for steps in ((1, 2, 5), (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)):
        marks = [m * 10.0**e for e in range(-3, 9) for m in steps]
        inside = [m for m in marks if edges[0] <= m <= edges[-1]]
        if len(inside) > 2:
            break
    return inside or [float(edges[0]), float(edges[-1])]
