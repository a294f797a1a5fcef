"""Open-i, the chest films of Indiana University: 7,470 films with reports (Demner-Fushman 2016).

As tables: ``indiana_reports.csv`` (``uid``, ``Problems``, ...) and ``indiana_projections.csv``
(``uid``, ``filename``, ``projection``). A report is one examination of one patient: its number
groups the films. Laterals are left out. A film is positive where the report's problems name
pneumonia, negative where they are ``normal`` alone.
"""

from __future__ import annotations

from pathlib import Path

from hilum.datasets.sources.listing import Listing, Request, common_folder
from hilum.datasets.sources.table import Table, by_stem
from hilum.errors import UsageError

TABLES = ("indiana_projections.csv", "indiana_reports.csv")
TASKS = ("pneumonia", "pneumonia-vs-all")
_UID, _FILE, _PROJECTION = ("uid",), ("filename",), ("projection",)
_PROBLEMS = ("problems",)


def is_it(table: Table) -> bool:
    """Whether a table is one of Open-i's two, by its heads."""
    return table.has(_UID) and (
        table.has(_PROBLEMS) or (table.has(_FILE) and table.has(_PROJECTION))
    )


def read(request: Request) -> Listing:
    """List the frontal films with their reports' problems.

    Raises
    ------
    UsageError
        One of the two tables is not there.
    Refused
        No film of the tables is there.
    """
    task = request.question(TASKS)
    folder = request.one if request.one.is_dir() else request.one.parent
    films, reports = (_table(folder, name) for name in TABLES)
    problems = dict(
        zip(reports.needed(_UID, "reports"), reports.needed(_PROBLEMS, "problems"), strict=True)
    )
    folders = request.images or [folder]
    listing = Listing(common_folder(folders), task=task, positive="Pneumonia")
    files = by_stem(folders, listing)
    missing = laterals = others = 0
    rows = zip(
        films.needed(_UID, "reports"),
        films.needed(_FILE, "films"),
        films.needed(_PROJECTION, "projections"),
        strict=True,
    )
    for uid, name, projection in rows:
        file = files.film(name.rpartition(".")[0] or name)
        if file is None:
            missing += 1
        elif projection.lower() != "frontal":
            laterals += 1
        elif not (label := _label(problems.get(uid, ""), task.endswith("-vs-all"))):
            others += 1
        else:
            listing.add(file, label, f"openi-{uid}", extra={"view": "frontal"})
    listing.refuse_none(films.path, missing)
    listing.left_out(missing, "their film is not there", "rows")
    listing.left_out(laterals, "laterals")
    listing.left_out(others, "neither pneumonia nor normal by their report")
    return listing


def _label(problems: str, against_all: bool) -> str:
    terms = {term.strip().lower() for term in problems.split(";")} - {""}
    if any(term.partition("/")[0].startswith("pneumonia") for term in terms):
        return "Pneumonia"
    if against_all and terms:
        return "no Pneumonia"
    return "normal" if terms == {"normal"} else ""


def _table(folder: Path, name: str) -> Table:
    if not (folder / name).is_file():
        raise UsageError(f"no table {name}: {folder}. Open-i needs both {' and '.join(TABLES)}.")
    return Table(folder / name)
