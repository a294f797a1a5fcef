"""A table (CSV) of paths and labels, with patients and parts where it has them."""

# Paths as texts: tables have a hundred thousand rows.
# ruff: noqa: PTH100, PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from hilum import names
from hilum.datasets.classes import UNKNOWN, is_unknown
from hilum.datasets.patients import known_patient
from hilum.datasets.sources.listing import Listing, Request, common_folder, part_named
from hilum.errors import Refused, UsageError
from hilum.films.read import find_files

# What people call the columns, best first; compared without case, spaces and underscores.
PATH = ("path", "filepath", "file", "filename", "image", "imagepath", "imageindex", "film")
LABEL = ("label", "class", "finding", "target", "diagnosis", "category")
PATIENT = ("patient", "patientid", "patientkey", "subject", "subjectid")
PART = ("part", "split", "subset", "fold")
EXTRA = {
    "view": ("view", "viewposition", "projection"),
    "age": ("age", "patientage"),
    "sex": ("sex", "patientsex", "gender", "patientgender"),
    "subtype": ("subtype", "agent"),
    "source": ("source", "site", "hospital"),
}

_AGE = re.compile(
    r"\s*(\d+(?:\.\d*)?)\s*(?:(y(?:(?:ea)?rs?)?|m(?:o|onths?)?|w(?:eeks?)?|d(?:ays?)?)\.?)?\s*",
    re.I,
)


class Table:
    """A CSV (``.gz`` too) in memory: columns by the names that people use.

    Parameters
    ----------
    heads_only : read the first line alone, to tell what the table is

    Attributes
    ----------
    heads : column names as written
    rows : lists of cells, all as long as ``heads``
    """

    def __init__(self, path: Path, *, heads_only: bool = False) -> None:
        self.path = path
        text = text_of(path, "table", "CSV", first_line=heads_only)
        first = text[: text.find("\n")] if "\n" in text else text
        delimiter = max(",;\t", key=first.count)
        try:
            cells = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
        except csv.Error as error:
            raise UsageError(f"not a table: {path} ({error}). Give a CSV.") from error
        self.heads = [head.strip() for head in cells[0]] if cells else []
        width = len(self.heads)
        self.rows = [
            row if len(row) == width else (row + [""] * width)[:width] for row in cells[1:]
        ]
        self._column: dict[str, int] = {}
        self._twice: dict[str, int] = {}
        for i, head in enumerate(map(_plain, self.heads)):
            if self._column.setdefault(head, i) != i:
                self._twice[head] = i

    def has(self, names: Sequence[str]) -> bool:
        return any(name in self._column for name in names)

    def column(self, names: Sequence[str]) -> list[str]:
        """The first of these columns that is there, stripped; empty texts where none is.

        Raises
        ------
        UsageError
            There are two of that name.
        """
        for name in names:
            if name in self._column:
                i = self._column[name]
                if name in self._twice:
                    raise UsageError(
                        f"two columns of one name: {self.heads[i]} and "
                        f"{self.heads[self._twice[name]]} in {self.path}. Take one out."
                    )
                return [row[i].strip() for row in self.rows]
        return [""] * len(self.rows)

    def needed(self, names: Sequence[str], what: str) -> list[str]:
        """As ``column``; ``UsageError`` naming the columns that there are if none is."""
        if not self.has(names):
            raise UsageError(
                f"no column of {what}: {self.path} has {', '.join(self.heads[:12]) or 'no heads'}. "
                f"Call it one of {', '.join(names)}."
            )
        return self.column(names)


def years(text: str) -> str:
    """An age as tables write it, in years: ``58``, ``058Y``, ``18 months``, ``012D``; else ``""``.

    Nobody is older than 130: such an age is a slip of the table.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        return ""
    unit = {"m": 12.0, "w": 52.18, "d": 365.25}.get((match[2] or "y")[0].lower(), 1.0)
    age = float(match[1]) / unit
    return f"{age:g}" if age <= 130 else ""


def text_of(path: Path, what: str, form: str, *, first_line: bool = False) -> str:
    """The text of a file, unpacked where it ends in ``.gz``.

    Parameters
    ----------
    what, form : what is read, and what to give, for messages

    Raises
    ------
    UsageError
        The file cannot be read, ends too early, or is no UTF-8.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return (stream.readline() if first_line else stream.read()).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"not a {what}: {path} ({error}). Give a {form} in UTF-8.") from error


