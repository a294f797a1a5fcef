"""Sections on the films: their flow, who is on them, groups, shortcuts, the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum import report
from hilum.evaluation import gallery
from hilum.evaluation.document.wording import Drawing, reference_standard, shown
from hilum.evaluation.subgroups import COLUMNS, groups
from hilum.report import Section
from hilum.storage import write_file

if TYPE_CHECKING:
    from hilum.datasets.cache import Cache
    from hilum.evaluation.evaluate import Evaluation


def flow(evaluation: Evaluation) -> Section:
    """Films found, left out and judged."""
    f = evaluation.flow
    steps = [
        (f["found"], "films found", ""),
        (f["unreadable"], "could not be read", "out"),
        (f["without_label"], "have no label", "out"),
        (f["judged"], "judged", ""),
        (f["refused"], "refused by the model: to a reader", "out"),
        (f["answered"], "answered", "end"),
    ]
    items = "".join(
        f'<li class="{kind}"><b>{count:,}</b><span>{words}</span></li>'
        for count, words, kind in steps
        if count or kind != "out"
    )
    body = f'<ol class="flow">{items}</ol>'
    remarks = evaluation.manifest.remarks()
    if remarks:
        body += "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in remarks) + "</ul>"
    if evaluation.unreadable:
        rows = [
            [f"<code>{escape(film)}</code>", escape(why)] for film, why in evaluation.unreadable
        ]
        more = f"<p>{len(rows) - 200} more are in metrics.json.</p>" if len(rows) > 200 else ""
        body += "<h3>Films that could not be read</h3>"
        body += report.table(["Film", "Reason"], rows[:200], kind="text") + more
    for name, scores in evaluation.scores.items():
        counted = Counter(why for why in scores.refused if why)
        if counted:
            rows = [[escape(why), f"{count:,}"] for why, count in counted.most_common(20)]
            body += f"<h3>Refused by {escape(name)}</h3>"
            body += report.table(["Reason", "Films"], rows)
    return Section("Flow of films", body, "flow")


def population(evaluation: Evaluation) -> Section:
    """Who is on the films, as far as the table tells."""
    manifest = evaluation.manifest
    scores = next(iter(evaluation.scores.values()))
    judged = scores.is_judged
    patient = np.asarray(scores.patient, dtype=object)
    columns = [judged & (scores.label == 0), judged & (scores.label == 1), judged]
    rows = [["Films", *(f"{int(mask.sum()):,}" for mask in columns)]]
    rows.append(["Patients", *(f"{len(set(patient[mask])):,}" for mask in columns)])
    rows.append(["Most films of one patient", *(_most(patient[mask]) for mask in columns)])
    if "age" in manifest.extra:
        ages = np.asarray(manifest.extra["age"], dtype=object)
        rows.append(["Age in years, median (range)", *(_ages(ages[mask]) for mask in columns)])
    for column, names in groups(manifest.extra).items():
        for name in sorted(set(names[judged])):
            label = f"{COLUMNS[column]}: {escape(str(name) or 'unknown')}"
            rows.append([label, *(f"{int((names[mask] == name).sum()):,}" for mask in columns)])
    share = columns[1].sum() / max(1, judged.sum())
    heads = ["", escape(manifest.classes[0]), escape(manifest.classes[1]), "all"]
    body = report.table(heads, rows) + (
        f"<p>{share:.0%} of these films are {escape(manifest.classes[1])}. Where illness is rarer, "
        "positive answers are wrong more often: see the predictive values.</p>"
        f"<p>{reference_standard(evaluation)}</p>"
    )
    return Section("Population and reference standard", body, "population")


def _most(patient: Any) -> str:
    counted = Counter(patient.tolist())
    return str(max(counted.values())) if counted else "–"


def _ages(texts: Any) -> str:
    years = []
    for text in texts:
        try:
            years.append(float(text))
        except ValueError:
            continue
    if not years:
        return "–"
    return f"{np.median(years):g} ({min(years):g}–{max(years):g})"


def by_group(evaluation: Evaluation, drawing: Drawing) -> Section:
    """Recall, specificity and AUROC by view, age, sex, subtype and source."""
    body = ""
    for k, (name, found) in enumerate(evaluation.groups.items()):
        key = "subgroups" if k == 0 else f"subgroups-{k + 1}"
        if key not in drawing:
            continue
        point = escape(evaluation.default_point(name))
        body += report.figure(
            drawing[key],
            f"{escape(name)} at {point}, with 95 % intervals; dashed: all films. In brackets: "
            "negative + positive films. A group of one class is ranked against all films of the "
            "other.",
            f"forest-{k}",
            wide=True,
        )
        rows = [[f"{COLUMNS[g.column]}: {escape(g.name)}", f"{g.negatives:,}", f"{g.positives:,}",
                 shown(g.recall), shown(g.specificity), shown(g.auroc)] for g in found]  # fmt: skip
        heads = ["Group", "negative", "positive", "recall", "specificity", "AUROC"]
        body += report.table(heads, rows)
    if not body:
        body = (
            "<p>Not reported: the films' table has no column (view, age, sex, subtype, source) "
            "that tells groups apart.</p>"
        )
    return Section("Subgroups", body, "subgroups")


def shortcut_controls(evaluation: Evaluation) -> Section:
    """How far plain things tell the classes apart."""
    if not evaluation.controls:
        return Section("Shortcut controls", "<p>Not measured: one class only.</p>", "controls")
    rows = [[f"{escape(c.name)}: {escape(c.looks_at)}",
             "–" if np.isnan(c.auroc) else f"{c.auroc:.3f}", escape(c.method)]
            for c in evaluation.controls]  # fmt: skip
    for name, measured in evaluation.measured.items():
        rows.append(
            [f"<b>{escape(name)}</b>", shown(measured.ranking["auroc"]), "the model itself"]
        )
    body = (
        "<p>What can be told without looking at lungs. A model that is hardly better than these "
        "may have learnt the scanner, the border or the contrast.</p>"
        + report.table(["Looks at", "AUROC", "How"], rows, kind="how")
    )
    return Section("Shortcut controls", body, "controls")


def films(evaluation: Evaluation, name: str, cache: Cache, folder: Path) -> Section:
    """The paper's figure 9, and every error, missed films first, with heat maps."""
    from hilum.films.picture import mosaic, png

    model, measured = evaluation.models[name], evaluation.measured[name]
    point, classes = evaluation.default_point(name), evaluation.manifest.classes
    rows = np.asarray(cache.rows)[np.flatnonzero(evaluation.scores[name].is_judged)]
    end = "" if name == next(iter(evaluation.models)) else "-2"

    def pixels(row: int) -> Any:
        return cache.pixels[rows[row]]

    body = "<h3>A sample, drawn at random from both classes</h3>"
    sample = list(gallery.shown(model, measured, point, gallery.sample(measured), pixels, classes))
    body += _grid(sample)
    wrong = gallery.errors(measured, point)
    missed = int((measured.scores.label[wrong] == 1).sum())
    body += (
        f"<h3>All errors at {escape(point)}: {missed} missed, {len(wrong) - missed} false alarms"
        "</h3>"
    )
    listed = list(
        gallery.shown(
            model, measured, point, wrong[: gallery.MOST_ERRORS], pixels, classes, heat=True
        )
    )
    if listed:
        kinds = sorted({s.heat_kind for s in listed if s.heat_kind})
        told = (
            f" Heat maps: {', '.join(kinds)}, evidence for {escape(model.bundle.target)}."
            if kinds else ""
        )  # fmt: skip
        body += (
            "<p class='small'>Missed films first, from the lowest probability; then false alarms "
            f"from the highest. Films as the network saw them, stretched to a square.{told}</p>"
        )
        body += _grid(listed)
        if len(wrong) > len(listed):
            body += f"<p>{len(wrong) - len(listed)} more errors are in scores.csv.</p>"
    else:
        body += "<p>None.</p>"
    for items, file in ((sample, "films"), (listed, "errors")):
        if items:
            pictures = [s.film if s.painted is None else s.painted for s in items]
            words = [f"{s.label}: {s.answer} {s.probability:.2f}" for s in items]
            write_file(folder / f"{file}{end}.png", png(mosaic(pictures, 4, words)))
    title = "Films" if len(evaluation.models) == 1 else f"Films, {name}"
    return Section(title, body, "films" + end)


def _grid(items: Sequence[gallery.Shown]) -> str:
    from hilum.films.picture import png

    cells = []
    for s in items:
        pictures = report.image(png(s.film), s.name)
        if s.painted is not None:
            pictures += report.image(png(s.painted), f"heat map of {s.name}")
        cells.append(
            f'<figure class="film {"" if s.right else "wrong"}"><div>{pictures}</div>'
            f"<figcaption><b>{escape(s.answer)}</b><span>probability {s.probability:.3f} · "
            f'reference: {escape(s.label)}</span><span title="{escape(s.name, quote=True)}">'
            f"{escape(s.name.rpartition('/')[2])}</span></figcaption></figure>"
        )
    twice = " twice" if any(s.painted is not None for s in items) else ""
    return f'<div class="films{twice}">{"".join(cells)}</div>'
