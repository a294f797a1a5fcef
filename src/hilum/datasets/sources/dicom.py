"""DICOM films: labels by UID from a table, patients and views from the headers.

Identifiers stay here: a manifest gets the patient as a keyed hash (``names.hashed``), never a
name, number, date or UID. File names go into a manifest as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from hilum import machine, names
from hilum.datasets.classes import UNKNOWN, is_unknown
from hilum.datasets.columns import Texts
from hilum.datasets.sources.listing import Listing, Request, common_folder, part_named
from hilum.datasets.sources.table import LABEL, PART, PATH, PATIENT, Table
from hilum.errors import UnreadableFilm, UsageError
from hilum.films.read import find_files, sniff
from hilum.films.read import read as read_film
from hilum.films.workers import Workers
from hilum.progress import Progress

FILM_UID = ("sopinstanceuid", "sopuid", "instanceuid", "imageuid", "sopinstance")
STUDY_UID = ("studyinstanceuid", "studyuid", "studyinstance", "study")
_CHUNK = 64


@dataclass(frozen=True)
class Known:
    """What a header tells, its patient already a hash."""

    instance: str
    study: str
    patient: str
    view: str
    age: str
    sex: str


def is_it(table: Table) -> bool:
    """Whether a table is of labels by UID, by its heads."""
    return (table.has(FILM_UID) or table.has(STUDY_UID)) and not table.has(PATH)


def read(request: Request) -> Listing:
    """List DICOM films whose SOP Instance UID or Study Instance UID a table labels.

    Raises
    ------
    UsageError
        The table has no column of UIDs or of labels, or two labels for one UID.
    Refused
        No film of the table is there.
    """
    path = request.one
    if path.is_dir():
        raise UsageError(f"DICOM films need their labels: {path}. Name a table, with --images.")
    table = Table(path)
    by_film = table.has(FILM_UID)
    uids = table.needed(FILM_UID if by_film else STUDY_UID, "UIDs")
    labels = _one_each(uids, table.needed(LABEL, "labels"), "label", path)
    parts = _one_each(uids, table.column(PART), "part", path)
    people = _one_each(uids, table.column(PATIENT), "patient", path)
    folders = request.images or [path.parent]
    listing = Listing(common_folder(folders))
    passed: list[str] = []
    files = find_files(folders, passed=passed)
    listing.stray = [Path(file).name for file in passed]
    seen: set[str] = set()
    unlabelled = unknown = broken = 0
    for file, known in headers(files, request.progress):
        if known is None:
            broken += 1
            continue
        uid = known.instance if by_film else known.study
        seen.add(uid)
        if not labels.get(uid):
            unlabelled += 1
            continue
        if is_unknown(labels[uid]):
            unknown += 1
            continue
        patient = names.hashed(people[uid]) if people[uid] else known.patient
        part = part_named(parts[uid]) if parts[uid] else ""
        if part is None:
            raise UsageError(
                f"no such part: {parts[uid]!r} in {path}. Write train, validation, test."
            )
        listing.add(
            file,
            labels[uid],
            patient or names.without_ending(str(Path(file).relative_to(listing.root))),
            part,
            {"view": known.view, "age": known.age, "sex": known.sex},
            own=not patient,
        )
    missing = len(set(labels) - seen)
    if missing:
        listing.refuse_none(path, missing)
    listing.left_out(missing, "their film is not there", "rows")
    listing.left_out(unlabelled, "the table has no label for them")
    listing.left_out(unknown, UNKNOWN)
    listing.left_out(broken, "no DICOM header can be read, so no label is known", "files")
    return listing


def know_patients(listing: Listing, progress: Progress, *, views_only: bool = False) -> None:
    """Fill in patients, and view, age and sex, from the headers of those films that are DICOM.

    Parameters
    ----------
    views_only : leave the patients, where the set's headers do not tell them
    """
    rows = {listing.file[row]: row for row in listing.own if _is_dicom(listing.file[row])}
    if not rows:
        return
    for column in ("view", "age", "sex"):
        listing.extra.setdefault(column, Texts(repeat("", len(listing.file))))
    known_rows: set[int] = set()
    for file, known in headers(list(rows), progress):
        if known is None:
            continue  # a broken film stays in the list; reading it will say why
        row = rows[file]
        if known.patient and not views_only:
            listing.patient[row] = known.patient
            known_rows.add(row)
        for column in ("view", "age", "sex"):
            listing.extra[column][row] = listing.extra[column][row] or getattr(known, column)
    listing.own = array("I", (row for row in listing.own if row not in known_rows))


def headers(files: list[str], progress: Progress) -> Iterator[tuple[str, Known | None]]:
    """(file, what its header tells) in order; None for one that cannot be opened or is no DICOM.

    Headers come from strangers: more than a few are parsed in processes of their own.
    """
    count = min(machine.cores(), len(files) // _CHUNK)
    with Workers(count) as pool, progress.stage("reading headers", len(files)) as advance:
        for number, answer in pool.map(header_of, files, chunk=_CHUNK, ordered=True):
            advance(1)
            yield files[number], None if isinstance(answer, UnreadableFilm) else _hashed(answer)


def header_of(file: str) -> tuple[str, ...]:
    """Instance, study, patient, view, age and sex of a DICOM file; a worker's task."""
    film = read_film(file)
    if film.format != "dicom":
        raise UnreadableFilm("not-a-film", "this is no DICOM file")
    header = film.header
    age = "" if header.age is None else f"{header.age:g}"
    texts = (header.instance, header.study, header.patient, header.view, age, header.sex)
    return tuple(text or "" for text in texts)


def _hashed(told: tuple[str, ...]) -> Known:
    instance, study, patient, view, age, sex = told
    return Known(instance, study, names.hashed(patient) if patient else "", view, age, sex)


def _is_dicom(file: str) -> bool:
    try:
        if not Path(file).is_file():  # a pipe, say, which would be waited for
            return False
        with Path(file).open("rb") as stream:
            return sniff(stream.read(256)) == "dicom"
    except OSError:
        return False


def _one_each(uids: Iterable[str], column: Iterable[str], what: str, path: Path) -> dict[str, str]:
    """The value of each UID; an error quotes none, for it may be a patient's number."""
    told: dict[str, str] = {}
    first: dict[str, int] = {}
    for row, (uid, value) in enumerate(zip(uids, column, strict=True)):
        if told.setdefault(uid, value) != value:
            raise UsageError(
                f"two answers for one UID: row {row + 2} of {path} gives another {what} than row "
                f"{first[uid] + 2}. Mend it."
            )
        first.setdefault(uid, row)
    return told
