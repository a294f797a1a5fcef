"""Figures of an evaluation: each function draws one, from what was measured.

A model's name is its key in ``models``; the first is drawn in one colour, the second in another.
Call them inside ``hilum.report.plot_style()``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.decision import OperatingPoint, decide
from hilum.evaluation import calibration, metrics
from hilum.evaluation.measure import AtPoint, Measured
from hilum.evaluation.subgroups import COLUMNS, Subgroup
from hilum.report import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Models = Mapping[str, Measured]

#: Published operating points, drawn into the ROC for orientation: (false positive rate, recall).
#: They are of other films; see docs/evaluate.md for their sources.
PUBLISHED = {
    "the paper's (2021), other films": (1 - 0.8162, 0.9923, "D"),
    "Kermany et al. (2018), other films": (1 - 0.901, 0.932, "s"),
}

_PROBABILITIES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def _axes(width: float = 4.25, height: float = 4.1, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(**options)


def _colours(models: Models) -> dict[str, str]:
    return dict(zip(models, (INK["first"], INK["second"]), strict=False))


def _points(axes: Axes, models: Models, place: Any) -> None:
    """Mark each model's operating points; ``place(at)`` gives x and y."""
    for name, colour in _colours(models).items():
        for marker, at in zip("ovP*X", models[name].points.values(), strict=False):
            x, y = place(at)
            if x is not None and y is not None:
                axes.plot(
                    [x], [y], marker, color=colour, markersize=7, markeredgecolor=INK["paper"],
                    label=at.point.name if len(models) == 1 else f"{at.point.name}, {name}",
                )  # fmt: skip


def confusion(at: AtPoint, classes: tuple[str, str], target: str, title: str) -> Figure:
    """The confusion matrix as the paper's table 6: rows are the reference standard."""
    figure, axes = _axes(5.0, 3.2)
    counts = at.counts
    table = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
    referred = np.array([counts["referred_positive"], counts["referred_negative"]])[::-1]
    heads = [f"{target}\nnot suspected", f"{target}\nsuspected"]
    if referred.any():
        table, heads = np.column_stack([table, referred]), [*heads, "referred\nto a reader"]
    share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    for row in range(2):
        for column in range(table.shape[1]):
            right = row == column
            axes.add_patch(
                _box(column, row, INK["healthy"] if right else INK["ill"], share[row, column])
            )
            dark = share[row, column] > 0.55
            colour = INK["paper"] if dark else INK["text"]
            axes.text(column, row - 0.06, f"{table[row, column]:,}", ha="center", va="center",
                      fontsize=15, color=colour)  # fmt: skip
            axes.text(column, row + 0.24, f"{share[row, column]:.1%}", ha="center", va="center",
                      fontsize=8.5, color=colour)  # fmt: skip
    axes.set(xlim=(-0.5, table.shape[1] - 0.5), ylim=(1.5, -0.5), title=title)
    axes.set_xticks(range(table.shape[1]), heads)
    axes.set_yticks([0, 1], [f"{classes[0]}\n(n = {table[0].sum():,})",
                             f"{classes[1]}\n(n = {table[1].sum():,})"])  # fmt: skip
    axes.set_ylabel("reference standard")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _box(column: int, row: int, colour: str, strength: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=0.08 + 0.82 * strength
    )


def roc(models: Models, *, published: bool = True) -> Figure:
    """ROC curves with the operating points, and published ones of other films."""
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color=INK["line"], lw=1)
    for name, colour in _colours(models).items():
        answered = models[name].answered
        fpr, recall = metrics.roc_curve(answered.label, answered.probability)
        area = models[name].ranking["auroc"]
        # Straight from score to score: where films tie, half of each pair counts, as in the area.
        axes.plot(fpr, recall, color=colour, label=f"{name}: AUROC {area}")
    _points(
        axes,
        models,
        lambda at: (
            None
            if at.answered["specificity"].value is None
            else 1 - at.answered["specificity"].value,
            at.answered["recall"].value,
        ),
    )
    if published:
        for label, (x, y, marker) in PUBLISHED.items():
            axes.plot([x], [y], marker, color="none", markeredgecolor=INK["soft"], label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), box_aspect=1)
    axes.set(xlabel="1 − specificity", ylabel="recall (sensitivity)")
    axes.legend(loc="lower right")
    return figure


