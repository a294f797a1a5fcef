"""Probes: how well plain facts tell the label, no lungs needed.

Each probe is a small boosting of trees on a few columns. It is judged twice: cross-validated by
patient within the training part, and learnt there and scored on each other part. Kind ``file``
comes from scanner and export and should tell nothing; kind ``pixel`` sees the film without its
detail, and kind ``table`` what the manifest says of view, age, sex and source: both for
information.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum import machine
from hilum.audit.columns import TABLE, Facts, numbered, thumbnail, words
from hilum.audit.survey import Survey
from hilum.decision import Estimate
from hilum.evaluation import intervals, metrics
from hilum.evaluation.controls import LEAST, LEAST_OF_A_CLASS, THUMBNAIL
from hilum.progress import SILENT, Progress

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest

Array = NDArray[Any]
Floats = NDArray[np.float64]

#: A ``file`` probe is flagged where the lower end of its interval lies above.
BOUND = 0.6
#: Of a data set with more films, patients are drawn for the probes until there are so many.
MOST = 20_000
TREES, DEPTH = 30, 3  # of the learner
DRAWS = 500  # of the bootstrap: its spread is then known to about 3 %
AT_ONCE = 250_000  # weights of films that the bootstrap holds, 8 bytes each, a few times
#: Films of the rarer class that another part needs to be scored; patients of each, anywhere.
LEAST_ELSEWHERE, LEAST_PATIENTS = 10, 8
FAMILY = 0.95  # of all intervals together
CROSS_VALIDATED = "cross-validated"


@dataclass(frozen=True)
class Probe:
    """Columns that a probe may look at, and what they are in plain words."""

    name: str
    kind: str
    looks_at: str
    columns: tuple[str, ...]


FILE = (
    Probe("file size", "file", "bytes of the file", ("bytes",)),
    Probe("bits a pixel", "file", "how strongly the film was compressed", ("bits_a_pixel",)),
    Probe("JPEG quantiser", "file", "the table that a JPEG was compressed by, which names its "
          "program and quality", ("jpeg_quality", "jpeg_oddness", "jpeg_tables")),
    Probe("ICC profile", "file", "whether a colour profile is in the file", ("profile_bytes",)),
    Probe("EXIF and other notes", "file", "what stands beside the picture in the file",
          ("exif_bytes", "metadata_bytes")),
    Probe("width", "file", "pixels in a row", ("width",)),
    Probe("height", "file", "rows of pixels", ("height",)),
    Probe("shape", "file", "width divided by height; squashed to a square it becomes stretch",
          ("aspect",)),
    Probe("colour mode", "file", "grey or colour, and bits a sample", ("colour", "bits")),
    Probe("format", "file", "JPEG, PNG, TIFF or DICOM, and how it is coded",
          ("format", "compression", "progressive")),
)  # fmt: skip
COMBINED = Probe(
    "all of the file", "file", "all file facts together",
    tuple(dict.fromkeys(column for probe in FILE for column in probe.columns)),
)  # fmt: skip
PIXEL = (
    Probe("brightness", "pixel", "mean grey value", ("mean",)),
    Probe("contrast", "pixel", "spread of the grey values", ("spread",)),
    Probe("border", "pixel", "brightness of the outer ring", ("border",)),
    Probe("thumbnail", "pixel", f"the film at {THUMBNAIL} × {THUMBNAIL} pixels", ("thumbnail",)),
)


@dataclass(frozen=True)
class Result:
    """What one probe found.

    Attributes
    ----------
    areas : AUROC by where it was judged: ``CROSS_VALIDATED``, then other parts by name
    flagged : kind ``file``, and some interval lies above ``BOUND`` altogether
    constant : all films have the same values, so there was nothing to learn
    """

    probe: Probe
    areas: dict[str, Estimate]
    flagged: bool = False
    constant: bool = False

    @property
    def travels(self) -> dict[str, bool]:
        """By other part: False where its interval lies wholly below the cross-validated one."""
        own = self.areas.get(CROSS_VALIDATED)
        if own is None or own.low is None:
            return {}
        return {
            part: not (area.high is not None and area.high < own.low)
            for part, area in self.areas.items()
            if part != CROSS_VALIDATED
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.probe.name,
            "kind": self.probe.kind,
            "looks_at": self.probe.looks_at,
            "auroc": {where: area.as_dict() for where, area in self.areas.items()},
            "flagged": self.flagged,
            "constant": self.constant,
        }


@dataclass(frozen=True)
class Probing:
    """All probes of a data set.

    Attributes
    ----------
    results : in the order of ``FILE``, the combined one, ``PIXEL``, the table's
    trained_on : name of the part that was learnt, ``"all films"`` where there are no parts
    films : how many films were learnt; elsewhere : how many were scored, by part
    confidence : of each single interval, so that all together hold with 95 %
    skipped : why nothing was measured, ``""`` where it was
    """

    results: list[Result] = field(default_factory=list)
    trained_on: str = ""
    films: int = 0
    elsewhere: dict[str, int] = field(default_factory=dict)
    confidence: float = FAMILY
    skipped: str = ""

    @property
    def flagged(self) -> list[Result]:
        """The flagged probes, the strongest first."""
        found = [result for result in self.results if result.flagged]
        return sorted(found, key=lambda r: -max(area.value or 0 for area in r.areas.values()))

    def as_dict(self) -> dict[str, Any]:
        return {
            "trained_on": self.trained_on,
            "films": self.films,
            "elsewhere": self.elsewhere,
            "bound": BOUND,
            "confidence": self.confidence,
            "skipped": self.skipped,
            "results": [result.as_dict() for result in self.results],
        }


def probe(
    manifest: Manifest, seen: Survey, *, seed: int = 0, progress: Progress = SILENT
) -> Probing:
    """Measure all probes on the labelled, readable films of a manifest."""
    label = np.asarray(manifest.label)
    rows = np.flatnonzero(seen.readable & (label >= 0))
    patient = numbered(manifest.patient.select(rows))
    rows, patient = _drawn(rows, patient, seed)
    part, label = np.array(manifest.part.select(rows), object), label[rows].astype(int)
    own = "train" if (part == "train").any() else ""
    learnt = part == own if own else np.ones(len(rows), bool)
    classes = np.bincount(label[learnt], minlength=2)
    people = _people(label[learnt], patient[learnt])
    if learnt.sum() < LEAST or classes.min() < LEAST_OF_A_CLASS or min(people) < LEAST_PATIENTS:
        return Probing(
            skipped=f"probes need {LEAST} labelled films to learn from, {LEAST_OF_A_CLASS} of each "
            f"class and of {LEAST_PATIENTS} patients; here are {classes[0]} films of {people[0]} "
            f"and {classes[1]} of {people[1]}"
        )
    places = {CROSS_VALIDATED: learnt}
    for name in ("validation", "test") if own else ():
        scored = part == name
        enough = np.bincount(label[scored], minlength=2).min() >= LEAST_ELSEWHERE
        if enough and min(_people(label[scored], patient[scored])) >= LEAST_PATIENTS:
            places[name] = scored
    columns: dict[str, Array] = {
        **Facts(seen, rows),
        **words(manifest, seen, rows),
        "thumbnail": thumbnail(seen, rows),
    }
    more = [Probe(name, "table", what, (name,)) for name, what in TABLE.items() if name in columns]
    probes = [*FILE, COMBINED, *PIXEL, *more]
    scores: dict[str, dict[str, Floats]] = {}
    fold = folds(label[learnt], np.unique(patient[learnt], return_inverse=True)[1], seed)
    with machine.one_thread(), progress.stage("probing", len(probes)) as advance:
        for each in probes:
            values = np.column_stack([columns[name] for name in each.columns])
            if _varies(values):
                scores[each.name] = _scores(values, label, fold, places, seed)
            advance(1)
    confidence = 1 - (1 - FAMILY) / max(1, len(scores) * len(places))
    areas: dict[str, dict[str, Estimate]] = {name: {} for name in scores}
    for where, here in places.items():
        judged = {name: by_place[where] for name, by_place in scores.items()}
        for name, area in _areas(judged, label[here], patient[here], confidence, seed).items():
            areas[name][where] = area
    results = []
    for each in probes:
        found = areas.get(each.name, {})
        above = any(area.low is not None and area.low > BOUND for area in found.values())
        results.append(Result(each, found, each.kind == "file" and above, not found))
    return Probing(
        results,
        own or "all films",
        int(learnt.sum()),
        {name: int(here.sum()) for name, here in places.items() if name != CROSS_VALIDATED},
        confidence,
    )


def _drawn(
    rows: NDArray[np.int64], patient: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All films of as many patients, by chance, as fit into ``MOST`` films."""
    if len(rows) <= MOST:
        return rows, patient
    films = np.bincount(patient)
    order = np.random.default_rng(seed).permutation(len(films))
    chosen = np.zeros(len(films), bool)
    chosen[order[: np.searchsorted(np.cumsum(films[order]), MOST, side="right")]] = True
    kept = chosen[patient]
    return rows[kept], patient[kept]


