"""What every kind of source comes to: films with class names, before labels and parts."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from hilum.datasets.columns import Paths, Texts
from hilum.datasets.manifest import number_of
from hilum.errors import Refused, UsageError, nearest
from hilum.progress import SILENT, Progress

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Request:
    """What a kind of source is asked for.

    Attributes
    ----------
    paths : folders or files, absolute
    images : folders of the films that a table names; its own folder where empty
    task : the question, where the kind offers several; None for its first
    """

    paths: list[Path]
    images: list[Path] = field(default_factory=list)
    task: str | None = None
    progress: Progress = SILENT

    @property
    def one(self) -> Path:
        """The only path, for kinds that take one."""
        if len(self.paths) != 1:
            raise UsageError(
                f"one source of this kind at a time: {self.paths[0]} and {self.paths[1]}. "
                "Index them apart."
            )
        return self.paths[0]

    def question(self, offered: Sequence[str]) -> str:
        """The task among those that a kind offers; ``UsageError`` for another."""
        if self.task is None:
            return offered[0]
        if self.task not in offered:
            raise UsageError(f"no such task here: {self.task}. {nearest(self.task, offered)}")
        return self.task


@dataclass
class Listing:
    """Films of one source, as columns that grow together.

    Attributes
    ----------
    root : folder that holds all of them
    file : absolute paths
    name : the class as the source writes it, ``""`` where it says nothing
    patient : grouping keys; whoever lists the films knows best how to tell them
    part : ``train``, ``validation``, ``test`` or ``""``
    extra : further columns
    notes : for the manifest
    own : rows whose patient nothing tells so far, so that each counts as its own
    positive, task : set by a source that knows its question
    stray : files that are no films
    """

    root: Path
    file: Paths = field(default_factory=Paths)
    name: Texts = field(default_factory=Texts)
    patient: Texts = field(default_factory=Texts)
    part: Texts = field(default_factory=Texts)
    extra: dict[str, Texts] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    own: array[int] = field(default_factory=lambda: array("I"))
    positive: str | None = None
    task: str | None = None
    stray: list[str] = field(default_factory=list)

    def add(
        self,
        file: str,
        name: str,
        patient: str,
        part: str = "",
        extra: Mapping[str, str] | None = None,
        *,
        own: bool = False,
    ) -> None:
        """One more film; ``own`` where nothing tells whose it is and ``patient`` stands for it."""
        if own:
            self.own.append(len(self.file))
        self.file.append(file)
        self.name.append(name)
        self.patient.append(patient)
        self.part.append(part)
        extra = extra or {}
        for column in extra:
            if column not in self.extra:
                self.extra[column] = Texts(repeat("", len(self.file) - 1))
        for column, values in self.extra.items():
            values.append(extra.get(column, ""))

    def left_out(self, films: int, why: str, what: str = "films", example: str = "") -> None:
        """A note on what is not among the films; ``example``: the name of one of them."""
        if films:
            note = {"films": films, "why": why, "what": what}
            note |= {"example": example} if example else {}
            self.notes.setdefault("left_out", []).append(note)

    def refuse_none(self, table: Path, missing: int) -> None:
        """Raise ``Refused`` where there is no film; so many rows of the table have none."""
        if not self.file:
            raise Refused(
                f"no film of {table.name} is there: {missing} rows have none. "
                "Say where the films are with --images."
            )

    def told_left_out(self) -> str:
        """What is not among the films and why, for messages; ``""`` where nothing is."""
        return "; ".join(
            f"{number_of(note['films'], note['what'])} left out, {note['why']}"
            for note in self.notes.get("left_out", [])
        )


def part_named(name: str) -> str | None:
    """The part that a folder or a cell means, None where it is none."""
    return _PARTS.get(name.strip().lower())


def existing(sources: Iterable[str | Path]) -> list[Path]:
    """Absolute paths of sources; ``UsageError`` for one that is not there."""
    paths = []
    for source in sources:
        path = Path(source).expanduser()
        if not str(source) or not path.exists():  # an empty path would be this folder
            told = str(source) or "''"
            raise UsageError(f"no such file or folder: {told}. Check the path.")
        paths.append(path.absolute())
    return paths


def table_in(source: Path, patterns: Iterable[str], name: str) -> Path:
    """A source that is a file, or the first in a folder that fits; ``UsageError`` for none."""
    if source.is_file():
        return source
    found = sorted(path for pattern in patterns for path in source.glob(pattern))
    if not found:
        raise UsageError(f"no table {name}: {source}. Name the table itself.")
    return found[0]


def common_folder(paths: Iterable[str | Path]) -> Path:
    """The deepest folder that holds all these paths; the path itself of one."""
    return Path(os.path.commonpath([str(path) for path in paths]))
