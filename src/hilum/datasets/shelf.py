"""The files of a cache: pixels, an index with checksums, and the films that have none.

A shelf is a folder for one preprocessing, with

    pixels.u8       films of size × size bytes, one behind the other; holes where one failed
    index.bin       a record for each place in pixels.u8: the film's key and a CRC-32
    reasons.jsonl   the films that could not be read or must not be answered, and why
    about.json      what the pixels are, for people

Pixels are written before their record, so whatever has a record is whole, unless the disk or a
hand changed it later: then the checksum tells. Only the holder of the lock writes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum import __version__, storage
from hilum.datasets.archive import split_path
from hilum.films.preprocess import Preprocessing
from hilum.films.radiograph import Reason

RECORD = np.dtype([("key", "V16"), ("crc", "<u4")])
BLOCK = 4096  # keys that are looked up at once, so that no second column of them is made
# What may be otherwise next time: never remembered.
_PASSING = {"missing", "unreachable", "timeout", "crashed"}

Key = bytes  # 16 at most: without zeros at its end, as numpy has them
Keys = NDArray[np.bytes_]  # (n,) S16; b"" for a film that is gone
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """Why a film has no pixels here: ``unreadable`` or ``refused``."""

    kind: str
    reason: Reason


def keys(files: Iterable[Path | str]) -> Keys:
    """A key for each film from its path, bytes and modification time; ``b""`` where it is gone.

    Films in one archive share its file's state and differ by their number.
    """
    last, state = "", ""  # films of one archive follow each other

    def key(film: Path | str) -> Key:
        nonlocal last, state
        file, _ = split_path(film)
        if file != last:
            try:
                status = os.stat(file)  # noqa: PTH116 (a hundred thousand times)
                state = f"\0{status.st_size}\0{status.st_mtime_ns}"
            except OSError:
                state = ""
            last = file
        return blake2b(os.fsencode(f"{film}{state}"), digest_size=16).digest() if state else b""

    return np.fromiter(map(key, files), "S16")


class Shelf:
    """One preprocessing's pixels on disk.

    Parameters
    ----------
    folder : made when something is first written
    size : side of a film in pixels
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.film_bytes = size * size
        self.pixel_file = folder / "pixels.u8"
        self._index_file = folder / "index.bin"
        self._reason_file = folder / "reasons.jsonl"
        self.verdicts: dict[Key, Verdict] = {}
        self._passing: dict[Key, Verdict] = {}
        self._keys: Keys = np.zeros(0, "S16")  # sorted, with the place of each
        self._places: Rows = np.zeros(0, np.int64)
        self._crc: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self.load()

    def load(self) -> None:
        """Read the index and the reasons anew."""
        found, self._crc = _records(self._index_file)
        self._places = np.argsort(found, kind="stable")
        self._keys = found[self._places]
        self.verdicts = dict(self._passing)
        try:
            lines = self._reason_file.read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                said = json.loads(line)
                if said["hilum"] == __version__:  # another version may read more
                    self.verdicts[bytes.fromhex(said["key"]).rstrip(b"\0")] = Verdict(
                        said["kind"], Reason(said["code"], said["text"])
                    )
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill cut short

    def pixels(self) -> NDArray[np.uint8]:
        """(places, size, size) uint8, read-only, mapped from the file."""
        places = min(len(self._crc), self._file_bytes() // self.film_bytes)
        shape = (places, self.size, self.size)
        if not places:
            return np.zeros(shape, np.uint8)
        return np.memmap(self.pixel_file, np.uint8, "r", shape=shape)

    def places(self, wanted: Keys) -> Rows:
        """(n,) the place of each film in ``pixels``; -1 where it has none."""
        places = np.full(len(wanted), -1)
        for start in range(0, len(wanted) if len(self._keys) else 0, BLOCK):
            some = wanted[start : start + BLOCK]
            # Later records win: the same key twice means that it was made anew.
            last = np.searchsorted(self._keys, some, side="right") - 1
            there = (self._keys[last] == some) & (some != b"")
            places[start : start + BLOCK][there] = self._places[last[there]]
        return places

    def checksums(self, places: Rows) -> NDArray[np.uint32]:
        """(n,) CRC-32 of the pixels at each place; 0 for a place of -1."""
        found = np.zeros(len(places), np.uint32)
        there = places >= 0
        found[there] = self._crc[places[there]]
        return found

    def sound(self, wanted: Keys) -> NDArray[np.bool_]:
        """(n,) whether a film's pixels are here and agree with their checksum."""
        places = self.places(wanted)
        try:
            stream = self.pixel_file.open("rb")
        except OSError:
            return np.zeros(len(wanted), bool)
        with stream:
            # Read, not mapped: mapped pages would count as this process's memory.
            return np.fromiter(
                (p >= 0 and self._agrees(stream.fileno(), p) for p in map(int, places)), bool
            )

    def _agrees(self, descriptor: int, place: int) -> bool:
        film = os.pread(descriptor, self.film_bytes, place * self.film_bytes)
        return len(film) == self.film_bytes and zlib.crc32(film) == self._crc[place]

    def reserve(self, films: int) -> int:
        """Lengthen the files for more films; returns the first new place.

        It lies behind everything that was ever reserved, so that a worker whose run was killed
        a moment ago writes where nobody else does. What stays unused is a hole and costs nothing.
        """
        first = max(len(self._crc), -(-self._file_bytes() // self.film_bytes))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.pixel_file.open("ab") as stream:
            stream.truncate((first + films) * self.film_bytes)
        return first

    def describe(self, preprocessing: Preprocessing) -> None:
        """Say in a file what the pixels are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "about.json"
        if not about.exists():
            storage.write_json(about, {"format": 1, "preprocessing": preprocessing.as_dict()})

    def _file_bytes(self) -> int:
        try:
            return self.pixel_file.stat().st_size
        except OSError:
            return 0


def _records(index: Path) -> tuple[Keys, NDArray[np.uint32]]:
    """Key and checksum of each place; the last record may be cut short by a kill."""
    try:
        data = index.read_bytes()
    except OSError:
        data = b""
    records = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
    # Copies: a view of one of them would hold both.
    return records["key"].copy().view("S16"), records["crc"].copy()


class Register:
    """Takes down what has been made; an open shelf for the holder of the lock."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        shelf.folder.mkdir(parents=True, exist_ok=True)
        self._index = os.open(shelf._index_file, os.O_RDWR | os.O_CREAT, 0o666)
        self._reasons = os.open(shelf._reason_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(self._reasons, b"\n")  # ends a line that a kill cut short

    def __enter__(self) -> Register:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._index)
        os.close(self._reasons)

    def keep(self, key: Key, place: int, crc: int) -> None:
        """The pixels of a film are at this place."""
        record = np.array([(np.void(key.ljust(16, b"\0")), crc)], RECORD).tobytes()
        os.pwrite(self._index, record, place * RECORD.itemsize)

    def note(self, key: Key, verdict: Verdict) -> None:
        """A film has no pixels; a passing reason is not remembered."""
        if verdict.reason.code in _PASSING:
            self._shelf._passing[key] = verdict
            return
        line = {
            "key": key.ljust(16, b"\0").hex(),
            "kind": verdict.kind,
            **verdict.reason.as_dict(),
            "hilum": __version__,
        }
        os.write(self._reasons, json.dumps(line, ensure_ascii=False).encode() + b"\n")
