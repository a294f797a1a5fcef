"""``hilum audit``: look at a data set before a model learns it. Reports, never refuses."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hilum
from hilum import machine, names
from hilum.audit import duplicates, probes, survey
from hilum.audit.duplicates import KINDS, Group
from hilum.audit.findings import Finding
from hilum.audit.probes import Probing
from hilum.audit.rules import films_by_part, findings
from hilum.audit.survey import NUMBERS, WORDS, Survey
from hilum.datasets.index import open_data
from hilum.errors import require
from hilum.films.workers import Workers
from hilum.progress import SILENT, Progress
from hilum.storage import atomic_write, dated_folder, new_folder, unless_empty, write_json

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest

FORMAT = 1
LISTED = 100  # groups and films that audit.json lists; the tables list all


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes
    ----------
    folder : where it was written: ``audit.json``, ``duplicates.csv``, ``facts.csv``,
        ``report.html``, ``figures/``
    seen, groups, probing : what was looked at
    findings : the most serious first
    seconds : wall time of each step
    """

    folder: Path
    manifest: Manifest
    seen: Survey
    groups: list[Group]
    probing: Probing
    findings: list[Finding]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """(path, reason) of the films that could not be read."""
        return [
            (self.manifest.shown(self.manifest.path[row]), reason.text)
            for row, reason in self.seen.unreadable
        ]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of the findings, for a terminal."""
        return ["", "finding"], [[f.severity, f.title] for f in self.findings]

    def as_dict(self) -> dict[str, Any]:
        """The content of ``audit.json``."""
        manifest = self.manifest
        negative, positive = manifest.classes
        return {
            "format": FORMAT,
            "hilum": hilum.__version__,
            "data": {"name": manifest.name, "digest": manifest.digest, "task": manifest.task},
            "films": len(manifest),
            "readable": int(self.seen.readable.sum()),
            "patients": manifest.patient.distinct(),
            "parts": {
                part or "none": {negative: n0, positive: n1}
                for part, (n0, n1) in films_by_part(manifest, self.seen).items()
            },
            "films_a_patient": films_a_patient(manifest),
            "findings": [finding.as_dict() for finding in self.findings],
            "copies": {
                "groups": len(self.groups),
                **{kind: sum(g.kind == kind for g in self.groups) for kind in KINDS},
                "listed": [
                    {
                        "kind": group.kind,
                        "similarity": round(group.similarity, 4),
                        "films": [manifest.shown(manifest.path[row]) for row in group.rows],
                    }
                    for group in self.groups[:LISTED]
                ],
            },
            "unreadable": _listed(self.seen.unreadable, manifest),
            "refused": _listed(self.seen.refused, manifest),
            "probes": self.probing.as_dict(),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "processor": machine.processor(),
        }


def audit(
    data: Manifest | str | Path | Sequence[str | Path],
    *,
    out: Path | str | None = None,
    workers: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
    **options: Any,
) -> Audit:
    """Look for what would make a model, or its figures, wrong; draws no parts.

    Parameters
    ----------
    data : films with labels: a manifest, or whatever ``hilum.index`` takes
    out : a new folder; a dated one here where None
    workers : processes that read films; all cores by default
    seed : of folds and bootstrap
    options : of ``hilum.index``

    Raises
    ------
    FolderTaken
        The folder holds another result.
    """
    require("report")
    options["allow_leak"] = True  # an audit reports and never refuses
    manifest = open_data(data, draw=False, progress=progress, **options)
    folder = new_folder(out or dated_folder("audit"))
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    with unless_empty(folder), Workers(workers) as pool:
        seen = survey.survey(manifest, pool, progress)
        clock.lap("looking")
        groups = duplicates.find(manifest, seen, pool, progress)
        clock.lap("comparing")
        probing = probes.probe(manifest, seen, seed=seed, progress=progress)
        clock.lap("probing")
        found = Audit(
            folder,
            manifest,
            seen,
            groups,
            probing,
            findings(manifest, seen, groups, probing),
            seconds,
        )
        from hilum.audit.document import write_report

        _write_copies(found)
        _write_facts(found)
        with progress.stage("report", 1) as advance:
            write_report(found, pool)
            advance(1)
        clock.lap("reporting")
    write_json(folder / "audit.json", found.as_dict())
    return found


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


def films_a_patient(manifest: Manifest) -> dict[str, dict[str, float]]:
    """Mean, median and most films a patient, by part and class (``train NORMAL``)."""
    found = {}
    patient = manifest.patient.first_rows()
    for name in manifest.parts_and_rest():
        here = manifest.part.equal(name)
        for kind, word in enumerate(manifest.classes):
            films = np.unique(patient[here & (manifest.label == kind)], return_counts=True)[1]
            if len(films):
                found[f"{name} {word}".strip()] = {
                    "patients": len(films),
                    "mean": round(float(films.mean()), 3),
                    "median": float(np.median(films)),
                    "most": int(films.max()),
                }
    return found


def _listed(items: list[tuple[int, Any]], manifest: Manifest) -> dict[str, Any]:
    return {
        "films": len(items),
        "by_code": dict(Counter(reason.code for _, reason in items).most_common()),
        "listed": [
            {"film": manifest.shown(manifest.path[row]), **reason.as_dict()}
            for row, reason in items[:LISTED]
        ],
    }


def _write_copies(found: Audit) -> None:
    manifest = found.manifest
    with atomic_write(found.folder / "duplicates.csv", "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["group", "kind", "similarity", "path", "label", "patient", "part"])
        for number, group in enumerate(found.groups, 1):
            for row in group.rows:
                label = int(manifest.label[row])
                table.writerow(
                    [number, group.kind, f"{group.similarity:.4f}",
                     manifest.shown(manifest.path[row]), "" if label < 0 else label,
                     names.patient(manifest.patient[row]), manifest.part[row]]
                )  # fmt: skip


def _write_facts(found: Audit) -> None:
    """One row a film: what was seen of its file."""
    manifest, seen = found.manifest, found.seen
    reasons = {row: (f"{r.code}: {r.text}", "") for row, r in seen.unreadable}
    reasons |= {row: ("", f"{r.code}: {r.text}") for row, r in seen.refused}
    with atomic_write(found.folder / "facts.csv", "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            [
                "path",
                "label",
                "patient",
                "part",
                *NUMBERS,
                *WORDS,
                "sha256",
                "unreadable",
                "refused",
            ]
        )
        columns = [seen.numbers[name] for name in NUMBERS]
        for row, path in enumerate(manifest.path):
            label = int(manifest.label[row])
            numbers = [column[row] for column in columns]
            table.writerow(
                [manifest.shown(path), "" if label < 0 else label,
                 names.patient(manifest.patient[row]), manifest.part[row],
                 *("" if np.isnan(x) else f"{x:.6g}" if x % 1 else int(x) for x in numbers),
                 *(seen.words[name][row] for name in WORDS),
                 seen.file[np.array([row])].tobytes().hex() if seen.readable[row] else "",
                 *reasons.get(row, ("", ""))]
            )  # fmt: skip