def _people(label: Array, patient: Array) -> list[int]:
    """Patients with films of class 0 and of class 1."""
    return [len(set(patient[label == kind].tolist())) for kind in (0, 1)]


def _varies(values: Floats) -> bool:
    known = np.nan_to_num(values, nan=-1.0)
    return bool((known != known[0]).any())


def _learner(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # Steps and bumps as well as slopes, gaps as they are, no scaling; small, for a shortcut that
    # matters is simple. Half the columns at each split: of several that tell the class in the
    # training films all are used, not the first alone.
    return HistGradientBoostingClassifier(
        max_iter=TREES, max_depth=DEPTH, learning_rate=0.2, min_samples_leaf=10,
        l2_regularization=1.0, max_features=0.5, early_stopping=False, random_state=seed,
    )  # fmt: skip


def _learnt(values: Floats, label: Array, seed: int) -> Any:
    """A learner of these films; a column that is unknown for all of them, which scikit-learn
    does not take, tells nothing."""
    unknown = np.isnan(values).all(axis=0)
    return _learner(seed).fit(np.where(unknown, 0.0, values) if unknown.any() else values, label)


def folds(label: Array, patient: NDArray[np.int64], seed: int) -> Array:
    """(n,) one of five folds a film: patients dealt out by chance, those with positives apart."""
    rng = np.random.default_rng(seed)
    positive = np.zeros(int(patient.max()) + 1, bool)
    positive[patient[label == 1]] = True
    fold = np.zeros(len(positive), np.int64)
    for of_kind in (positive, ~positive):
        who = rng.permutation(np.flatnonzero(of_kind))
        fold[who] = np.arange(len(who)) % 5
    return fold[patient]


def _scores(
    values: Floats, label: Array, fold: Array, places: Mapping[str, Array], seed: int
) -> dict[str, Floats]:
    """Scores of the films of each place by a learner that has not seen them or their patients."""
    learnt = places[CROSS_VALIDATED]
    x, y = values[learnt], label[learnt]
    out = np.zeros(len(y))
    for k in np.unique(fold):
        judged = fold == k
        model = _learnt(x[~judged], y[~judged], seed)
        out[judged] = model.decision_function(x[judged])
    found = {CROSS_VALIDATED: out}
    others = {name: here for name, here in places.items() if name != CROSS_VALIDATED}
    if others:
        model = _learnt(x, y, seed)
        found |= {name: model.decision_function(values[here]) for name, here in others.items()}
    return found


def _areas(
    scores: Mapping[str, Floats], label: Array, patient: Array, confidence: float, seed: int
) -> dict[str, Estimate]:
    """AUROC of each score with its interval: bootstrap over patients, normal on the logit scale."""
    from scipy.special import expit

    draws = intervals.bootstrap(
        lambda weight: {name: metrics.auroc(label, s, weight) for name, s in scores.items()},
        patient,
        draws=DRAWS,
        seed=seed,
        films_at_once=AT_ONCE,
    )
    people = _people(label, patient)
    z = intervals.normal_quantile(confidence)
    found = {}
    for name, score in scores.items():
        area, n = float(metrics.auroc(label, score)), len(label)
        # Nearer to 0 or 1 the logit has no meaning on so few independent pairs.
        end = 1 / (4 * min(people))
        if area <= end or area >= 1 - end:
            low, high = intervals.clopper_pearson(area * min(people), min(people), confidence)
            method = f"Clopper-Pearson over {min(people)} independent pairs"
        else:
            spread = float(np.nanstd(metrics.logit(np.clip(draws[name], end, 1 - end))))
            middle = float(metrics.logit(np.array(area)))
            low, high = (float(expit(middle + sign * z * spread)) for sign in (-1, 1))
            method = f"patient bootstrap, {DRAWS} draws, normal on the logit scale"
        method += f", {100 * confidence:.2f} % each"
        found[name] = Estimate(area, low, high, n, method)
    return found
