"""One look at every film: facts of its file, a small copy, a hash. Films stream past once.

What is kept of a film are its facts, digests, hash and a 64 × 64 copy in temporary files, and 4
bytes in memory.
"""

from __future__ import annotations

import math
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.archive import source
from hilum.datasets.columns import Texts
from hilum.errors import UnreadableFilm
from hilum.films.facts import file_facts
from hilum.films.picture import resized, view
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.radiograph import Reason
from hilum.films.read import read
from hilum.films.workers import Workers
from hilum.progress import SILENT, Progress
from hilum.storage import digest

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest

SMALL = Preprocessing(size=64)
HASH = 16  # a side of the hash: 16 × 16 bits
CHUNK = 16

#: Facts of a film, by the name of their column in ``facts.csv``.
NUMBERS = ("bytes", "width", "height", "bits", "profile_bytes", "exif_bytes", "metadata_bytes",
           "jpeg_quality", "jpeg_oddness", "jpeg_tables", "progressive")  # fmt: skip
WORDS = ("format", "colour", "compression")


class Look(NamedTuple):
    """What a worker tells of one film.

    Attributes
    ----------
    numbers : in the order of ``NUMBERS``, NaN where unknown
    words : in the order of ``WORDS``
    file : 16 bytes of the SHA-256 of the encoded file
    hash : ``perceptual_hash`` of the copy
    copy : the film at 64 × 64, by ``preprocess``
    refusals : why a model must not answer this film
    """

    numbers: tuple[float, ...]
    words: tuple[str, ...]
    file: bytes
    hash: bytes
    copy: bytes
    refusals: tuple[Reason, ...]


def look(path: str) -> Look:
    """Look at one film; raises ``UnreadableFilm``."""
    film = read(source(path), name=path)
    header = film.header
    facts = file_facts(film.data, film.format)
    unknown = float("nan")
    numbers = (
        unknown if film.format == "array" else float(facts.size),
        float(header.width),
        float(header.height),
        float(header.bits),
        float(facts.profile),
        float(facts.exif),
        float(facts.metadata),
        unknown if facts.quality is None else facts.quality,
        unknown if facts.oddness is None else facts.oddness,
        float(facts.tables),
        float(facts.progressive),
    )
    words = (film.format, header.colour, header.compression or "")
    copy = preprocess(film, SMALL)
    return Look(
        numbers,
        words,
        bytes.fromhex(digest(film.data))[:16],
        perceptual_hash(copy),
        copy.tobytes(),
        film.refusals,
    )


def perceptual_hash(copy: NDArray[np.uint8]) -> bytes:
    """256 bits of a film: is each place of a 16 × 16 grid brighter than its neighbours?

    The sign of the discrete Laplacian (four times a cell less its four neighbours) on an 18 × 18
    reduction. What all chests share, bright middle and dark lungs, is smooth and drops out; a
    plain difference hash keeps it, and calls strangers alike.
    """
    cells = resized(copy, HASH + 2, HASH + 2)
    around = cells[:-2, 1:-1] + cells[2:, 1:-1] + cells[1:-1, :-2] + cells[1:-1, 2:]
    return np.packbits(4 * cells[1:-1, 1:-1] - around > 0).tobytes()


def picture(path: str) -> NDArray[np.uint8]:
    """A film for people: at most 168 pixels a side, its own shape; raises ``UnreadableFilm``."""
    return view(read(source(path), name=path), 168)


def pixel_digest(path: str) -> bytes:
    """SHA-256 of a film's full-size grey values; raises ``UnreadableFilm``."""
    values = np.ascontiguousarray(read(source(path), name=path).pixels)
    return bytes.fromhex(digest(f"{values.shape} {values.dtype}", values.tobytes()))


