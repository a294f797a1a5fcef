"""NIH ChestX-ray14: 112,120 films with labels mined from reports (Wang et al., CVPR 2017).

The table is ``Data_Entry_2017.csv`` (or ``_v2020``, gzipped or not); the films are found by
their stems in any folders, in whatever format they were copied to. The official lists beside the
table (``train_val_list.txt``, ``test_list.txt``) make the parts; where only the first is there, the
other is its complement.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hilum.datasets.columns import Lookup, Texts
from hilum.datasets.sources.listing import Listing, Request, common_folder, table_in
from hilum.datasets.sources.table import Table, by_stem, stem_of, text_of, years
from hilum.errors import Refused, UsageError

TABLES = ("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz")
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NOTHING = "No Finding"
_BITS = {name: 1 << place for place, name in enumerate(FINDINGS)} | {NOTHING: 0}
_LISTS = {"train_val_list": "train", "test_list": "test"}
_IMAGE, _LABELS, _PATIENT = ("imageindex",), ("findinglabels",), ("patientid",)

# "pneumonia" is pneumonia against no finding, "pneumonia-vs-all" against everything else; the
# same for each other finding.
TASKS = (
    "pneumonia",
    "pneumonia-vs-all",
    *(f.lower() for f in FINDINGS if f != "Pneumonia"),
    *(f"{f.lower()}-vs-all" for f in FINDINGS if f != "Pneumonia"),
)


def is_it(table: Table) -> bool:
    """Whether a table is ChestX-ray14's, by its heads."""
    return table.has(_IMAGE) and table.has(_LABELS)


def read(request: Request) -> Listing:
    """List the films that are both in the table and in the folders.

    Raises
    ------
    UsageError
        The table, a list, a task, a label or a patient's number that is not there or not known.
    Refused
        No film of the table is there.
    """
    task = request.question(TASKS)
    path = table_in(request.one, TABLES, "Data_Entry_2017*.csv")
    table = Table(path)
    names = table.needed(_IMAGE, "film names")
    labels = table.needed(_LABELS, "findings")
    rows = zip(
        names,
        labels,
        table.column(_PATIENT),
        table.column(("patientage",)),
        table.column(("patientsex", "patientgender")),
        table.column(("viewposition",)),
        strict=True,
    )
    official = _official(path.parent)
    lists = {name: Lookup(listed) for name, listed in official.items()}
    folders = request.images or [path.parent]
    listing = Listing(path.parent, task=task)
    files = by_stem(folders, listing)
    finding = next(f for f in FINDINGS if f.lower() == task.removesuffix("-vs-all"))
    listing.positive = finding
    told = array("H")  # findings of the films that are listed, a bit each
    missing = others = 0
    for row, (film, found, patient, age, sex, view) in enumerate(rows):
        stem = stem_of(film)
        file = files.film(stem)
        if file is None:
            missing += 1
            continue
        there = set(found.split("|"))
        unknown = there - {*FINDINGS, NOTHING}
        if unknown:
            raise UsageError(
                f"unknown finding: {min(unknown)} in row {row + 2} of {path}. Mend it."
            )
        label = _label(there, finding, task.endswith("-vs-all"))
        if not label:
            others += 1
            continue
        listing.add(
            file,
            label,
            _patient(patient or stem.partition("_")[0], row, path),
            _part(stem, lists),
            {"view": view, "age": years(age), "sex": sex},
        )
        told.append(sum(map(_BITS.__getitem__, there)))
    if not listing.file:
        where = ", ".join(str(folder) for folder in folders)
        raise Refused(
            f"no film of {path.name} with {finding} or {NOTHING} is in {where}: "
            f"{missing} rows have no film there. Say where the films are with --images."
        )
    for name in FINDINGS:
        has = np.asarray(told) & _BITS[name] > 0
        listing.extra[name] = Texts(("0", "1")).select(has.astype(np.uint8))
    listing.left_out(missing, "their film is not there", "rows")
    listing.left_out(others, f"neither {finding} nor {NOTHING}")
    named = Lookup(map(stem_of, names))
    listing.left_out(len(files.stems.absent(named)), "the table does not name them")
    for name, listed in official.items():
        strange = [listed[row] for row in lists[name].absent(named)]
        why, what = "the table has no such film", f"lines of {name}.txt"
        listing.left_out(len(strange), why, what, min(strange, default=""))
    listing.root = common_folder(folders)
    return listing


def _label(there: set[str], finding: str, against_all: bool) -> str:
    """The class name; ``""`` for a film that the task leaves out."""
    if finding in there:
        return finding
    if against_all:
        return f"no {finding}"
    return NOTHING if there == {NOTHING} else ""


def _patient(text: str, row: int, path: Path) -> str:
    number = text.removesuffix(".0")  # as a column of floats is written
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"not a patient's number: {text!r} in row {row + 2} of {path}. Mend it.")
    return f"nih-{number.lstrip('0').zfill(8)}"


def _part(stem: str, lists: Mapping[str, Lookup]) -> str:
    """The part of a film by the official lists; ``""`` where none of them tells."""
    for name, part in _LISTS.items():
        if name in lists and stem in lists[name]:
            return part
    # Beside the training list alone all else is its complement.
    return "test" if list(lists) == ["train_val_list"] else ""


def _official(folder: Path) -> dict[str, Texts]:
    """Stems of the official lists beside the table, by the name of the list."""
    lists = {}
    for name in _LISTS:
        for file in (folder / f"{name}.txt", folder / f"{name}.txt.gz"):
            if file.is_file():
                lines = text_of(file, "list of films", "text").splitlines()
                lists[name] = Texts(filter(None, (stem_of(line.strip()) for line in lines)))
                break
    return lists
