"""Sections at the end: the models, how it was measured, the checklist."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

from hilum import report
from hilum.evaluation.document.checklist import CHECKLIST
from hilum.report import Section

if TYPE_CHECKING:
    from hilum.evaluation.evaluate import Evaluation


def models(evaluation: Evaluation) -> Section:
    """What each model is, from its bundle; its card in full to unfold."""
    body = ""
    for name, model in evaluation.models.items():
        b = model.bundle
        train = b.trained_on.get("train") or {}
        use = "; ".join(f"{key}: {_words(value)}" for key, value in b.intended_use.items() if value)
        size = b.preprocessing.size
        rows = [
            ["Answers", escape(f"{b.target} ({b.classes[1]} against {b.classes[0]})")],
            ["Made for", escape(use or "not told")],
            ["Learnt from", escape(", ".join(f"{v:,} {k}" for k, v in train.items() if k in
                                             ("films", "patients")) or "not told")],
            ["Input", f"{size} × {size} grey values, {escape(b.preprocessing.geometry)}"],
            ["Probabilities", escape(b.calibration.fitted_on or "as the network gives them")],
            ["Operating points", escape(", ".join(
                f"{p.name} at {p.threshold:.3f}" for p in b.operating_points.values()))],
            ["Digest", f"<code>{escape(b.digest)}</code>"],
            ["Made by", escape(f"hilum {b.hilum}" if b.hilum else "not told")],
        ]  # fmt: skip
        body += f"<h3>{escape(name)}</h3>" + report.table(["", ""], rows, kind="text")
        body += (
            f"<details><summary>Model card</summary><pre>{escape(b.card)}</pre></details>"
            if b.card.strip() else ""
        )  # fmt: skip
    return Section("The model" if len(evaluation.models) == 1 else "The models", body, "model")


def _words(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return str(value)
    span = all(isinstance(item, (int, float)) for item in value)
    return (" to " if span else ", ").join(map(str, value))


def method(evaluation: Evaluation) -> Section:
    """How these figures came about."""
    manifest = evaluation.manifest
    body = (
        "<p>Every film went the way it goes when the model answers: decoded, stretched to the "
        "network's size, scored by the exported graph, calibrated, compared with the threshold. "
        "The thresholds are those in the sealed model and nothing is chosen here; where these "
        "films had chosen them before, a warning at the head says so.</p>"
        "<p>Films of one patient resemble each other. Where a patient has several films, intervals "
        "come from drawing whole patients (percentile bootstrap); else shares have Wilson's "
        "interval. At 0 or 1, where draws show no spread, the interval is Clopper and Pearson's "
        "over patients. Films that the model refused count as errors in the strict figures: a "
        "missed illness, or a false alarm. Films that were learnt are found by the bytes of their "
        "files; the same film saved anew is not.</p>"
        f"<p>Data: <code>{escape(manifest.name)}</code>, digest <code>{manifest.digest[:16]}"
        "</code>. All figures as numbers: <code>metrics.json</code>; each film's score: "
        "<code>scores.csv</code>.</p>"
    )
    return Section("How this was measured", body, "method")


def checklist(evaluation: Evaluation) -> Section:
    """What this report says of what a reader may ask, and what it leaves to the user."""
    titles = {
        "flow": "flow", "population": "population", "points": "operating points",
        "figures": "metrics", "calibration": "calibration", "use": "usefulness",
        "subgroups": "subgroups", "controls": "controls", "films": "films", "model": "model",
        "method": "method",
    }  # fmt: skip
    rows = []
    for item in CHECKLIST:
        where = f'<a href="#{item.where}">{titles[item.where]}</a>' if item.where else ""
        remark = escape(item.remark)
        said = {"yes": "yes", "partly": "in part", "no": "<b>no</b>"}[item.said]
        rows.append([escape(item.question), said, " · ".join(filter(None, (where, remark))),
                     item.standards])  # fmt: skip
    counted = Counter(item.said for item in CHECKLIST)
    body = (
        f"<p>{counted['yes']} items are reported, {counted['partly']} in part, {counted['no']} "
        "not: what a report of your own has to add. The items follow CLAIM (2024), TRIPOD+AI "
        "(2024) and STARD (2015) in short.</p>"
        + report.table(["Question", "Reported", "Where, or why not", "Asked by"], rows, kind="text")
    )
    return Section("Checklist", body, "checklist")
