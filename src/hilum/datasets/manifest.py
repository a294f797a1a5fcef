"""The list of films of a data set, as columns, and its two files on disk."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum import names, storage
from hilum.datasets.columns import Paths, Texts, paths, texts
from hilum.errors import UsageError

if TYPE_CHECKING:
    from hilum.films.radiograph import Radiograph

FORMAT = 1
PARTS = ("train", "validation", "test")
COLUMNS = ("path", "label", "patient", "part")


@dataclass(frozen=True, eq=False)
class Manifest:
    """Films as columns of equal length n; sequences of texts are kept as ``Paths`` and ``Texts``.

    Attributes
    ----------
    root : folder that ``path`` is relative to
    path : n relative POSIX paths (``archive.npz#17`` for an array in an archive)
    label : (n,) int8, 0 or 1, -1 where unknown
    patient : n grouping keys (never a bare hospital number)
    part : n of ``train``, ``validation``, ``test`` or ``""``
    extra : further columns by name (``view``, ``age``, ``sex``, ``subtype``, ``source``, one for
        each finding), each n texts, ``""`` where unknown
    task : ``pneumonia`` or the name of another binary task
    classes : names of class 0 and 1, as the source wrote them
    notes : JSON-able: how the split was drawn, what was merged, passed over, left out and why,
        ``leak`` count where one was allowed
    """

    root: Path
    path: Paths
    label: NDArray[np.int8]
    patient: Texts
    part: Texts
    extra: dict[str, Texts] = field(default_factory=dict)
    task: str = "pneumonia"
    classes: tuple[str, str] = ("normal", "pneumonia")
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns: dict[str, Sized] = {
            "label": self.label,
            "patient": self.patient,
            "part": self.part,
            **self.extra,
        }
        for name, column in columns.items():
            if len(column) != len(self.path):
                raise ValueError(f"column {name} has {len(column)} rows, path {len(self.path)}")
        if unknown := set(self.part) - {*PARTS, ""}:
            raise ValueError(f"no such part: {min(unknown)}; {', '.join(PARTS)} and empty are")
        kept = {
            "path": paths(self.path),
            "patient": texts(self.patient),
            "part": texts(self.part),
            "extra": {name: texts(column) for name, column in self.extra.items()},
        }
        for name, column in kept.items():
            object.__setattr__(self, name, column)  # frozen for everyone else

    def __len__(self) -> int:
        return len(self.path)

    def __repr__(self) -> str:
        """A line, not every path: a notebook shows what a cell ends with."""
        return f"Manifest({str(self.root)!r}, films={len(self)}, counts={self.counts()})"

    def files(self) -> list[Path]:
        """Absolute paths, one a film; of an array in an archive, ``archive.npz#17``."""
        return [self.root / path for path in self.path]

    def file_names(self) -> Iterator[str]:
        """As ``files``, as texts and one after the other: for a hundred thousand films."""
        root = str(self.root)
        return (os.path.join(root, path) for path in self.path)  # noqa: PTH118

    @property
    def name(self) -> str:
        """What results call the data set: its folder's name, never where it lies."""
        return names.shown(self.root, what="folder") if names.hidden() else self.root.name

    def shown(self, path: str) -> str:
        """What results call the film of this path."""
        return names.shown(path, self.root)

    def shown_notes(self) -> dict[str, Any]:
        """The notes for results: without the sources' places and, if need be, names of files."""
        found = {key: value for key, value in self.notes.items() if key != "sources"}
        if names.hidden():
            if passed := found.get("passed_over"):
                found["passed_over"] = {"files": passed["files"], "examples": []}
            if left := found.get("left_out"):
                found["left_out"] = [{k: v for k, v in n.items() if k != "example"} for n in left]
        return found

    def read_film(self, row: int) -> Radiograph:
        """One film, from its file or its archive; raises ``UnreadableFilm``."""
        from hilum.datasets.archive import source
        from hilum.films.read import read

        return read(source(self.root / self.path[row]), name=self.path[row])

    def select(self, rows: NDArray[Any]) -> Manifest:
        """The rows at these indices or where this mask is true."""
        rows = np.asarray(rows)
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return replace(
            self,
            path=self.path.select(chosen),
            label=self.label[chosen],
            patient=self.patient.select(chosen),
            part=self.part.select(chosen),
            extra={name: column.select(chosen) for name, column in self.extra.items()},
        )

    def of_part(self, part: str) -> Manifest:
        """The films of one part; ``UsageError`` naming the parts there are if it is absent."""
        here = self.parts()
        if part not in here:
            there = f"There are: {', '.join(here)}." if here else "These films have no parts."
            raise UsageError(f"no such part in these films: {part}. {there}")
        return self.select(self.part.equal(part))

    def parts(self) -> list[str]:
        """The parts that have films, in the order of ``PARTS``; empty where none was drawn."""
        there = set(self.part)
        return [part for part in PARTS if part in there]

    def parts_and_rest(self) -> list[str]:
        """``parts``, and ``""`` behind them where films have none."""
        return [*self.parts(), *([""] if "" in set(self.part) else [])]

    def counts(self) -> list[tuple[str, int, int, int, int]]:
        """A row for each part: its name, films of class 0 and 1, films, patients."""
        rows = []
        patient = self.patient.first_rows()
        for name in self.parts_and_rest():
            here = self.part.equal(name)
            labels = self.label[here]
            rows.append(
                (
                    name or "(none)",
                    int((labels == 0).sum()),
                    int((labels == 1).sum()),
                    len(labels),
                    len(np.unique(patient[here])),
                )
            )
        return rows

    def description(self) -> dict[str, Any]:
        """What ``films.json`` holds."""
        negative, positive = self.classes
        return {
            "format": FORMAT,
            "root": str(self.root),
            "task": self.task,
            "classes": list(self.classes),
            "positive": positive,
            "films": len(self),
            "patients": self.patient.distinct(),
            "counts": {
                part: {negative: n0, positive: n1, "patients": patients}
                for part, n0, n1, _, patients in self.counts()
            },
            "digest": self.digest,
            "notes": self.notes,
        }

    def shown_description(self) -> dict[str, Any]:
        """``description`` for results: where names are hidden, without places and names."""
        if not names.hidden():
            return self.description()
        return {**self.description(), "root": self.name, "notes": self.shown_notes()}

    def remarks(self) -> list[str]:
        """Sentences for people on what was merged, drawn, passed over, left out or leaks."""
        return remarks(self.shown_notes())

    @property
    def digest(self) -> str:
        """Digest of paths, labels, patients and parts, in order."""
        rows = zip(self.path, self.label.tolist(), self.patient, self.part, strict=True)
        total = hashlib.sha256()
        for number, row in enumerate(rows):  # a JSON list, row by row
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            total.update(f"{',' if number else '['}{text}".encode())
        total.update(b"]" if len(self) else b"[]")
        return total.hexdigest()

    def write(self, csv_path: Path | str) -> None:
        """Write ``films.csv`` and ``films.json`` beside it, each atomically.

        Raises
        ------
        UsageError
            The name does not end in ``.csv``.
        """
        csv_path = Path(csv_path)
        if csv_path.suffix.lower() != ".csv":
            raise UsageError(f"a manifest is a CSV file: {csv_path}. Name it films.csv.")
        csv_path.parent.mkdir(parents=True, exist_ok=True)
        labels = (("0", "1", "")[label] for label in self.label)  # -1 is the last
        with storage.atomic_write(csv_path, "w") as stream:
            # Line ends as in RFC 4180; with "\n" alone a "\r" in a name would not be quoted.
            table = csv.writer(stream, lineterminator="\r\n")
            table.writerow((*COLUMNS, *self.extra))
            table.writerows(
                zip(self.path, labels, self.patient, self.part, *self.extra.values(), strict=True)
            )
        storage.write_json(csv_path.with_suffix(".json"), self.description())

    @classmethod
    def read(cls, csv_path: Path | str) -> Manifest:
        """Read what ``write`` wrote; a CSV that was edited since is read as it is now.

        Raises
        ------
        UsageError
            A file is missing, of a newer format, or not a manifest; a film was written in twice.
        """
        csv_path = Path(csv_path)
        about = _about(csv_path)
        try:
            with csv_path.open(encoding="utf-8-sig", newline="") as stream:
                table = csv.reader(stream)
                heads = next(table, [])
                path, columns = Paths(), [Texts() for _ in heads[1:]]
                wrong = None
                for number, row in enumerate(filter(None, table), 2):
                    if len(row) != len(heads):
                        wrong = wrong or (number, len(row))
                    for column, cell in zip((path, *columns), row, strict=False):
                        column.append(cell)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"not a manifest: {csv_path} ({error}). Index the films again.") from (
                error
            )
        if tuple(heads[: len(COLUMNS)]) != COLUMNS:
            raise UsageError(
                f"not a manifest: {csv_path} begins with {', '.join(heads[:4])}, "
                f"not {', '.join(COLUMNS)}. Index the films again."
            )
        if wrong is not None:
            raise UsageError(
                f"a row does not fit its heads: row {wrong[0]} of {csv_path} has "
                f"{wrong[1]} cells, not {len(heads)}. Mend it."
            )
        patient, notes = columns[1], about.get("notes", {})
        unknown = np.flatnonzero(patient.equal(""))
        for empty in unknown.tolist():  # emptied by hand: each film counts as a patient of its own
            patient[empty] = path[empty]
        if len(unknown):
            told = notes.setdefault("patients", {})
            told["own"] = min(told.get("own", 0) + len(unknown), len(path))
        root = Path(about["root"])
        manifest = cls(
            root=root if root.is_absolute() else (csv_path.parent / root).resolve(),
            path=path,
            label=_labels(columns[0], csv_path),
            patient=patient,
            part=_checked(columns[2], csv_path),
            extra=dict(zip(heads[4:], columns[3:], strict=True)),
            task=about["task"],
            classes=(about["classes"][0], about["classes"][1]),
            notes=notes,
        )
        if manifest.digest != about.get("digest"):
            manifest.notes["edited"] = True
            ((film, rows),) = Counter(path).most_common(1) or [("", 0)]
            if rows > 1:
                raise UsageError(
                    f"a film stands twice: {manifest.shown(film)} in {csv_path}. Take one out."
                )
        return manifest


