"""From a source to a manifest: which films, what of, whose, and in which part."""

# Paths as texts: sources have a hundred thousand films.
# ruff: noqa: PTH120

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hilum import names
from hilum.datasets import classes, provenance, split
from hilum.datasets.columns import Texts
from hilum.datasets.manifest import PARTS, Manifest, is_manifest, number_of
from hilum.datasets.sources import class_folders, dicom, medmnist, nih, openi, rsna, table
from hilum.datasets.sources.listing import Listing, Request, common_folder, existing
from hilum.errors import LeakError, Refused, UsageError, nearest
from hilum.progress import SILENT, Progress

# A published validation part of fewer films is merged into train: Kermany's has 16.
FEW = 100
SHARE = 0.15  # of the patients, for a part that is drawn


def index(
    *sources: str | Path,
    kind: str | None = None,
    positive: str | None = None,
    validation: float = SHARE,
    test: float = SHARE,
    allow_leak: bool = False,
    task: str | None = None,
    draw: bool = True,
    images: Iterable[str | Path] = (),
    progress: Progress = SILENT,
) -> Manifest:
    """List films with labels, patients and parts.

    Parameters
    ----------
    sources : folders, a table or an archive
    kind : what they are, one of ``KINDS``; by default their content tells
    positive : the class that counts as positive, where its name is not a known one
    validation, test : shares of the patients to draw, where the source has no such part
    allow_leak : go on with patients in two parts; ``notes["leak"]`` counts those that stay
    task : the question, where a kind offers several
    draw : False keeps to the parts that the source has
    images : folders of the films that a table names

    Raises
    ------
    UsageError
        A source, class, column or option that is not there or not known.
    LeakError
        A patient in two parts.
    Refused
        No film, no label, or one class only.
    """
    paths = existing(sources)
    if not paths:
        raise UsageError("which films? Name a folder, a table or an archive.")
    chosen = kind or tell_kind(paths)
    if chosen not in KINDS:
        raise UsageError(f"no such kind of source: {chosen}. {nearest(chosen, KINDS)}")
    manifest = _listed(chosen, Request(paths, existing(images), task, progress), positive)
    manifest.notes["kind"] = chosen
    manifest.notes["sources"] = [str(path) for path in paths]
    return _parted(manifest, validation, test, draw, allow_leak)


def _listed(kind: str, request: Request, positive: str | None) -> Manifest:
    """The films of sources with labels and patients, in the parts that the sources have."""
    paths = request.paths
    if request.images and kind in ("folders", "medmnist"):
        raise UsageError(
            f"--images is for the films that a table names: {request.images[0]}. "
            f"{paths[0]} is no table; name that folder as a source, or leave it out."
        )
    with request.progress.stage("listing films"):
        listing = KINDS[kind](request)
        if kind in ("folders", "table"):
            dicom.know_patients(listing, request.progress)
    where = ", ".join(str(path) for path in paths)
    if not listing.file:
        passed = number_of(len(listing.stray), "files")
        told = listing.told_left_out() or f"{passed} there and no film among them"
        raise Refused(
            f"no films: {where}. {told[0].upper() + told[1:]}. Check the path and the labels."
        )
    _check_names(listing.file)
    listing.stray = [name for name in listing.stray if name != provenance.FILE]
    about = provenance.about(paths, kind, listing.file)
    manifest = _labelled(listing, positive, request.task, where)
    manifest.notes.update(about)
    return manifest


