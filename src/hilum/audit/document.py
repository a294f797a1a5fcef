"""``report.html`` of an audit: findings first, then what they rest on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import hilum
from hilum import names, report
from hilum.audit import duplicates, figures, looks, probes, survey
from hilum.audit.duplicates import KINDS, Group
from hilum.audit.findings import Finding
from hilum.audit.probes import BOUND, CROSS_VALIDATED, Result
from hilum.audit.rules import films_by_part
from hilum.errors import UnreadableFilm
from hilum.report import Section
from hilum.storage import write_file

if TYPE_CHECKING:
    from hilum.audit.audit import Audit
    from hilum.films.workers import Workers

SHOWN_GROUPS = 8
COLOURS = {"serious": "var(--ill)", "warning": "var(--second)", "note": "var(--soft)"}


def write_report(audit: Audit, workers: Workers) -> None:
    """Write ``figures/`` and ``report.html`` into the audit's folder."""
    made = [
        _findings(audit),
        _films(audit),
        _copies(audit, workers),
        _shortcuts(audit),
        looks.distributions(audit, _folder(audit)),
        looks.averages(audit),
        _method(audit),
    ]
    licence = audit.manifest.notes.get("licence")
    text = report.page(
        f"Audit of {audit.manifest.name}",
        _lead(audit),
        [section for section in made if section is not None],
        foot=(
            f"Made by hilum {hilum.__version__}. This file is complete in itself: it fetches "
            f"nothing. <b>It embeds films{'' if names.hidden() else ' and names their files'}</b>, "
            "so pass it on only as far as you may pass on the films."
            + (f" Films: {escape(str(licence))}" if licence else "")
        ),
    )
    write_file(audit.folder / "report.html", text)


def _lead(audit: Audit) -> str:
    serious = [f for f in audit.findings if f.severity == "serious"]
    manifest = audit.manifest
    verdict = {
        0: "Nothing serious was found.",
        1: "One finding is serious: figures on this set would be wrong.",
    }.get(len(serious), f"{len(serious)} findings are serious: figures on this set would be wrong.")
    pairs = [
        (f"{len(manifest):,}", "films"),
        (f"{manifest.patient.distinct():,}", "patients"),
        (f"{len(audit.seen.unreadable):,}", "unreadable"),
        (f"{len(audit.groups):,}", "groups of copies"),
    ]
    combined = next((r for r in audit.probing.results if r.probe is probes.COMBINED), None)
    if combined is not None and combined.areas:
        pairs.append((f"{combined.areas[CROSS_VALIDATED].value:.2f}", "AUROC of the file alone"))
    return f'<p class="lead">{verdict}</p>' + report.facts(pairs)


def _findings(audit: Audit) -> Section:
    body = "".join(_finding(finding) for finding in audit.findings)
    return Section("Findings", body or "<p>None.</p>", "findings")


def _finding(finding: Finding) -> str:
    examples = "".join(f"<li><code>{escape(text)}</code></li>" for text in finding.examples)
    more = f"<details><summary>Examples</summary><ul class='small'>{examples}</ul></details>"
    return (
        f'<div style="border-left:4px solid {COLOURS[finding.severity]};padding-left:1rem;'
        'margin:1.4rem 0;break-inside:avoid">'
        f'<h3 style="margin-top:0"><span style="color:{COLOURS[finding.severity]}">'
        f"{finding.severity}</span> · {escape(_capital(finding.title))}</h3>"
        f"<p>{escape(finding.meaning)}</p><p><b>What to do.</b> {escape(finding.advice)}</p>"
        f"{more if examples else ''}</div>"
    )