def precision_recall(models: Models) -> Figure:
    """Precision over recall, with the precision of calling every film positive."""
    figure, axes = _axes()
    for name, colour in _colours(models).items():
        answered = models[name].answered
        recall, precision = metrics.precision_recall_curve(answered.label, answered.probability)
        area = models[name].ranking["average_precision"]
        axes.plot(recall, precision, color=colour, label=f"{name}: average precision {area}")
        share = float(answered.label.mean())
        axes.axhline(share, color=INK["line"], lw=1.2, zorder=1)
    axes.text(0.01, share - 0.012, f"every film called positive: {share:.2f}", va="top",
              fontsize=8, color=INK["soft"])  # fmt: skip
    _points(axes, models, lambda at: (at.answered["recall"].value, at.answered["precision"].value))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), box_aspect=1)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV on these films)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.02))
    return figure


def reliability(models: Models) -> Figure:
    """Observed share of positives over predicted probability, one panel a model."""
    figure, panels = _axes(4.25 * len(models), 4.4, ncols=len(models), squeeze=False)
    for axes, (name, measured), colour in zip(
        panels[0], models.items(), _colours(models).values(), strict=True
    ):
        answered = measured.answered
        points = calibration.reliability(
            answered.label, answered.probability, np.asarray(answered.patient)
        )
        x = points["predicted"]
        axes.plot([0, 1], [0, 1], color=INK["soft"], lw=0.8, ls=":")
        axes.fill_between(x, points["low"], points["high"], color=INK["band"], lw=0,
                          label="95 % band of right probabilities")  # fmt: skip
        axes.plot(x, points["observed"], "o-", color=colour, markersize=4.5, lw=1.2,
                  label="ten groups of equally many films")  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), box_aspect=1, title=name)
        axes.set(xlabel="predicted probability", ylabel="observed share of positive films")
        axes.legend(loc="upper left")
    return figure


def scores(models: Models, words: tuple[str, str]) -> Figure:
    """Histograms of the probability by class, on a logit scale, with the thresholds."""
    figure, panels = _axes(8.8, 2.5 * len(models) + 0.4, nrows=len(models), squeeze=False)
    edges = np.linspace(-8, 8, 65)
    ticks = metrics.logit(np.array(_PROBABILITIES))
    for axes, (name, measured) in zip(panels[:, 0], models.items(), strict=True):
        answered = measured.answered
        z = np.clip(metrics.logit(answered.probability), -7.99, 7.99)
        for kind, sign, colour in ((1, 1, INK["ill"]), (0, -1, INK["healthy"])):
            count = np.histogram(z[answered.label == kind], edges)[0]
            axes.bar(edges[:-1], sign * count, np.diff(edges), align="edge", color=colour,
                     lw=0, label=words[kind])  # fmt: skip
        low, top = axes.get_ylim()
        axes.set_ylim(low * 1.05, top * 1.25)
        for k, at in enumerate(measured.points.values()):
            place = float(metrics.logit(np.array(at.point.threshold)))
            axes.axvline(place, color=INK["text"], lw=1, ls=(0, (4, 2)))
            axes.text(place + 0.07, top * (1.22 - 0.13 * k), at.point.name, fontsize=8.5, va="top")
        axes.axhline(0, color=INK["soft"], lw=0.8)
        axes.set_xticks(ticks, [f"{p:g}" for p in _PROBABILITIES])
        axes.set(xlim=(-8, 8), ylabel="films", title=name if len(models) > 1 else "")
        axes.yaxis.get_major_locator().set_params(integer=True)  # films are whole
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        # Above the axes: a threshold may lie anywhere in them.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    panels[-1, 0].set_xlabel("predicted probability")
    return figure


def predictive(models: Models, point: Mapping[str, str], words: str) -> Figure:
    """PPV and NPV over the share of positive films, at each model's point."""
    figure, axes = _axes(8.8, 3.2)
    prevalence = np.geomspace(0.002, 0.7, 120)
    for name, colour in _colours(models).items():
        at = models[name].points[point[name]]
        recall, specificity = at.answered["recall"].value, at.answered["specificity"].value
        if recall is None or specificity is None:
            continue
        label = "" if len(models) == 1 else f", {name}"
        for curve, key, style in zip(
            metrics.predictive_values(recall, specificity, prevalence),
            ("ppv", "npv"),
            ("-", "--"),
            strict=True,
        ):
            axes.plot(prevalence, curve, style, color=colour, label=f"{key.upper()}{label}")
            for share, values in at.predictive.items():
                e = values[key]
                if e.low is not None and e.high is not None:
                    axes.plot([share, share], [e.low, e.high], color=colour, lw=1)
    axes.set_xscale("log")
    ticks = (0.005, 0.01, 0.05, 0.1, 0.3, 0.6)
    axes.set_xticks(ticks, [f"{100 * t:g} %" for t in ticks], minor=False)
    axes.minorticks_off()
    axes.set(
        ylim=(-0.02, 1.02), xlabel=f"share of films that show {words}", ylabel="predictive value"
    )
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
    return figure


