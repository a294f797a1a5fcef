"""When a place's longer set-up has paid, in words and as a section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from hilum import report
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.speed import times
from hilum.experiments.compare.tables import seconds
from hilum.report import Section


def pays(row: Mapping[str, Any]) -> str:
    """When a place's set-up has paid, in words: a row of ``Comparison.break_even``."""
    if not row["known"]:
        if row["between"] is None:
            return "not known (one epoch)"
        low, high = map(times, row["between"])
        return f"not known ({low} to {high} times as fast)"
    if row["epochs"] is None:
        return "never" + (" (ready sooner, slower by the epoch)" if row["setup_more"] <= 0 else "")
    if row["epochs"] == 0:
        return "from the start"
    return f"after {row['epochs']:,} epoch{'s' if row['epochs'] > 1 else ''}"


def section(comparison: Comparison) -> Section | None:
    """Set-up, and when it has paid."""
    base = comparison.places[comparison.baseline]
    rows = [[f"{escape(comparison.baseline)} (baseline)", f"{base.setup():.1f}", "", "", ""]]
    for row in comparison.break_even():
        rows.append(
            [
                escape(row["place"]),
                f"{row['setup_seconds']:.1f}",
                seconds(row["setup_more"], "+"),
                seconds(row["saved_an_epoch"], "+"),
                pays(row),
            ]
        )
    if len(rows) == 1:
        return None
    heads = ["place", "set-up s", "more than the baseline's", "s saved an epoch", "pays"]
    body = report.table(heads, rows) + (
        "<p>A place's row is of the seeds that were run in both. When it pays is not known where "
        "the 95 % interval of the speed-up by epoch holds 1; of a single run, which has none, "
        "where some epochs were faster and others slower than the baseline's, or there is one.</p>"
    )
    return Section("Setting up, and when it pays", body, "setup")