def read(request: Request) -> Listing:
    """List the films of a table.

    Its paths are relative to the folders of ``images`` (the table's own where none is given), or
    name files there by their stems.

    Raises
    ------
    UsageError
        A column is missing, a path stands twice, or a part has no known name.
    Refused
        Not one of the films is there.
    """
    path = request.one
    table = Table(path)
    written = table.needed(PATH, "paths")
    labels = table.needed(LABEL, "labels")
    parts = [_part(text, path, row) for row, text in enumerate(table.column(PART))]
    own_patients = table.has(PATIENT)
    people = table.column(PATIENT)
    extra = {name: table.column(heads) for name, heads in EXTRA.items() if table.has(heads)}
    if "age" in extra:
        extra["age"] = [years(text) for text in extra["age"]]
    _refuse_twice(written, path)
    listing = Listing(path.parent)
    files = located(written, request.images or [path.parent], listing)
    missing = unlabelled = unknown = 0
    for row, file in enumerate(files):
        if file is None:
            missing += 1
            continue
        if not labels[row]:
            unlabelled += 1
            continue
        if is_unknown(labels[row]):
            unknown += 1
            continue
        patient = names.hashed(people[row]) if people[row] else known_patient(file)
        own = patient is None
        more = {name: column[row] for name, column in extra.items()}
        listing.add(
            file,
            labels[row],
            patient or names.without_ending(written[row]),
            parts[row],
            more,
            own=own,
        )
    if not listing.file and missing:
        raise Refused(
            f"none of the films is there: {path} names {missing}, the first "
            f"{names.shown(written[0], path.parent)}. Say where they are with --images."
        )
    listing.left_out(missing, "their film is not there", "rows", _first(written, files))
    listing.left_out(unlabelled, "without a label", "rows")
    listing.left_out(unknown, UNKNOWN, "rows")
    if own_patients:
        listing.notes["patient_ids"] = "keyed hashes of the table's"
    if listing.file:
        listing.root = common_folder([os.path.dirname(file) for file in listing.file])
    return listing


def located(written: Sequence[str], images: Sequence[Path], listing: Listing) -> list[str | None]:
    """The file of each path of a table, None where there is none.

    A path is looked for as it is, below each folder of ``images``, and by its stem among all
    files in them (tables name ``.png`` where the copies are ``.jpg``).
    """
    found: list[str | None] = []
    stems: Stems | None = None
    bases = [str(folder) for folder in images]
    for text in written:
        text = text.replace("\\", "/")
        file = next(
            (joined for base in bases if os.path.isfile(joined := os.path.join(base, text))), None
        )
        if file is None and text:
            if stems is None:
                stems = by_stem(images, listing)
            file = stems.film(stem_of(text))
        found.append(os.path.abspath(file) if file else None)
    return found


class Stems(dict[str, str]):
    """Files by the stem of their name, and where a folder has two of one stem the second."""

    def __init__(self) -> None:
        self.second: dict[str, str] = {}

    def film(self, stem: str) -> str | None:
        """The file of this stem, None where there is none.

        Raises
        ------
        UsageError
            There are two in one folder, and nothing tells which is meant.
        """
        if stem in self.second:
            raise UsageError(
                f"two films of one name: {names.shown(self[stem])} and "
                f"{names.shown(self.second[stem])}. "
                "Name the folder that is meant with --images."
            )
        return self.get(stem)


def by_stem(images: Iterable[Path], listing: Listing) -> Stems:
    """Files below folders by the stem of their name; the first folder wins.

    That two files share a stem matters only where a row needs it: see ``Stems.film``.
    """
    stems = Stems()
    for folder in images:
        here: set[str] = set()
        passed: list[str] = []
        for file in find_files([folder], passed=passed):
            stem = stem_of(file)
            if stem in here:
                stems.second.setdefault(stem, file)
            elif stem not in stems:
                stems[stem] = file
                here.add(stem)
        listing.stray += map(os.path.basename, passed)
    return stems


def stem_of(path: str) -> str:
    """A file's name without folders and ending."""
    return names.without_ending(os.path.basename(path))


def _plain(head: str) -> str:
    return "".join(c for c in head.lower() if c.isalnum())


def _part(text: str, path: Path, row: int) -> str:
    if not text:
        return ""
    part = part_named(text)
    if part is None:
        raise UsageError(
            f"no such part: {text!r} in row {row + 2} of {path}. "
            "There are train, validation, test and empty."
        )
    return part


def _refuse_twice(written: Sequence[str], path: Path) -> None:
    first: dict[str, int] = {}
    for row, text in enumerate(written):
        if text and first.setdefault(text, row) != row:
            raise UsageError(
                f"a film stands twice: {names.shown(text, path.parent)} in rows "
                f"{first[text] + 2} and {row + 2} of {path}. Take one out."
            )


def _first(written: Sequence[str], files: Sequence[str | None]) -> str:
    return next((text for text, file in zip(written, files, strict=True) if file is None), "")
