"""Sections of the report on how films and files look by part and class: curves, medians, means."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum import report
from hilum.audit import figures
from hilum.audit.columns import Facts
from hilum.audit.rules import films_by_part
from hilum.report import Section

if TYPE_CHECKING:
    from hilum.audit.audit import Audit


def distributions(audit: Audit, folder: Path) -> Section | None:
    """How films and their files look by class; figures go into this folder."""
    rows = np.flatnonzero(audit.seen.readable & (audit.manifest.label >= 0))
    if not len(rows):
        return None
    columns = Facts(audit.seen, rows)
    with report.plot_style():
        drawn = report.save(figures.distributions(audit, columns, rows), folder, "distributions")
    body = report.figure(
        drawn,
        "Share of the films of each class. Where the two curves lie apart, a model can tell the "
        "class without looking at lungs; where a column differs from the next, films of one part "
        "are unlike those of the other.",
        "distributions",
        wide=True,
    )
    return Section(
        "Size, shape, compression, brightness", body + _medians(audit, columns, rows), "looks"
    )


_MEDIANS = {
    "bytes": ("file size, kB", 1e-3, ",.1f"),
    "bits_a_pixel": ("bits a pixel", 1, ".2f"),
    "jpeg_quality": ("JPEG quality", 1, ".0f"),
    "width": ("width, pixels", 1, ",.0f"),
    "height": ("height, pixels", 1, ",.0f"),
    "aspect": ("width / height", 1, ".2f"),
    "mean": ("brightness", 1, ".0f"),
    "spread": ("contrast", 1, ".0f"),
}


def _medians(audit: Audit, columns: Facts, rows: NDArray[np.int64]) -> str:
    """Medians by part and class, and how many films have a profile."""
    manifest = audit.manifest
    label = manifest.label[rows]
    groups = {
        f"{name} {manifest.classes[kind]}".strip(): manifest.part.equal(name)[rows]
        & (label == kind)
        for name in films_by_part(manifest, audit.seen)
        for kind in (0, 1)
    }
    groups = {name: here for name, here in groups.items() if here.any()}
    cells = []
    for column, (words, unit, form) in _MEDIANS.items():
        if np.isfinite(columns[column]).any():
            medians = [columns[column][here] for here in groups.values()]
            cells.append([words, *(_median(values * unit, form) for values in medians)])
    shares = [(columns["profile_bytes"][here] > 0).mean() for here in groups.values()]
    cells.append(["with an ICC profile", *(f"{share:.0%}" for share in shares)])
    return "<h3>Medians</h3>" + report.table(["", *map(escape, groups)], cells)


def _median(values: NDArray[np.float64], form: str) -> str:
    known = values[np.isfinite(values)]
    return f"{np.median(known):{form}}" if len(known) else "–"


def averages(audit: Audit) -> Section | None:
    """The mean film of each part and class: borders, letters and posture show as they are."""
    from hilum.films.picture import mosaic, png, resized

    manifest, seen = audit.manifest, audit.seen
    films, words = [], []
    for name, counts in films_by_part(manifest, seen).items():
        for kind, count in enumerate(counts):
            if count < figures.LEAST:
                continue
            here = manifest.part.equal(name) & (manifest.label == kind) & seen.readable
            rows = np.flatnonzero(here)
            total = sum(batch.sum(axis=0, dtype=np.float64) for batch in seen.batches(rows))
            films.append(resized(total / len(rows), 160, 160, cubic=True))
            words.append(f"{name} {manifest.classes[kind]} ({count:,})".strip())
    if not films:
        return None
    page = mosaic(films, 4, words)
    body = (
        "<p>Each is the mean of all films of its part and class, squashed to a square. "
        "Collimation, letters, posture and size of the chest that differ between classes show "
        "here.</p>"
        f"<div>{report.image(png(page), 'mean films by part and class')}</div>"
    )
    return Section("Average films", body, "average")
