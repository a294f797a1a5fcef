"""RSNA Pneumonia Detection Challenge 2018: 26,684 labelled DICOM films, chosen from ChestX-ray14.

``stage_2_train_labels.csv`` has a row for each box (``patientId,x,y,width,height,Target``),
``stage_2_detailed_class_info.csv`` beside it a class for each film. Its ``patientId`` names a film;
whose films belong together is not published there. Never pool it with ChestX-ray14.
"""

from __future__ import annotations

from pathlib import Path

from hilum.datasets.columns import Lookup
from hilum.datasets.sources.dicom import know_patients
from hilum.datasets.sources.listing import Listing, Request, common_folder, table_in
from hilum.datasets.sources.table import Table, by_stem
from hilum.errors import UsageError

TABLES = ("*train_labels.csv",)
_ID, _TARGET, _CLASS = ("patientid",), ("target",), ("class",)
_OPACITY, _NORMAL = "Lung Opacity", "Normal"
# Opacity against healthy films, or against all without one.
TASKS = ("pneumonia", "pneumonia-vs-all")


def is_it(table: Table) -> bool:
    """Whether a table is the challenge's table of boxes, by its heads."""
    return table.has(_ID) and table.has(_TARGET) and table.has(("x",)) and table.has(("width",))


def read(request: Request) -> Listing:
    """List the films of the challenge's table.

    Raises
    ------
    UsageError
        The task needs the table of classes, which is not there, or a target is not 0 or 1.
    Refused
        No film of the table is there.
    """
    path = table_in(request.one, TABLES, "stage_2_train_labels.csv")
    table = Table(path)
    targets = table.needed(_TARGET, "targets")
    opaque = [_opaque(text, row, path) for row, text in enumerate(targets)]
    target = dict(zip(table.needed(_ID, "films"), opaque, strict=True))
    classes = _classes(path)
    task = request.question(TASKS) if request.task or classes else "pneumonia-vs-all"
    if task == "pneumonia" and not classes:
        raise UsageError(
            f"no table of classes: {path.parent}/stage_2_detailed_class_info.csv tells which films "
            "are normal. Put it there, or take --task pneumonia-vs-all."
        )
    folders = request.images or [path.parent]
    listing = Listing(common_folder(folders), task=task, positive=_OPACITY)
    files = by_stem(folders, listing)
    missing = others = 0
    for film, hit in target.items():
        file = files.film(film)
        if file is None:
            missing += 1
            continue
        name = _OPACITY if hit else "no opacity"
        if task == "pneumonia" and not hit:
            name = _NORMAL if classes.get(film) == _NORMAL else ""
        if not name:
            others += 1
            continue
        listing.add(file, name, f"rsna-{film}", extra={"finding": classes.get(film, "")}, own=True)
    listing.refuse_none(path, missing)
    # Its headers tell view, age and sex; PatientID there is the film's own number again.
    know_patients(listing, request.progress, views_only=True)
    listing.left_out(missing, "their film is not there", "rows")
    listing.left_out(others, "neither an opacity nor normal")
    listing.left_out(len(files.stems.absent(Lookup(target))), "the table does not name them")
    return listing


def _opaque(text: str, row: int, path: Path) -> bool:
    if text not in {"0", "1", "0.0", "1.0"}:
        raise UsageError(f"no such target: {text!r} in row {row + 2} of {path}. Write 0 or 1.")
    return text in {"1", "1.0"}


def _classes(path: Path) -> dict[str, str]:
    found = sorted(path.parent.glob("*detailed_class_info.csv"))
    if not found:
        return {}
    table = Table(found[0])
    return dict(zip(table.needed(_ID, "films"), table.needed(_CLASS, "classes"), strict=True))
