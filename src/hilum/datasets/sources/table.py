"""A table (CSV) of paths and labels, with patients and parts where it has them."""

# Paths as texts: tables have a hundred thousand rows.
# ruff: noqa: PTH100, PTH113, PTH118, PTH119, PTH120

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from hilum import names
from hilum.datasets.classes import UNKNOWN, is_unknown
from hilum.datasets.columns import Lookup, Paths, Texts
from hilum.datasets.patients import known_patient
from hilum.datasets.sources.listing import Listing, Request, common_folder, part_named
from hilum.errors import Refused, UsageError
from hilum.films.read import each_file

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

_BROKEN = (OSError, EOFError, zlib.error)
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
    """

    def __init__(self, path: Path, *, heads_only: bool = False) -> None:
        self.path = path
        lines = lines_of(path, "table", "CSV")
        first = next(lines, "")
        delimiter = max(",;\t", key=first.count)
        if heads_only:
            lines = iter(())
        rows = filter(None, csv.reader(chain([first], lines), delimiter=delimiter))
        try:
            self.heads = [head.strip() for head in next(rows, [])]
            self._cells = [Texts() for _ in self.heads]
            self._rows = 0
            for row in rows:
                self._rows += 1
                row += [""] * (len(self.heads) - len(row))
                for column, cell in zip(self._cells, row, strict=False):
                    column.append(cell.strip())
        except csv.Error as error:
            raise UsageError(f"not a table: {path} ({error}). Give a CSV.") from error
        self._column: dict[str, int] = {}
        self._twice: dict[str, int] = {}
        for i, head in enumerate(map(_plain, self.heads)):
            if self._column.setdefault(head, i) != i:
                self._twice[head] = i

    def has(self, names: Sequence[str]) -> bool:
        return any(name in self._column for name in names)

    def column(self, names: Sequence[str]) -> Texts:
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
                return self._cells[i]
        return Texts(repeat("", self._rows))

    def needed(self, names: Sequence[str], what: str) -> Texts:
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


def text_of(path: Path, what: str, form: str) -> str:
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
        with _opened(path) as stream:
            return stream.read().decode("utf-8-sig")
    except (*_BROKEN, UnicodeDecodeError) as error:
        raise UsageError(f"not a {what}: {path} ({error}). Give a {form} in UTF-8.") from error


def lines_of(path: Path, what: str, form: str) -> Iterator[str]:
    """As ``text_of``, one line after the other."""
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream):
                yield line.decode("utf-8" if number else "utf-8-sig")
    except UnicodeDecodeError:
        text_of(path, what, form)  # its error tells the place in the whole file
    except _BROKEN as error:
        raise UsageError(f"not a {what}: {path} ({error}). Give a {form} in UTF-8.") from error


def _opened(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


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
    parts = Texts(_part(text, path, row) for row, text in enumerate(table.column(PART)))
    own_patients = table.has(PATIENT)
    people = table.column(PATIENT)
    extra = {name: table.column(heads) for name, heads in EXTRA.items() if table.has(heads)}
    if "age" in extra:
        extra["age"] = Texts(map(years, extra["age"]))
    _refuse_twice(written, path)
    listing = Listing(path.parent)
    missing = unlabelled = unknown = 0
    first = ""  # of those that are missing
    for row, file in enumerate(located(written, request.images or [path.parent], listing)):
        if file is None:
            first = first if missing else written[row]
            missing += 1
            continue
        label, person = labels[row], people[row]
        if not label:
            unlabelled += 1
            continue
        if is_unknown(label):
            unknown += 1
            continue
        patient = names.hashed(person) if person else known_patient(file)
        own = patient is None
        more = {name: column[row] for name, column in extra.items()}
        listing.add(
            file,
            label,
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
    listing.left_out(missing, "their film is not there", "rows", first)
    listing.left_out(unlabelled, "without a label", "rows")
    listing.left_out(unknown, UNKNOWN, "rows")
    if own_patients:
        listing.notes["patient_ids"] = "keyed hashes of the table's"
    if listing.file:
        listing.root = common_folder({os.path.dirname(file) for file in listing.file})
    return listing


def located(
    written: Iterable[str], images: Sequence[Path], listing: Listing
) -> Iterator[str | None]:
    """The file of each path of a table, None where there is none.

    A path is looked for as it is, below each folder of ``images``, and by its stem among all
    files in them (tables name ``.png`` where the copies are ``.jpg``).
    """
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
        yield os.path.abspath(file) if file else None


class Stems:
    """Files by the stem of their name.

    Parameters
    ----------
    files : in the order in which they are looked for
    folder : the number of the folder that each was found in
    """

    def __init__(self, files: Paths, folder: Sequence[int]) -> None:
        self._files, self._folder = files, folder
        self.stems = Lookup(map(stem_of, files))

    def film(self, stem: str) -> str | None:
        """The first file of this stem, None where there is none.

        Raises
        ------
        UsageError
            There are two in one folder, and nothing tells which is meant.
        """
        rows = self.stems.rows(stem)
        if len(rows) > 1 and self._folder[rows[0]] == self._folder[rows[1]]:
            raise UsageError(
                f"two films of one name: {names.shown(self._files[rows[0]])} and "
                f"{names.shown(self._files[rows[1]])}. "
                "Name the folder that is meant with --images."
            )
        return self._files[rows[0]] if rows else None


def by_stem(images: Iterable[Path], listing: Listing) -> Stems:
    """Files below folders by the stem of their name; the first folder wins.

    That two files share a stem matters only where a row needs it: see ``Stems.film``.
    """
    files, which = Paths(), array("I")
    for number, folder in enumerate(images):
        passed: list[str] = []
        for file in each_file(folder, passed):
            files.append(file)
            which.append(number)
        listing.stray += map(os.path.basename, passed)
    return Stems(files, which)


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


def _refuse_twice(written: Texts, path: Path) -> None:
    first = written.first_rows()
    for row in np.flatnonzero(first != np.arange(len(first))).tolist():
        if written[row]:
            raise UsageError(
                f"a film stands twice: {names.shown(written[row], path.parent)} in rows "
                f"{first[row] + 2} and {row + 2} of {path}. Take one out."
            )
