"""The section of the closing wishes, and their table."""

from __future__ import annotations

from html import escape
from typing import Any

from hilum import report
from hilum.experiments.compare.tables import Cell, Table
from hilum.experiments.reproduce.wishes import Wishes


def table(found: Wishes) -> Table:
    """All trainings of the wishes."""
    rows: list[list[Cell]] = []
    for row in ("patients", "size", "network"):
        for p in found.of(row):
            estimates = [e for m in (p.accuracy, p.auroc) for e in _cells(m)]
            rows.append(
                [row, p.patients, p.films, p.setting.size, p.setting.parameters, p.epochs,
                 p.seconds, *estimates, p.remark]
            )  # fmt: skip
    heads = (
        "varied", "patients", "films", "pixels", "parameters", "epochs", "seconds",
        "accuracy", "accuracy low", "accuracy high", "AUROC", "AUROC low", "AUROC high", "remark",
    )  # fmt: skip
    forms = ("", ",", ",", "", ",", "", "s", *[".3f"] * 6, "")
    return Table("wishes", "The closing wishes", heads, rows, forms)


def _cells(estimate: Any) -> list[Cell]:
    return [None] * 3 if estimate is None else [estimate.value, estimate.low, estimate.high]


def _judged(found: Wishes) -> str:
    """How many films they were judged on: ``87 films of ``; nothing where all failed."""
    counts = sorted({p.accuracy.n for p in found.points.values() if p.accuracy is not None})
    return f"{' or '.join(f'{n:,}' for n in counts)} films of " if counts else ""


def _without_interval(found: Wishes) -> str:
    """Why an AUROC stands without an interval, where one does."""
    without = [
        p.auroc
        for p in found.points.values()
        if p.auroc is not None and None in (p.auroc.low, p.auroc.high)
    ]
    reasons = []
    if any(auroc.value is None for auroc in without):
        reasons.append("the judged films are all of one class")
    if any(auroc.value is not None and "no interval" in auroc.method for auroc in without):
        reasons.append("all draws of patients gave the same")
    if any(auroc.value is not None and "no interval" not in auroc.method for auroc in without):
        reasons.append(
            "the judged patients of one class are so few that more than one draw in twenty had "
            "none of them"
        )
    return f"An AUROC has no interval (–) where {', or '.join(reasons)}." if reasons else ""


def section(found: Wishes, made: Table, drawn: str) -> report.Section:
    """What they were, and how they came out."""
    body = (
        "<p>“By increasing the dataset or creating a more complex model, this can be done.” Small "
        "trainings that change one thing each: the patients learnt from (smaller sets within the "
        "larger; fewer patients, more epochs, so that all take as many steps; the learning rate "
        "stays, since the paper’s schedule counts epochs), the size of the "
        f"films, the width of the network. One seed each, on {escape(found.place)}, films of "
        f"{found.size} × {found.size} where size is not what is varied, judged on "
        f"{_judged(found)}{escape(found.part)}, the accuracy at one half.</p>"
        + report.figure(drawn, "Accuracy and AUROC, with 95 % intervals by patient.",
                        "fig-wishes", wide=True)
        + made.html(kind="", without=("remark",))
        + f"<p>One seed each: differences smaller than the intervals say nothing. "
        f"{_without_interval(found)}</p>"
    )  # fmt: skip
    return report.Section("The closing wishes", body, "wishes")