def _films(audit: Audit) -> Section:
    manifest, seen = audit.manifest, audit.seen
    negative, positive = (escape(name) for name in manifest.classes)
    patients = {part or "(none)": count for part, _, _, _, count in manifest.counts()}
    rows = []
    for part, (n0, n1) in films_by_part(manifest, seen).items():
        share = f"{n1 / (n0 + n1):.1%}" if n0 + n1 else "–"
        name = part or "(none)"
        rows.append([escape(name), f"{n0:,}", f"{n1:,}", share, f"{patients.get(name, 0):,}"])
    body = report.table(["Part", negative, positive, f"share of {positive}", "patients"], rows)
    rows = [
        [escape(name), f"{a['patients']:,}", f"{a['mean']:.2f}", f"{a['median']:g}", f"{a['most']}"]
        for name, a in audit.as_dict()["films_a_patient"].items()
    ]
    body += "<h3>Films a patient</h3>" + report.table(
        ["Part and class", "patients", "mean", "median", "most"], rows
    )
    body += _words(audit)
    for items, title in ((seen.unreadable, "Unreadable films"), (seen.refused, "No model answers")):
        if items:
            rows = [
                [f"<code>{escape(manifest.shown(manifest.path[row]))}</code>", escape(reason.text)]
                for row, reason in items[:50]
            ]
            more = f"<p>{len(items) - 50:,} more are in facts.csv.</p>" if len(items) > 50 else ""
            body += f"<h3>{title}</h3>" + report.table(["Film", "Reason"], rows, kind="text") + more
    remarks = manifest.remarks()
    if remarks:
        body += "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in remarks) + "</ul>"
    return Section("Films", body, "films")


def _words(audit: Audit) -> str:
    """Formats, colour modes and kinds of coding, counted by class."""
    manifest, seen = audit.manifest, audit.seen
    rows = []
    for name, words in seen.words.items():
        for word in sorted(set(words.select(seen.readable)) - {""}):
            counts = [
                int((words.equal(word) & (manifest.label == kind) & seen.readable).sum())
                for kind in (0, 1)
            ]
            rows.append([f"{name}: {escape(word)}", *(f"{count:,}" for count in counts)])
    heads = ["File", *(escape(name) for name in manifest.classes)]
    return "<h3>Kinds of files</h3>" + report.table(heads, rows)


def _copies(audit: Audit, workers: Workers) -> Section:
    groups = audit.groups
    if not groups:
        body = "<p>No film was found twice: neither as a file, nor as pixels, nor nearly.</p>"
        return Section("Copies", body, "copies")
    rows = []
    for kind, words in KINDS.items():
        here = [group for group in groups if group.kind == kind]
        rows.append(
            [
                words,
                f"{len(here):,}",
                f"{sum(len(g.rows) for g in here):,}",
                f"{sum(g.parts > 1 for g in here):,}",
                f"{sum(g.labels > 1 for g in here):,}",
                f"{sum(g.patients > 1 for g in here):,}",
            ]
        )
    heads = ["Copies", "groups", "films", "across parts", "across classes", "across patients"]
    body = report.table(heads, rows)
    shown = _chosen(groups)
    body += (
        f"<p>{len(shown)} of {len(groups):,} groups, two films of each; those across classes and "
        "parts first. duplicates.csv lists all.</p>"
    )
    return Section("Copies", body + _pairs(audit, shown, workers), "copies")


