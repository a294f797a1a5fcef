"""Judge one model or two on the films of a manifest: figures, scores, pictures, a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hilum
from hilum.datasets.index import open_data
from hilum.errors import Refused, UsageError, require
from hilum.evaluation import measure as measuring
from hilum.evaluation.caveats import caveats
from hilum.evaluation.controls import Control, controls
from hilum.evaluation.intervals import DRAWS
from hilum.evaluation.measure import Measured
from hilum.evaluation.paired import differences as differences_of
from hilum.evaluation.scores import Scores, fill, score_cached
from hilum.evaluation.subgroups import Subgroup, subgroups
from hilum.inference.model import Model, load
from hilum.progress import SILENT, Progress
from hilum.storage import dated_folder, new_folder, unless_empty, write_json

if TYPE_CHECKING:
    from hilum.datasets.cache import Cache
    from hilum.datasets.manifest import Manifest

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was judged, what came out, and where it lies.

    Attributes
    ----------
    folder : with ``metrics.json``, ``scores.csv``, ``figures/`` and ``report.html``
    manifest : the films that were asked for (of the part)
    part : the part, or ``"all"``
    models, scores, measured, groups : by the model's name in this evaluation, in order
    controls : shortcut controls on the judged films
    differences : of two models, second less first (see ``paired.differences``), or None
    warnings : sentences that must not be missed
    unreadable : (film, reason) of every film that could not be read; exit code 4 if there is one
    """

    folder: Path
    manifest: Manifest
    part: str
    models: dict[str, Model]
    scores: dict[str, Scores] = field(repr=False)
    measured: dict[str, Measured] = field(repr=False)
    groups: dict[str, list[Subgroup]] = field(repr=False)
    controls: list[Control] = field(repr=False)
    differences: dict[str, Any] | None = field(repr=False)
    warnings: list[str]
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def flow(self) -> dict[str, int]:
        """Films by what became of them, under the first model."""
        scores = next(iter(self.scores.values()))
        judged = scores.is_judged
        return {
            "found": len(scores),
            "unreadable": int(scores.is_unreadable.sum()),
            "without_label": int(((scores.label < 0) & ~scores.is_unreadable).sum()),
            "judged": int(judged.sum()),
            "refused": int((judged & np.isnan(scores.probability)).sum()),
            "answered": int((judged & ~np.isnan(scores.probability)).sum()),
        }

    def default_point(self, name: str) -> str:
        """The operating point that the model of that name uses by itself."""
        return str(self.models[name].bundle.default_operating_point)

    def as_dict(self) -> dict[str, Any]:
        """What ``metrics.json`` holds."""
        return {
            "format": FORMAT,
            "hilum": hilum.__version__,
            "data": {
                "folder": self.manifest.name,
                "digest": self.manifest.digest,
                "task": self.manifest.task,
                "classes": list(self.manifest.classes),
                "notes": self.manifest.shown_notes(),
            },
            "models": {
                name: {
                    "name": model.bundle.name,
                    "digest": model.bundle.digest,
                    "default_operating_point": self.default_point(name),
                }
                for name, model in self.models.items()
            },
            "flow": self.flow,
            "warnings": self.warnings,
            "unreadable": [{"film": film, "reason": reason} for film, reason in self.unreadable],
            "parts": {self.part: {name: m.as_dict() for name, m in self.measured.items()}},
            "subgroups": {
                name: [group.as_dict() for group in groups] for name, groups in self.groups.items()
            },
            "controls": [control.as_dict() for control in self.controls],
            "differences": _plain(self.differences),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of the short table for a terminal: one row a metric."""
        rows: list[list[str]] = []
        for metric in measuring.RANKING:
            rows.append([metric, *(str(m.ranking[metric]) for m in self.measured.values())])
        names = list(self.measured)
        shared = [
            point
            for point in self.measured[names[0]].points
            if all(point in m.points for m in self.measured.values())
        ]
        for point in shared:
            for metric in ("accuracy", "recall", "specificity", "precision", "f1"):
                rows.append(
                    [
                        f"{point}: {metric}",
                        *(str(m.points[point].strict[metric]) for m in self.measured.values()),
                    ]
                )
        for metric in ("brier", "calibration_slope"):
            rows.append([metric, *(str(m.calibration[metric]) for m in self.measured.values())])
        return [f"{self.part}, {self.flow['judged']} films", *names], rows


def evaluate(
    data: Manifest | str | Path | Sequence[str | Path],
    model: Model | str | Path | Sequence[Model | str | Path] | None = None,
    *,
    part: str | None = None,
    out: Path | str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Evaluation:
    """Judge models on labelled films and write the folder of an evaluation.

    Parameters
    ----------
    data : films with labels: a manifest, or whatever ``hilum.index`` takes (no parts are drawn)
    model : one, or two that are then compared film by film; loaded, or the path of a bundle
        or a run; the one that ships where None
    part : ``test`` where None; films without parts are all judged
    out : a new folder; a dated one here where None
    draws, seed : of the bootstrap
    options : of ``hilum.index``

    Raises
    ------
    UsageError
        The part is absent, or there are more than two models.
    Refused
        No film has a label, or none can be read.
    FolderTaken
        The folder holds another result.
    """
    require("report")
    some = [model] if model is None or isinstance(model, str | Path | Model) else list(model)
    listed = [one if isinstance(one, Model) else load(one) for one in some]
    if not 1 <= len(listed) <= 2:
        raise UsageError(f"one model or two can be judged at once: {len(listed)} were given.")
    named = dict(zip(_names(listed), listed, strict=True))
    manifest = open_data(data, draw=False, progress=progress, **options)
    if part is None and manifest.parts():
        part = "test"
    if part is not None:
        manifest = manifest.of_part(part)
    if not (np.asarray(manifest.label) >= 0).any():
        raise Refused(
            f"no film has a label: {manifest.name}. Use hilum predict for films without labels."
        )
    folder = new_folder(out or dated_folder("evaluation"))
    with unless_empty(folder):
        caches = {name: fill(one, manifest, workers, progress) for name, one in named.items()}
        scores = {
            name: score_cached(one, manifest, caches[name], progress) for name, one in named.items()
        }
        first = scores[next(iter(named))]
        unreadable = [(film, why) for film, why in zip(first.film, first.error, strict=True) if why]
        if not first.is_judged.any():
            raise Refused(
                f"no labelled film can be read: {manifest.name} ({unreadable[0][1]}). "
                "Mend the films, or name another folder."
            )
    with progress.stage("measuring", 3 * len(named) + 2) as advance:
        measured, groups = {}, {}
        for name, one in named.items():
            points = one.bundle.operating_points
            measured[name] = measuring.measure(scores[name], points, draws=draws, seed=seed)
            advance(2)
            default = points[one.bundle.default_operating_point]
            groups[name] = subgroups(
                scores[name], manifest.extra, default, draws=min(draws, 1000), seed=seed
            )
            advance(1)
        differences = None
        if len(named) == 2:
            differences = differences_of(*measured.values(), draws=draws, seed=seed)
        advance(1)
        plain = _controls(manifest, first, caches[next(iter(named))])
        advance(1)
    evaluation = Evaluation(
        folder=folder,
        manifest=manifest,
        part=part or "all",
        models=named,
        scores=scores,
        measured=measured,
        groups=groups,
        controls=plain,
        differences=differences,
        warnings=caveats(manifest, part, named, scores, measured),
        unreadable=unreadable,
    )
    for sentence in evaluation.warnings:
        progress.warn(sentence)
    _write(evaluation, caches, progress)
    return evaluation


def _write(evaluation: Evaluation, caches: dict[str, Cache], progress: Progress) -> None:
    from hilum.decision import decide
    from hilum.evaluation.document.compose import write_report

    write_json(evaluation.folder / "metrics.json", evaluation.as_dict())
    for k, (name, scores) in enumerate(evaluation.scores.items()):
        decisions = {
            point.name: decide(scores.probability, point)
            for point in evaluation.models[name].bundle.operating_points.values()
        }
        for column in decisions.values():
            column[scores.is_unreadable] = ""
        file = "scores.csv" if k == 0 else f"scores-{k + 1}.csv"
        scores.write(evaluation.folder / file, **decisions)
    with progress.stage("figures and report", 1) as advance:
        write_report(evaluation, caches)
        advance(1)


def _names(models: Sequence[Model]) -> list[str]:
    names = [model.bundle.name for model in models]
    if len(set(names)) == len(names):
        return names
    ends = [f"{model.bundle.name} {model.bundle.digest[:6]}" for model in models]
    if len(set(ends)) < len(ends):
        raise UsageError(f"the same model was given twice: {names[0]}. Name it once.")
    return ends


def _controls(manifest: Manifest, scores: Scores, cache: Cache) -> list[Control]:
    rows = np.flatnonzero(scores.is_judged & (cache.rows >= 0))
    files = manifest.select(rows).files()
    sizes = None
    if files and all(file.is_file() for file in files):
        sizes = np.array([file.stat().st_size for file in files])
    patient = np.asarray(scores.patient, dtype=object)[rows]
    return controls(cache.pixels, cache.rows[rows], scores.label[rows], patient, sizes)


def _plain(content: Any) -> Any:
    """Estimates within dictionaries as JSON."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    return content.as_dict() if hasattr(content, "as_dict") else content
