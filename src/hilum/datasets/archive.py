"""Films as arrays in a NumPy archive (.npz), read one at a time.

A path ``archive.npz#17`` names the 17th film, counted from 0 over all image arrays of the archive
in the order of ``MEMBERS``. Only that film is read: an uncompressed array is sought, a compressed
one is unpacked forwards, so films in their order cost one pass and no memory.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UnreadableFilm

MEMBERS = ("train_images", "val_images", "test_images", "images")
# What zipfile and NumPy raise at an archive that is none, ends too early or is damaged.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # encrypted, or packed in a way that Python does not know
    TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass
class Images:
    """One image array in an archive: where its first pixel stands, and how far reading is."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    stream: IO[bytes]

    def __len__(self) -> int:
        return self.shape[0]

    def film(self, row: int) -> NDArray[np.uint8]:
        """(height, width) grey values of one film."""
        size = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        try:
            self.stream.seek(self.offset + row * size)
            data = self.stream.read(size)
        except BROKEN as error:
            raise UnreadableFilm("corrupt", f"the archive is broken: {told(error)}") from error
        if len(data) < size:
            raise UnreadableFilm("truncated", "the archive ends within this film")
        film = np.frombuffer(data, self.dtype).reshape(self.shape[1:])
        if film.ndim == 3:  # colour: films are grey, so all channels say the same
            film = film[..., 0]
        return np.ascontiguousarray(film)


def images(path: Path | str) -> list[Images]:
    """The image arrays of an archive; raises ``UnreadableFilm`` where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
        # Each through a file of its own: Python 3.12.1 loses its place where members share one.
        return [_open(zipfile.ZipFile(path), name) for name in MEMBERS if f"{name}.npy" in there]
    except BROKEN as error:
        raise UnreadableFilm("not-a-film", f"the archive cannot be read: {told(error)}") from error


def told(error: BaseException) -> str:
    """What an error of ``BROKEN`` says, in words also where it is empty."""
    return str(error) or "it ends too early"


def _open(archive: zipfile.ZipFile, name: str) -> Images:
    stream = archive.open(f"{name}.npy")
    version = np.lib.format.read_magic(stream)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header is None:
        raise ValueError(f"{name}.npy has format {version}")
    shape, fortran, dtype = header(stream)
    if fortran or dtype != np.uint8 or len(shape) not in (3, 4):
        raise ValueError(f"{name}.npy is not (n, height, width) uint8")
    return Images(name, shape, dtype, stream.tell(), stream)


@lru_cache(maxsize=2)
def _kept_open(path: str, changed: int) -> list[Images]:
    return images(path)


def split_path(path: Path | str) -> tuple[str, int | None]:
    """``("archive.npz", 17)`` of ``archive.npz#17``; ``(path, None)`` of a plain file."""
    file, mark, row = str(path).rpartition("#")
    if mark and file.endswith(".npz") and row.isdigit():
        return file, int(row)
    return str(path), None


def source(path: Path | str) -> str | NDArray[np.uint8]:
    """What ``films.read`` takes: the path of a file, or the array that an archive holds."""
    file, row = split_path(path)
    if row is None:
        return file
    try:
        changed = Path(file).stat().st_mtime_ns
    except OSError:
        raise UnreadableFilm("missing", "there is no such archive") from None
    for member in _kept_open(file, changed):
        if row < len(member):
            return member.film(row)
        row -= len(member)
    raise UnreadableFilm("missing", "the archive has fewer films")