def _check_names(files: Sequence[str]) -> None:
    """A manifest is UTF-8: raise ``Refused`` where a film's name is not."""
    broken = [file for file in files if not _is_text(file)]
    if broken:
        raise Refused(
            f"a film's name is not valid UTF-8: {names.shown(broken[0])} ({len(broken)} such "
            "names). Rename the files, for example with convmv."
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def open_data(
    sources: Manifest | str | Path | Sequence[str | Path],
    *,
    allow_leak: bool = False,
    progress: Progress = SILENT,
    **options: Any,
) -> Manifest:
    """DATA of every command: a manifest is taken or read as it is, anything else is indexed.

    Parameters
    ----------
    options : those of :func:`index`

    Raises
    ------
    TypeError
        An option that :func:`index` does not have: with a manifest, too, which needs none of them.
    Refused
        The manifest lists no film; and what :func:`index` raises.
    """
    signature(index).bind_partial(**options)
    if isinstance(sources, Manifest):
        _refuse_options(sources, "it", options)
        return sources
    if isinstance(sources, str | Path):
        sources = (sources,)
    if len(sources) == 1 and is_manifest(path := Path(sources[0]).expanduser()):
        manifest = Manifest.read(path)
        _refuse_options(manifest, path, options)
        if not len(manifest):
            raise Refused(f"no films: {path} lists none. Index the films again.")
        if not manifest.root.is_dir():
            raise UsageError(
                f"the films' folder is not there: {manifest.root}, named by {path}. "
                f"Put it back, or set root in {path.with_suffix('.json').name}."
            )
        _check_leaks(manifest, allow_leak or "leak" in manifest.notes)
    else:
        manifest = index(*sources, allow_leak=allow_leak, progress=progress, **options)
    for line in manifest.remarks():
        progress.say(line)
    return manifest


def _refuse_options(manifest: Manifest, path: Path | str, options: dict[str, Any]) -> None:
    """``UsageError`` for an option of ``index`` that would change nothing in a manifest."""
    settled = {
        "kind": (None, manifest.notes.get("kind")),
        "positive": (None, manifest.classes[1]),
        "task": (None, manifest.task),
        "validation": (SHARE,),
        "test": (SHARE,),
    }
    for name, same in settled.items():
        if options.get(name, same[0]) not in same:
            raise UsageError(
                f"--{name} changes nothing in a manifest: {path} is taken as it is. Leave it out, "
                "or give the source that it was made of."
            )
    if list(options.get("images", ())):
        raise UsageError(
            f"--images changes nothing in a manifest: {path} names its films itself. Leave it out."
        )


def tell_kind(paths: Sequence[Path]) -> str:
    """What sources are, by their content."""
    if len(paths) == 1 and paths[0].is_file():
        path = paths[0]
        if path.suffix.lower() == ".npz":
            return "medmnist"
        if path.name.lower().endswith((".csv", ".csv.gz", ".tsv")):
            heads = table.Table(path, heads_only=True)
            return next((kind for kind, is_it in _TABLES.items() if is_it(heads)), "table")
    elif len(paths) == 1:
        for kind, named in _NAMES.items():
            if any(any(paths[0].glob(pattern)) for pattern in named):
                return kind
        return "folders"
    elif all(path.is_dir() for path in paths):
        return "folders"
    raise UsageError(
        f"cannot tell what this is: {paths[0]}. Name folders or one table, or say it with --kind "
        f"({', '.join(KINDS)})."
    )


KINDS: dict[str, Callable[[Request], Listing]] = {
    "folders": class_folders.read,
    "table": table.read,
    "nih": nih.read,
    "rsna": rsna.read,
    "openi": openi.read,
    "dicom": dicom.read,
    "medmnist": medmnist.read,
}
_TABLES = {"nih": nih.is_it, "rsna": rsna.is_it, "openi": openi.is_it, "dicom": dicom.is_it}
_NAMES = {"nih": nih.TABLES, "rsna": rsna.TABLES, "openi": openi.TABLES}


def _labelled(listing: Listing, positive: str | None, task: str | None, where: str) -> Manifest:
    """Columns with labels, in the order of their paths, relative to one root."""
    if positive and listing.positive and classes.plain(positive) != classes.plain(listing.positive):
        raise UsageError(
            f"not the positive class: {positive}. The question asked of {where} is {listing.task}, "
            f"whose positive class is {listing.positive}; --task asks another where there is one."
        )
    meaning = classes.meaning(
        listing.name, positive or listing.positive, where, listing.told_left_out()
    )
    if task is not None and not listing.task and task != meaning.task:
        raise UsageError(
            f"no such task here: {task}. The classes of {where} ask for {meaning.task} alone; "
            "--positive says which of them is positive."
        )
    root = str(listing.root)
    if any(
        os.path.dirname(file) != root and not file.startswith(root + os.sep)
        for file in listing.file
    ):  # a table may reach outside its folder
        root = str(common_folder({os.path.dirname(file) for file in listing.file}))
    notes = dict(listing.notes)
    own = len(listing.own)
    notes["patients"] = {"by_name_or_table": len(listing.file) - own, "own": own}
    if listing.stray:
        notes["passed_over"] = {
            "files": len(listing.stray),
            "examples": sorted(set(listing.stray))[:5],
        }
    manifest = Manifest(
        root=Path(root),
        path=listing.file.below(root),
        label=meaning.label,
        patient=listing.patient,
        part=listing.part,
        extra=dict(listing.extra),
        task=listing.task or meaning.task,
        classes=meaning.classes,
        notes=notes,
    )
    return _in_order(manifest)


def _in_order(manifest: Manifest) -> Manifest:
    """The films by their paths; ``UsageError`` where one stands twice."""
    path = manifest.path
    if all(before < after for before, after in pairwise(path)):
        return manifest  # as folders are walked: nothing to sort, which takes the texts themselves
    order = sorted(range(len(path)), key=path.__getitem__)
    for before, row in pairwise(order):
        if path[before] == path[row]:
            raise UsageError(
                f"a film stands twice: {names.shown(path[row], manifest.root)}. "
                "Name each source once."
            )
    return manifest.select(np.array(order, np.int64))


def _parted(
    manifest: Manifest, validation: float, test: float, draw: bool, allow_leak: bool
) -> Manifest:
    """Leaks refused, a tiny published validation part merged, missing parts drawn."""
    notes = manifest.notes
    published = manifest.parts()
    notes["published"] = published
    _check_leaks(manifest, allow_leak)
    if not draw:
        return manifest
    part = manifest.part
    few = part.count("validation")
    if "train" in published and 0 < few < FEW:
        part = Texts("train" if p == "validation" else p for p in part)
        notes["merged"] = {"part": "validation", "into": "train", "films": few}
    shares = {}
    if "test" not in published and test > 0:
        shares["test"] = test
    if "validation" not in part and validation > 0:
        shares["validation"] = validation
    if shares and {"train", ""} & set(part):
        part, salt = split.draw_parts(manifest.patient, manifest.label, part, shares)
        notes["drawn"] = {
            "shares": shares,
            "by": "patient",
            "rule": "SHA-256 of salt, part and patient",
            "salt": salt,
        }
        if published:
            notes["drawn"]["unpublished"] = manifest.part.count("")
    parted = replace(manifest, part=part)
    assert set(parted.part) <= {*PARTS, ""}
    split.note_leaks(parted)  # merged and drawn by patient, a part may leak no more
    return parted


def _check_leaks(manifest: Manifest, allowed: bool) -> None:
    """Count patients in two parts, and refuse them if they are not allowed."""
    torn = split.note_leaks(manifest)
    if not torn or allowed:
        return
    named = []
    for leak in torn[:3]:
        films = [
            next(
                f"{manifest.shown(manifest.path[row])} ({part})"
                for row in leak.rows
                if manifest.part[row] == part
            )
            for part in leak.parts
        ]
        named.append(f"{names.patient(leak.patient)}: {', '.join(films)}")
    more = f"; and {len(torn) - 3} more" if len(torn) > 3 else ""
    raise LeakError(
        f"patients in two parts: {len(torn)} with {sum(len(leak.rows) for leak in torn)} films "
        f"({'; '.join(named)}{more}). Move them into one part, or go on with --allow-leak: every "
        "report will say so."
    )
