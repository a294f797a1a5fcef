"""Where the time of a training step goes, as a section of the report."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from hilum import report
from hilum.experiments.compare.comparison import Comparison
from hilum.report import Section


def section(comparison: Comparison, drawn: dict[str, str]) -> Section | None:
    """The parts of a step in each place."""
    looked = {name: at.breakdown for name, at in comparison.measured.items() if at.breakdown}
    if not looked:
        return None
    names = list(next(iter(looked.values()))["parts"])
    rows = [
        [
            escape(name),
            *(f"{found['parts'][p]:.1f}" for p in names),
            f"{sum(found['parts'].values()):.1f}",
            f"{found['ms_per_step']:.1f}",
        ]
        for name, found in looked.items()
    ]
    methods = "; ".join(
        f"{escape(name)}: {escape(found['method'])}, {found['steps']} "
        f"{'step' if found['steps'] == 1 else 'steps'}"
        for name, found in looked.items()
    )
    body = (
        report.figure(drawn["parts"], "Where the time of a training step goes.", "fig-parts",
                      wide=True)
        + report.table(["ms a step", *names, "together", "whole, unwatched"], rows)
        + "<p>Data: the network waits while films are gathered, augmented and scaled. Transfer: to "
        "and from another device. Convolution includes ReLU and pooling where hilum's kernels do "
        "them in the same pass. Exchange: what sharing gradients adds to a step. Measured on steps "
        f"of their own, not in the timed epochs ({methods}).</p>" + _unlike(looked)
    )  # fmt: skip
    return Section("Where the time goes", body, "parts")


def _unlike(looked: dict[str, dict[str, Any]]) -> str:
    """Places whose watched steps were not like the others, as a paragraph; empty where none are."""
    names = [
        escape(name)
        for name, found in looked.items()
        if abs(math.log(sum(found["parts"].values()) / max(found["ms_per_step"], 1e-9))) > 0.25
    ]
    if not names:
        return ""
    return (
        f"<p>The parts do not add up to the unwatched step on {', '.join(names)}: the machine was "
        "not quiet, or watching costs much there. Shares are of the watched steps.</p>"
    )