def remarks(notes: dict[str, Any]) -> list[str]:
    """The notes of a manifest as sentences, one for each thing that a reader should know."""
    lines = []
    if "leak" in notes:
        lines.append(
            f"LEAK: {number_of(notes['leak'], 'patients')} with films in two parts, so "
            "figures on these parts flatter."
        )
    if merged := notes.get("merged"):
        lines.append(
            f"the published {merged['part']} part was merged into {merged['into']}: its "
            f"{merged['films']} films are too few to judge by."
        )
    if drawn := notes.get("drawn"):
        shares = " and ".join(f"{name} ({share:.0%})" for name, share in drawn["shares"].items())
        lines.append(f"drawn by patient: {shares}; adding films moves nobody.")
        if loose := drawn.get("unpublished"):
            lines.append(
                f"the source puts {number_of(loose, 'films')} in no part: drawn too, but where the "
                "patient has others in a published part."
            )
    if own := notes.get("patients", {}).get("own"):
        lines.append(
            f"no patient is known for {number_of(own, 'films')}: each counts as a patient of its "
            "own. If some belong together, index a table with a patient column."
        )
    for left in notes.get("left_out", []):
        example = f" ({left['example']})" if "example" in left else ""
        lines.append(
            f"left out: {number_of(left['films'], left.get('what', 'films'))}, "
            f"{left['why']}{example}."
        )
    if passed := notes.get("passed_over"):
        examples = f" ({', '.join(passed['examples'])})" if passed["examples"] else ""
        lines.append(
            f"passed over: {number_of(passed['files'], 'files')} that "
            f"{'is no film' if passed['files'] == 1 else 'are no films'}{examples}."
        )
    if notes.get("edited"):
        lines.append("the manifest was edited after it was written.")
    return lines


