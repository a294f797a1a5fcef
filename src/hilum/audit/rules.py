"""The rules: from what was seen of films, patients and copies to findings in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hilum import names
from hilum.audit.duplicates import KINDS, Group
from hilum.audit.findings import EXAMPLES, SEVERITIES, Finding, Severity, counted
from hilum.audit.probes import Probing
from hilum.audit.shortcuts import shortcuts
from hilum.audit.survey import Survey
from hilum.datasets.split import leaks

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest

UNREADABLE = 0.02  # share above which training refuses
FEW = 30  # films of a class in a part, below which one film moves a rate by more than 3 points;
#           films of a part, from which on its share of positives is told
RARE = 0.05  # share of the rarer class
APART = 0.15  # difference of the share of positives between parts
CLUSTERED = 1.5  # films a patient, from which on counting films as independent misleads


def findings(
    manifest: Manifest, seen: Survey, groups: Sequence[Group], probing: Probing
) -> list[Finding]:
    """All findings, the most serious first."""
    found = [
        *_patients(manifest),
        *_copies(manifest, groups),
        *shortcuts(probing),
        *_reading(manifest, seen),
        *_balance(manifest, seen),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _patients(manifest: Manifest) -> Iterator[Finding]:
    torn = leaks(manifest)
    if torn:
        films = sum(len(leak.rows) for leak in torn)
        yield Finding(
            "patients-in-two-parts",
            "serious",
            f"{counted(torn, 'patient')} in two parts",
            "Films of one patient resemble each other. A model that has learnt one of them knows "
            "the others, so figures on validation and test are too good.",
            "Move each patient into one part. Or put all films into one folder without parts: then "
            "hilum draws them by patient.",
            {"patients": len(torn), "films": films},
            tuple(
                f"{names.patient(leak.patient)}: " + ", ".join(
                    f"{sum(manifest.part[row] == part for row in leak.rows)} in {part}"
                    for part in leak.parts
                )
                for leak in torn[:EXAMPLES]
            ),
        )  # fmt: skip
    labelled = np.flatnonzero(manifest.label >= 0)
    patient = manifest.patient.select(labelled)
    who, label = patient.first_rows(), manifest.label[labelled]
    both = [patient[row] for row in np.intersect1d(who[label == 0], who[label == 1])]
    if both:
        yield Finding(
            "patients-in-both-classes",
            "note",
            f"{counted(both, 'patient')} with films of both classes",
            "That is right for follow-ups, where an illness comes or goes. Where each patient has "
            "one visit, it points to wrong labels or to two patients under one key.",
            "Look at a few of them.",
            {"patients": len(both)},
            tuple(map(names.patient, both[:EXAMPLES])),
        )
    own = (manifest.notes.get("patients") or {}).get("own", 0)
    if own:
        yield Finding(
            "patients-unknown",
            "warning" if own > len(manifest) / 2 else "note",
            f"no patient is known for {own:,} of {len(manifest):,} films",
            "Each of these films counts as a patient of its own. If some belong together, they may "
            "lie in two parts, and intervals are too narrow.",
            "Index a table with a patient column, if there is one.",
            {"films": own},
        )
    counts = np.unique(manifest.patient.first_rows(), return_counts=True)[1]
    if counts.mean() >= CLUSTERED:
        yield Finding(
            "films-a-patient",
            "note",
            f"{counts.mean():.1f} films a patient, up to {counts.max()}",
            "Films of one patient are no independent evidence. hilum draws parts and intervals by "
            "patient; a tool that counts films gives intervals that are too narrow.",
            "Quote the number of patients beside the number of films.",
            {"patients": len(counts), "films": len(manifest), "most": int(counts.max())},
        )


_COPIES: tuple[tuple[str, Severity, str, str, str], ...] = (
    (
        "copies-across-classes",
        "serious",
        "with different labels",
        "The same picture stands in both classes, so at least one label of each group is wrong.",
        "Look at the pairs, correct or remove them.",
    ),
    (
        "copies-across-parts",
        "serious",
        "across parts",
        "A picture that was learnt is judged again, so figures on that part are too good.",
        "Remove all but one film of each group, best from the training part.",
    ),
    (
        "copies-across-patients",
        "warning",
        "under different patient keys",
        "Either one film was filed twice, or the keys do not tell patients apart. Parts drawn by "
        "patient cannot keep such films together.",
        "Remove all but one film of each group, or give them one patient key.",
    ),
    (
        "copies",
        "note",
        "of one patient, class and part",
        "They teach nothing new and weigh double. They do no harm to figures that are drawn by "
        "patient.",
        "Keep one film of each group.",
    ),
)


def _copies(manifest: Manifest, groups: Sequence[Group]) -> Iterator[Finding]:
    sorted_out: dict[str, list[Group]] = {code: [] for code, *_ in _COPIES}
    for group in groups:
        if group.labels > 1:
            sorted_out["copies-across-classes"].append(group)
        if group.parts > 1:
            sorted_out["copies-across-parts"].append(group)
        if group.patients > 1:
            sorted_out["copies-across-patients"].append(group)
        if max(group.labels, group.parts, group.patients) <= 1:
            sorted_out["copies"].append(group)
    for code, severity, where, meaning, advice in _COPIES:
        here = sorted_out[code]
        if not here:
            continue
        kinds = Counter(group.kind for group in here)
        told = "; ".join(f"{kinds[kind]:,} {words}" for kind, words in KINDS.items() if kinds[kind])
        yield Finding(
            code,
            severity,
            f"{counted(here, 'group')} of copies {where}",
            f"{meaning} Groups: {told}.",
            f"{advice} duplicates.csv lists them all.",
            {
                "groups": len(here),
                "films": sum(len(group.rows) for group in here),
                **{kind: kinds[kind] for kind in KINDS},
            },
            tuple(
                " = ".join(manifest.shown(manifest.path[row]) for row in group.rows[:4])
                for group in here[:EXAMPLES]
            ),
        )


def _reading(manifest: Manifest, seen: Survey) -> Iterator[Finding]:
    for items, code, title, meaning, advice in (
        (
            seen.unreadable,
            "unreadable",
            "could not be read",
            "They count nowhere. Films that break are seldom a fair sample.",
            "Fetch them again, or take them out. facts.csv names each with its reason.",
        ),
        (
            seen.refused,
            "not-for-a-model",
            "can be read but are not films that a model answers",
            "Laterals, other body parts or modalities, derived images: training and evaluation "
            "leave them out.",
            "Take them out, or correct their headers. facts.csv names each with its reason.",
        ),
    ):
        if not items:
            continue
        share = len(items) / len(manifest)
        serious = code == "unreadable" and share > UNREADABLE
        yield Finding(
            code,
            "serious" if serious else "warning",
            f"{len(items):,} of {len(manifest):,} films {title}",
            f"{meaning} {_by_class(manifest, [row for row, _ in items])}"
            + (f" Above {UNREADABLE:.0%} training refuses." if serious else ""),
            advice,
            dict(Counter(reason.code for _, reason in items).most_common()),
            tuple(
                f"{manifest.shown(manifest.path[row])}: {reason.text}"
                for row, reason in items[:EXAMPLES]
            ),
        )
    unknown = int((manifest.label < 0).sum())
    if unknown:
        yield Finding(
            "unlabelled",
            "note",
            f"{unknown:,} films without a label",
            "They are looked at for copies, but neither learnt nor judged.",
            "Label them, or leave them out.",
            {"films": unknown},
        )


def _by_class(manifest: Manifest, rows: Sequence[int]) -> str:
    """How many of the films of each class these are, in a sentence."""
    all_films, here = (
        np.bincount(labels[labels >= 0], minlength=2)
        for labels in (manifest.label, manifest.label[list(rows)])
    )
    told = (
        f"{n:,} of {of:,} {name}"
        for n, of, name in zip(here, all_films, manifest.classes, strict=True)
    )
    return f"By class: {', '.join(told)}."


def _balance(manifest: Manifest, seen: Survey) -> Iterator[Finding]:
    negative, positive = manifest.classes
    shares: dict[str, float] = {}
    for part, count in films_by_part(manifest, seen).items():
        where = f"the {part} part" if part else "this data set"
        n0, n1 = count
        if not n0 + n1:
            continue
        if min(n0, n1) and n0 + n1 >= FEW:
            shares[part] = n1 / (n0 + n1)
        rarer, fewest = (positive, n1) if n1 <= n0 else (negative, n0)
        told = f"{n0:,} {negative}, {n1:,} {positive}"
        if not fewest:
            yield Finding(
                "one-class",
                "serious",
                f"{where} has no {rarer}",
                "Neither AUROC nor specificity nor recall can all be measured on it.",
                "Draw the parts anew, or add films.",
                {negative: n0, positive: n1},
            )
        elif fewest < FEW:
            yield Finding(
                "few-of-a-class",
                "warning",
                f"{where} is small: {told}",
                f"Each {rarer} film moves a rate there by {100 / fewest:.1f} points.",
                "Merge it into another part, or read the intervals and not the values.",
                {negative: n0, positive: n1},
            )
        elif fewest < RARE * (n0 + n1):
            yield Finding(
                "rare-class",
                "note",
                f"{rarer} is rare in {where}: {fewest / (n0 + n1):.1%}",
                "Accuracy says little there: calling every film the other class is nearly always "
                "right.",
                "Read recall, specificity, precision and AUROC.",
                {negative: n0, positive: n1},
            )
    if len(shares) > 1 and max(shares.values()) - min(shares.values()) >= APART:
        told = ", ".join(f"{share:.0%} in {part or 'no part'}" for part, share in shares.items())
        yield Finding(
            "unequal-balance",
            "warning",
            f"the share of {positive} differs between parts: {told}",
            "A threshold or a probability that is right in one part is wrong in the other, and "
            "accuracy and precision cannot be compared between them.",
            "Compare by recall, specificity and AUROC; say which share a probability refers to.",
            {part or "none": round(share, 4) for part, share in shares.items()},
        )
    if not manifest.parts():
        yield Finding(
            "no-parts",
            "note",
            "these films have no parts",
            "Shortcuts were cross-validated over all films; whether they hold elsewhere cannot be "
            "told. An audit draws no parts.",
            "hilum train draws them by patient; audit its films.csv to see them judged.",
        )
    if manifest.notes.get("edited"):
        yield Finding(
            "edited",
            "note",
            "the manifest was edited after it was written",
            "Its digest does not fit its rows.",
            "Index the films again if that was not meant.",
        )


def films_by_part(manifest: Manifest, seen: Survey) -> dict[str, tuple[int, int]]:
    """Readable films of class 0 and 1 by part; ``""`` for films without one."""
    counts = {}
    for name in manifest.parts_and_rest():
        here = manifest.part.equal(name) & seen.readable
        n0, n1 = (int((here & (manifest.label == kind)).sum()) for kind in (0, 1))
        counts[name] = (n0, n1)
    return counts
