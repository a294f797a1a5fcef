"""Table 6: the confusion matrix and the metrics of the trained model, the paper's beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from hilum import report
from hilum.datasets.manifest import Manifest
from hilum.decision import Calibration, Estimate
from hilum.evaluation import intervals
from hilum.evaluation.measure import AtPoint, Measured, measure
from hilum.evaluation.scores import Scores
from hilum.experiments import paper
from hilum.experiments.compare.tables import Table
from hilum.training.loop import HALF
from hilum.training.run import Run

METRICS = ("accuracy", "precision", "recall", "specificity", "f1", "npv")


@dataclass(frozen=True, eq=False)
class Judged:
    """What the trained model does on the films it is judged on.

    Attributes
    ----------
    place, part : where it was trained; the part, in words
    measured : the network's own output at one half, as the paper and Keras count
    balanced : the sealed model at the point that was chosen on validation
    """

    run: Run
    place: str
    part: str
    measured: Measured
    balanced: AtPoint

    @property
    def half(self) -> AtPoint:
        return self.measured.points[HALF.name]

    def as_dict(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "part": self.part,
            "films": len(self.measured.scores),
            "patients": len(set(self.measured.scores.patient)),
            "half": self.half.as_dict(),
            "balanced": self.balanced.as_dict(),
            "auroc": self.measured.ranking["auroc"].as_dict(),
        }


def part_of(manifest: Manifest) -> tuple[str, str]:
    """The part that is judged, and what it is: published, drawn, or only the validation part."""
    if "test" not in manifest.parts():
        return "validation", "the validation part (there is no test part)"
    drawn = manifest.notes.get("drawn", {}).get("shares", {})
    if "test" in drawn:
        return "test", "a test part drawn by patient (none was published with these films)"
    return "test", "the published test part"


def judge(manifest: Manifest, run: Run, place: str) -> Judged:
    """Measure a finished run on the part that is judged."""
    name, words = part_of(manifest)
    scores = Scores.read(run.folder / "scores.csv")
    scores = scores.select(np.array(scores.part) == name)
    plain = replace(scores, probability=Calibration().probability(scores.logit))
    point = run.bundle.operating_points["balanced"]
    sealed = measure(scores, {point.name: point}, calibration=False)
    return Judged(
        run=run,
        place=place,
        part=words,
        measured=measure(plain, {HALF.name: HALF}, calibration=False),
        balanced=sealed.points[point.name],
    )


def paper_metrics() -> dict[str, Estimate]:
    """The paper's metrics from its matrix; shares with Wilson's interval, films as independent."""
    m = paper.MATRIX
    shares = {
        "accuracy": (m["tp"] + m["tn"], sum(m.values())),
        "precision": (m["tp"], m["tp"] + m["fp"]),
        "recall": (m["tp"], m["tp"] + m["fn"]),
        "specificity": (m["tn"], m["tn"] + m["fp"]),
        "npv": (m["tn"], m["tn"] + m["fn"]),
    }
    found = {
        name: Estimate(k / n, *intervals.wilson(k, n), n, "Wilson, films as independent")
        for name, (k, n) in shares.items()
    }
    f1 = 2 * m["tp"] / (2 * m["tp"] + m["fp"] + m["fn"])
    return found | {"f1": Estimate(f1, None, None, sum(m.values()), "no interval")}


def matrix_table(judged: Judged, classes: tuple[str, str]) -> Table:
    """The matrix as the paper prints it."""
    counts, theirs = judged.half.counts, paper.MATRIX
    return Table(
        "table-6",
        f"Table 6. Confusion matrix on {judged.part}",
        ("", f"predicted {classes[0]}", f"predicted {classes[1]}"),
        [
            [f"actual {classes[0]}", counts["tn"], counts["fp"]],
            [f"actual {classes[1]}", counts["fn"], counts["tp"]],
        ],
        ("", ",", ","),
        [["", theirs["tn"], theirs["fp"]], ["", theirs["fn"], theirs["tp"]]],
    )


def section(judged: Judged, classes: tuple[str, str]) -> report.Section:
    """Table 6, the metrics with their intervals, and what the threshold does."""
    theirs = paper_metrics()
    rows = [
        [
            name,
            str(judged.half.strict[name]),
            str(judged.balanced.strict[name]),
            str(theirs[name]),
            f"{paper.METRICS[name]:.2f}" if name in paper.METRICS else "–",
        ]
        for name in METRICS
    ]
    rows.append(["AUROC", str(judged.measured.ranking["auroc"]), "the same", "not told", "–"])
    n = len(judged.measured.scores)
    patients = len(set(judged.measured.scores.patient))
    body = (
        f"<p>The model that was trained on {escape(judged.place)}, on {escape(judged.part)}: "
        f"{n:,} films of {patients:,} patients. At probability one half of the network's own "
        "output, as the paper; beneath each figure, the paper's on its 624 films.</p>"
        + matrix_table(judged, classes).html()
        + report.table(
            ["", "here, at one half", "here, balanced point", "the paper's matrix", "as printed"],
            rows,
        )
        + "<p>Ours: intervals by drawing whole patients. The paper's: Wilson's for its shares, "
        "with films counted as independent, so they are too narrow. The balanced point is the "
        f"one that the sealed model uses, at {judged.balanced.point.threshold:.3f}, chosen on "
        f"validation ({escape(judged.balanced.point.rule)}).</p>"
    )
    return report.Section("Table 6: what the model is worth", body, "table-6")