def net_benefit(label: Any, probability: Any, threshold: float) -> float:
    """Vickers and Elkin's (2006): true positives less weighted false ones, a film."""
    decision = decide(probability, OperatingPoint("sweep", threshold))
    counts = metrics.cells(label, decision).sum(axis=0)
    return float((counts[0] - counts[1] * threshold / (1 - threshold)) / len(label))


def decision_curve(models: Models) -> Figure:
    """Net benefit over the probability at which one would act."""
    figure, axes = _axes(4.25, 3.3)
    sweep = np.linspace(0.01, 0.95, 95)
    share = 0.0
    for name, colour in _colours(models).items():
        answered = models[name].answered
        share = float(answered.label.mean())
        curve = [net_benefit(answered.label, answered.probability, t) for t in sweep]
        axes.plot(sweep, curve, color=colour, label=name)
    everyone = share - (1 - share) * sweep / (1 - sweep)
    axes.plot(sweep, everyone, color=INK["soft"], lw=1.1, ls="--", label="act on every film")
    axes.axhline(0, color=INK["text"], lw=0.9, label="act on none")
    axes.set(xlim=(0, 0.96), ylim=(-0.08, max(0.1, 1.08 * share)))
    axes.set(xlabel="probability at which one would act", ylabel="net benefit a film")
    axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.42))
    return figure


def abstention(models: Models, point: Mapping[str, str]) -> Figure:
    """What remains wrong when the least sure films go to a reader."""
    figure, axes = _axes(4.25, 3.3)
    for name, colour in _colours(models).items():
        curve = abstention_curve(models[name], point[name])
        for key, style in (("accuracy", "-"), ("recall", "--"), ("specificity", ":")):
            label = key if len(models) == 1 else f"{key}, {name}"
            axes.plot(curve["referred"], curve[key], style, color=colour, label=label)
    axes.set(xlim=(0, 0.5), xlabel="share of films referred, the least sure first")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set(ylabel="among the films answered")
    low = min(line.get_ydata()[np.isfinite(line.get_ydata())].min() for line in axes.lines)
    axes.set_ylim(max(0.0, low - 0.03), 1.005)
    axes.legend(loc="lower right")
    return figure


def abstention_curve(measured: Measured, point: str) -> dict[str, Any]:
    """Rates among the rest when the share ``referred`` nearest the threshold is referred."""
    answered = measured.answered
    at = measured.points[point].point
    distance = np.abs(metrics.logit(answered.probability) - metrics.logit(np.array(at.threshold)))
    order = np.argsort(-distance, kind="stable")
    member = metrics.cells(answered.label, decide(answered.probability, at))[order]
    keep = np.unique(np.linspace(0.5, 1, 101) * len(order) + 0.5).astype(int)
    keep = keep[keep > 0]
    rates = metrics.rates(np.cumsum(member, axis=0)[keep - 1])
    return {
        "referred": 1 - keep / len(order),
        **{k: rates[k] for k in ("accuracy", "recall", "specificity")},
    }


def forest(groups: Sequence[Subgroup], overall: Mapping[str, Any]) -> Figure:
    """Recall, specificity and AUROC of each subgroup with intervals, beside the whole."""
    rows: list[tuple[str, Subgroup | None]] = []
    for column in dict.fromkeys(group.column for group in groups):
        rows.append((COLUMNS[column], None))
        rows += [(group.name, group) for group in groups if group.column == column]
    told = ("recall", "specificity", "auroc")
    keys = [key for key in told if any(getattr(g, key).value is not None for g in groups)]
    figure, grid = _axes(8.8, 0.9 + 0.27 * len(rows), ncols=len(keys), sharey=True, squeeze=False)
    panels = grid[0]
    for axes, key in zip(panels, keys, strict=True):
        if overall[key].value is not None:
            axes.axvline(overall[key].value, color=INK["soft"], lw=1, ls="--")
        lows = [1.0]
        for y, (_, group) in enumerate(rows):
            estimate = None if group is None else getattr(group, key)
            if estimate is None or estimate.value is None:
                continue
            if estimate.low is not None and estimate.high is not None:
                axes.plot([estimate.low, estimate.high], [y, y], color=INK["first"], lw=1.4)
                lows.append(estimate.low)
            axes.plot([estimate.value], [y], "s", color=INK["first"], markersize=5)
            lows.append(estimate.value)
        axes.set(xlim=(max(0.0, min(lows) - 0.04), 1.02), title={"auroc": "AUROC"}.get(key, key))
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    names = [
        name if group is None else f"{name}  ({group.negatives} + {group.positives})"
        for name, group in rows
    ]
    panels[0].set_yticks(range(len(rows)), names)
    for text, (_, group) in zip(panels[0].get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if group is None else "normal")
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure
