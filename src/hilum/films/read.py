"""Finding films and opening them: the type is told by content, never by name."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UnreadableFilm, UsageError
from hilum.films import grayscale
from hilum.films.limits import LIMITS, Limits
from hilum.films.radiograph import Header, Pixels, Radiograph

__all__ = ["LIMITS", "Limits", "find", "read", "sniff"]

# What lies about in folders of films. The rule looks at names alone: a film with a broken
# content is a broken film, not a stray file.
_STRAY_NAMES = frozenset(
    ("thumbs.db", "desktop.ini", "dicomdir", "license", "lock", "readme", "makefile")
)
_STRAY_SUFFIXES = re.compile(
    r"\.(bib|cfg|css|csv|db|docx?|gz|html?|ini|ipynb|js|jsonl?|lock|log|md|npy|npz|ods|onnx|pdf|pptx?"
    r"|pt|py|rst|rtf|sh|sha256|sql|sqlite|svg|tar|tex|toml|tsv|txt|url|xlsx?|xml|ya?ml|zip)$"
)
# Folders of results that commands leave beside the films, each known by its files: a run, an
# evaluation, an audit, a comparison or reproduction, a model, heat maps. Their pictures are no
# films.
_RESULTS = tuple(
    map(
        frozenset,
        (
            ("recipe.toml", "environment.json"),
            ("metrics.json", "scores.csv"),
            ("duplicates.csv", "facts.csv"),
            ("plan.json", "lock"),
            ("model.onnx", "bundle.json"),
            ("heatmaps.csv",),
        ),
    )
)


def read(source: str | Path | bytes | NDArray[Any], *, name: str | None = None) -> Radiograph:
    """Open a film; its header is read at once, its pixels when they are asked for.

    Parameters
    ----------
    source : a path, the bytes of a file, or a (height, width) array: integers of 8 or 16 bits, or
        floats within [0, 1] or [0, 255]; 0 is black
    name : what messages call it; the path by default

    Raises
    ------
    UsageError
        The source is none of these.
    UnreadableFilm
        With a stable code: ``missing``, ``unreachable``, ``empty``, ``not-a-film``,
        ``truncated``, ``corrupt``, ``too-large``, ``unsupported``. Decoding may later raise these
        and ``constant`` and ``no-pixels``.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "<array>")
    if isinstance(source, str | Path):
        data = _bytes_of(source)
        name = name or str(source)
    elif not isinstance(source, bytes | bytearray | memoryview):
        raise UsageError(
            f"not a film: {type(source).__name__}. Give a path, bytes, an array (height, width) or "
            "a Radiograph."
        )
    else:
        data = bytes(source)
        name = name or "<bytes>"
        LIMITS.check_bytes(len(data))
    format = sniff(data)
    if format is None:
        if not data:
            raise UnreadableFilm("empty", "the file is empty")
        raise UnreadableFilm("not-a-film", f"the file is {_what_else(data)}")
    if format == "dicom":
        from hilum.films.dicom import open_dicom  # pydicom loads only when there is DICOM

        return open_dicom(data, name)
    from hilum.films.raster import open_raster

    return open_raster(data, format, name)


def sniff(head: bytes) -> str | None:
    """``jpeg``, ``png``, ``tiff`` or ``dicom`` by the first 132 bytes or more; else None."""
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    return "dicom" if _bare_dicom(head) else None


def _bare_dicom(head: bytes) -> bool:
    """DICOM without preamble (and perhaps without meta header): does it begin with an element?

    Group 0002 or 0008 first, then a value representation of two capitals (PS3.5, 7.1.2) or a
    32-bit length that is small (7.1.3); the length, big-endian, only with explicit VR.
    """
    if len(head) < 12:
        return False
    little = int.from_bytes(head[:2], "little")
    big = int.from_bytes(head[:2], "big")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    if little in (0x0002, 0x0008) and head[3] == 0:
        return explicit or (head[6:8] == b"\0\0" and head[4:6] != b"\0\0")
    return big in (0x0002, 0x0008) and head[2] == 0 and explicit


def _bytes_of(path: str | Path) -> bytes:
    try:
        # A str stays a str: it is quicker.
        with open(path, "rb", opener=_at_once) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFilm("not-a-film", "this is not a file")
            LIMITS.check_bytes(status.st_size)
            return stream.read()
    except FileNotFoundError:
        raise UnreadableFilm("missing", "there is no such file") from None
    except IsADirectoryError:
        raise UnreadableFilm("not-a-film", "this is a folder") from None
    except OSError as error:
        raise UnreadableFilm(
            "unreachable", f"the file cannot be opened: {os.strerror(error.errno or 5)}"
        ) from None


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever writes into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _what_else(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg", b"<head", b"<!--")):
        return "a web page or another text, not a picture"
    known = {
        b"%pdf": "a PDF",
        b"gif8": "a GIF, which is not read",
        b"pk\x03\x04": "an archive",
        b"\x1f\x8b": "an archive",
        b"bm": "a bitmap (BMP), which is not read",
        b"\x00\x00\x00\x0cjp": "a bare JPEG 2000 file, which is not read outside DICOM",
    }
    for start, what in known.items():
        if head.startswith(start) or data[: len(start)].lower() == start:
            return what
    if head[:4] == b"riff" and head[8:12] == b"webp":
        return "a WebP, which is not read"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in data[:512]):
        return "a text, not a picture"
    return "no JPEG, PNG, TIFF or DICOM"