def number_of(number: int, things: str) -> str:
    """``3 films``, ``1 film``; ``things`` begins with a plural."""
    first, *rest = things.split(" ", 1)
    word = first.removesuffix("s") if number == 1 else first
    return " ".join([str(number), word, *rest])


def is_manifest(path: Path) -> bool:
    """Whether this is a CSV with the JSON file of a manifest beside it."""
    if path.suffix.lower() != ".csv" or not path.with_suffix(".json").is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        return stream.readline().rstrip("\r\n").startswith(",".join(COLUMNS))


def _about(csv_path: Path) -> dict[str, Any]:
    path = csv_path.with_suffix(".json")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        newer = int(about["format"]) > FORMAT
        known = isinstance(about["root"], str) and len(about["classes"]) == 2 and "task" in about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"not a manifest: {path} is missing or broken ({error}). Index the films again."
        ) from error
    if newer:
        raise UsageError(
            f"a manifest of a newer hilum: {path} has format {about['format']}, this one reads up "
            f"to {FORMAT}. Update hilum, or index the films again."
        )
    if not known:
        raise UsageError(f"not a manifest: {path} lacks its keys. Index the films again.")
    return dict(about)


def _labels(column: Texts, csv_path: Path) -> NDArray[np.int8]:
    meaning = {"0": 0, "1": 1, "": -1, "-1": -1}
    try:
        return np.fromiter(map(meaning.__getitem__, column), np.int8, len(column))
    except KeyError as error:
        raise UsageError(
            f"a label that is not 0, 1 or empty: {error} in {csv_path}. Mend it."
        ) from None


def _checked(column: Texts, csv_path: Path) -> Texts:
    unknown = sorted(set(column) - {*PARTS, ""})
    if unknown:
        raise UsageError(
            f"no such part: {unknown[0]} in {csv_path}. There are {', '.join(PARTS)} and empty."
        )
    return column