def _chosen(groups: Sequence[Group]) -> list[Group]:
    """Groups to show: the worst first, but some of each kind."""
    crossing = [g for g in groups if max(g.labels, g.parts) > 1][: SHOWN_GROUPS // 2]
    rest = [g for g in groups if g not in crossing]
    near = sorted((g for g in rest if g.kind == "near"), key=lambda g: g.similarity)
    chosen = [*crossing, *near[: SHOWN_GROUPS // 2]]
    chosen += [g for g in rest if g not in chosen][: SHOWN_GROUPS - len(chosen)]
    return chosen[:SHOWN_GROUPS]


def _pairs(audit: Audit, groups: Sequence[Group], workers: Workers) -> str:
    from hilum.films.picture import png

    manifest = audit.manifest
    rows = [row for group in groups for row in group.rows[:2]]
    files = [str(manifest.root / manifest.path[row]) for row in rows]
    films = [answer for _, answer in workers.map(survey.picture, files, chunk=4, ordered=True)]
    cells = []
    for k, group in enumerate(groups):
        pictures = "".join(
            report.image(png(film), manifest.shown(manifest.path[row]))
            for film, row in zip(films[2 * k : 2 * k + 2], group.rows, strict=False)
            if not isinstance(film, UnreadableFilm)
        )
        called = "".join(
            f"<span>{_breakable(manifest.shown(manifest.path[row]))}</span>"
            for row in group.rows[:2]
        )
        more = f", {len(group.rows)} films" if len(group.rows) > 2 else ""
        alike = f", correlation {group.similarity:.2f}" if group.kind == "near" else ""
        cells.append(
            f'<figure class="film"><div>{pictures}</div><figcaption><b>{KINDS[group.kind]}</b>'
            f"{alike}{more}{called}</figcaption></figure>"
        )
    return f'<div class="films twice">{"".join(cells)}</div>'


def _shortcuts(audit: Audit) -> Section:
    probing = audit.probing
    if probing.skipped:
        return Section(
            "Shortcuts", f"<p>Not looked for: {escape(probing.skipped)}.</p>", "shortcuts"
        )
    with report.plot_style():
        drawn = report.save(figures.forest(probing), _folder(audit), "probes")
    places = [CROSS_VALIDATED, *probing.elsewhere]
    judged = f"{probing.films:,} films of {probing.trained_on}" + "".join(
        f", {count:,} of {part}" for part, count in probing.elsewhere.items()
    )
    body = (
        "<p>How well the label is told from plain facts, by a small learner that never sees a "
        "lung. Lines are intervals that hold together with 95 % "
        f"({100 * probing.confidence:.2f} % each). A file should tell nothing: a probe of the "
        f"file is flagged, in red, where a whole interval lies above {BOUND}, in the shaded field. "
        "What the pixels tell is for orientation: brightness and a thumbnail can show illness too, "
        "and a model must beat them.</p>"
        + report.figure(drawn, f"Judged on {escape(judged)}.", "probes", wide=True)
    )
    rows = [_probe_row(result, places) for result in probing.results if result.areas]
    heads = ["Looks at", "cross-validated", *(f"on {escape(p)}" for p in places[1:])]
    body += report.table(heads, rows)
    same = [result.probe.name for result in probing.results if result.constant]
    if same:
        body += f"<p class='small'>The same in all films: {escape(', '.join(same))}.</p>"
    return Section("Shortcuts", body, "shortcuts")


def _probe_row(result: Result, places: Sequence[str]) -> list[str]:
    cells = []
    for place in places:
        area = result.areas.get(place)
        cells.append(
            "–" if area is None or area.value is None
            else f"<b>{area.value:.3f}</b> <i>{area.low:.3f}–{area.high:.3f}</i>"
        )  # fmt: skip
    name = f"<b>{escape(result.probe.name)}</b>" if result.flagged else escape(result.probe.name)
    return [f"{name}: {escape(result.probe.looks_at)}", *cells]


def _method(audit: Audit) -> Section:
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in audit.seconds.items())
    body = (
        "<p>Every film is opened once, in isolated processes: facts of its file, and a copy of "
        f"{survey.SMALL.size} × {survey.SMALL.size} pixels. <b>Copies</b>: the same SHA-256 is the "
        "same file; equal small copies are compared at full size; near copies are proposed by a "
        f"{survey.HASH} × {survey.HASH} bit hash (is a place brighter than its neighbours), at "
        f"most {duplicates.FARTHEST} bits apart, and confirmed where the fine structure of the two "
        f"correlates by {duplicates.ALIKE} or more at the best of small shifts. Mirrored, turned "
        "or strongly cropped copies are not found.</p>"
        f"<p><b>Probes</b>: {probes.TREES} boosted trees of depth {probes.DEPTH} on the named "
        "columns, half of them at each split; 5 folds by patient within the training part; then "
        "learnt on all of it and scored on each other part. Intervals: bootstrap over patients, "
        f"{probes.DRAWS} draws, normal on the logit scale, "
        "corrected for the number of intervals (Bonferroni); where a probe separates the classes, "
        "Clopper-Pearson over as many pairs as the rarer class has patients.</p>"
        f"<p class='small'>{escape(seconds)}. facts.csv holds the facts of every film, audit.json "
        "all figures.</p>"
    )
    return Section("How it was done", body, "method")


def _folder(audit: Audit) -> Path:
    folder = audit.folder / "figures"
    folder.mkdir(exist_ok=True)
    return folder


def _breakable(path: str) -> str:
    """A path for people that breaks behind its signs rather than in a word, where it must."""
    return re.sub("([/_])", r"\1<wbr>", escape(path))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