class Scratch:
    """n rows of bytes in an unnamed temporary file, written and read by row; zeros where unwritten.

    Read by ``pread``, not mapped: mapped pages would count as this process's memory.

    Parameters
    ----------
    n : rows; shape : of a row, uint8
    """

    def __init__(self, n: int, shape: tuple[int, ...]) -> None:
        self._shape, self._bytes = shape, math.prod(shape)
        self._file = tempfile.TemporaryFile(prefix="hilum-audit-")  # noqa: SIM115 (lives with self)
        self._file.truncate(n * self._bytes)

    def keep(self, row: int, content: bytes, start: int = 0) -> None:
        """Write one row, or what lies from byte ``start`` of it on."""
        os.pwrite(self._file.fileno(), content, row * self._bytes + start)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(k, *shape) a copy of these rows."""
        file, size = self._file.fileno(), self._bytes
        copy = np.empty((len(rows), size), np.uint8)
        for start in range(0, len(rows), 1024):  # joined at once, all would be in memory twice
            some = rows[start : start + 1024].tolist()
            read = b"".join(os.pread(file, size, size * row) for row in some)
            copy[start : start + 1024] = np.frombuffer(read, np.uint8).reshape(-1, size)
        return copy.reshape(len(rows), *self._shape)


class Columns(Mapping[str, NDArray[np.float64]]):
    """Named columns of n numbers, NaN at first, in a temporary file; read when they are asked for.

    Parameters
    ----------
    names : of the columns; n : numbers in each
    """

    def __init__(self, names: Sequence[str], n: int) -> None:
        self._names = tuple(names)
        self._columns = Scratch(len(names), (8 * n,))
        for k in range(len(names)):
            self._columns.keep(k, np.full(n, np.nan).tobytes())

    def keep(self, row: int, numbers: Sequence[float]) -> None:
        """Write one number into each column."""
        for k, number in enumerate(numbers):
            self._columns.keep(k, struct.pack("=d", number), 8 * row)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self._names:
            raise KeyError(name)
        return self._columns[np.array([self._names.index(name)])].view(np.float64)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, eq=False)
class Survey:
    """What was seen of the n films of a manifest, by its rows.

    Attributes
    ----------
    numbers : (n,) float64 each, by name; NaN where unknown
    words : n texts each, by name; ``""`` where unknown
    file, copy : rows of 16 bytes, digests of the encoded file and of the small copy
    hash : rows of 32 bytes, the perceptual hash
    copies : rows of 64 × 64, the small copies
    readable : (n,) bool
    unreadable, refused : (row, reason)
    """

    numbers: Mapping[str, NDArray[np.float64]]
    words: dict[str, Texts]
    file: Scratch
    copy: Scratch
    hash: Scratch
    copies: Scratch
    readable: NDArray[np.bool_]
    unreadable: list[tuple[int, Reason]] = field(default_factory=list)
    refused: list[tuple[int, Reason]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.readable)

    def batches(self, rows: NDArray[Any], size: int = 128) -> Iterator[NDArray[np.uint8]]:
        """The copies of these rows, (b, 64, 64) at a time."""
        for start in range(0, len(rows), size):
            yield self.copies[rows[start : start + size]]


def survey(manifest: Manifest, workers: Workers, progress: Progress = SILENT) -> Survey:
    """Look at every film of a manifest, in isolated processes."""
    n = len(manifest)
    numbers = Columns(NUMBERS, n)
    seen = Survey(
        numbers=numbers,
        words={name: Texts(repeat("", n)) for name in WORDS},
        file=Scratch(n, (16,)),
        copy=Scratch(n, (16,)),
        hash=Scratch(n, (HASH * HASH // 8,)),
        copies=Scratch(n, (SMALL.size, SMALL.size)),
        readable=np.zeros(n, bool),
    )
    with progress.stage("looking at films", n) as advance:
        for row, answer in workers.map(look, manifest.file_names(), chunk=CHUNK):
            advance(1)
            if isinstance(answer, UnreadableFilm):
                seen.unreadable.append((row, Reason(answer.code, answer.text)))
                continue
            seen.readable[row] = True
            numbers.keep(row, answer.numbers)
            for name, word in zip(WORDS, answer.words, strict=True):
                seen.words[name][row] = word
            seen.file.keep(row, answer.file)
            seen.hash.keep(row, answer.hash)
            seen.copy.keep(row, bytes.fromhex(digest(answer.copy))[:16])
            seen.copies.keep(row, answer.copy)
            if answer.refusals:
                seen.refused.append((row, answer.refusals[0]))
    seen.unreadable.sort(key=lambda item: item[0])
    seen.refused.sort(key=lambda item: item[0])
    return seen