def _from_array(values: NDArray[Any], name: str) -> Radiograph:
    if values.ndim != 2 or values.dtype.kind not in "uif" or not values.size:
        raise UnreadableFilm(
            "unsupported", f"a film is a (height, width) array of numbers, not {values.shape}"
        )
    LIMITS.check_pixels(values.shape[1], values.shape[0])
    kept = np.array(values, order="C")  # the caller may go on writing into its own
    header = Header(
        width=values.shape[1],
        height=values.shape[0],
        bits=8 * values.dtype.itemsize,
        colour="L" if values.dtype == np.uint8 else str(values.dtype),
    )
    return Radiograph(name, kept.tobytes(), "array", header, (), partial(_decode_array, kept))


def _decode_array(values: NDArray[Any], least: int) -> Pixels:
    if values.dtype == np.uint8:
        return grayscale.finish(values)
    if values.dtype.kind == "f" and values.size and not (0 <= values.min() <= values.max() <= 255):
        raise UnreadableFilm(
            "unsupported", "floats must lie within 0 and 1 or 0 and 255, 0 being black"
        )
    grey, step = grayscale.over_depth(values)
    return grayscale.finish(grey, [step])


def find(
    sources: str | Path | Iterable[str | Path],
    *,
    passed: list[Path] | None = None,
    keep_absent: bool = False,
) -> list[Path]:
    """As :func:`find_files`, as paths."""
    strays: list[str] = []
    films = list(map(Path, find_files(sources, passed=strays, keep_absent=keep_absent)))
    if passed is not None:
        passed.extend(map(Path, strays))
    return films


def find_files(
    sources: str | Path | Iterable[str | Path],
    *,
    passed: list[str] | None = None,
    keep_absent: bool = False,
) -> list[str]:
    """Films in files, folders (with all below them) and glob patterns, sorted within each source.

    A file that is named outright is always taken. In folders hidden files and what is plainly no
    film by its name (``Thumbs.db``, texts, tables, archives) are passed over; so are hilum's own
    results (a run, an evaluation, an audit, heat maps), below the folder or the folder itself.

    Parameters
    ----------
    passed : collects what was passed over
    keep_absent : a source that does not exist, or a pattern that matches nothing, stays among the
        films where there are others, so that reading it says so (``missing``)

    Raises
    ------
    UsageError
        A source that does not exist, or a pattern that matches nothing; with ``keep_absent``
        only where there is no other source.
    """
    if isinstance(sources, str | Path):
        sources = (sources,)
    films: dict[str, None] = {}  # ordered, each once
    strays = passed if passed is not None else []
    sources = list(sources)
    lost: list[str] = []
    for source in sources:
        path = Path(source).expanduser()
        if not str(source):  # as of a shell's variable that is not set: not this folder
            raise UsageError("an empty path among the films: ''. Check the command.")
        if path.exists():
            films.update((film, None) for film in each_file(path, strays))
        elif glob.has_magic(str(source)):
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
            if not matches:
                films[str(source)] = None
                lost.append(f"nothing matches: {source}. Check the pattern and its quotes.")
            for match in matches:
                films.update((film, None) for film in each_file(match, strays))
        else:
            films[str(source)] = None
            lost.append(f"there is no such file or folder: {source}. Check the path.")
    if lost and (not keep_absent or len(lost) == len(sources)):
        raise UsageError(lost[0])
    return list(films)


def each_file(source: Path, passed: list[str]) -> Iterator[str]:
    """A file itself, or the films below a folder as :func:`find_files` sorts them, one by one.

    There may be very many: only the names in the folders that were begun are held, as one text.
    """
    if not source.is_dir():
        yield str(source)
        return
    seen: set[tuple[int, int]] = set()  # links may run in circles
    start = os.path.join(source, "")  # noqa: PTH118 (texts, a hundred thousand times)
    begun = [(start, _inside(start, seen, passed))]
    while begun:
        where, ahead = begun[-1]
        name = next(ahead, None)
        if name is None:
            begun.pop()
        elif name.endswith(os.sep):
            begun.append((where + name, _inside(where + name, seen, passed)))
        else:
            yield where + name


def _inside(where: str, seen: set[tuple[int, int]], strays: list[str]) -> Iterator[str]:
    """Names of the films and folders in a folder, sorted; folders end in a separator.

    None where the folder was seen before, or holds a result of hilum's.
    """
    status = Path(where).stat()
    if (status.st_dev, status.st_ino) in seen:
        return iter(())
    seen.add((status.st_dev, status.st_ino))
    _, folders, files = next(os.walk(where), (where, [], []))
    if any(all(mark in files for mark in marks) for marks in _RESULTS):
        strays += [where + file for file in files]
        return iter(())
    ahead = []
    inside = {name for name in folders if not name.startswith(".")}
    for name in sorted([*inside, *files], reverse=True):
        if name in inside:
            ahead.append(name + os.sep)
        elif _stray(name):
            strays.append(where + name)
        else:
            ahead.append(name)
    return (name[0] for name in re.finditer(r"[^\0]+", "\0".join(reversed(ahead))))


def _stray(name: str) -> bool:
    low = name.lower()
    return low.startswith(".") or low in _STRAY_NAMES or bool(_STRAY_SUFFIXES.search(low))
