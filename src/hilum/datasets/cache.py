"""Films decoded once: pixels as a network takes them, kept on disk and mapped into memory."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum import machine, storage
from hilum.datasets.archive import source
from hilum.datasets.manifest import Manifest
from hilum.datasets.shelf import BLOCK, Keys, Register, Rows, Shelf, Verdict, keys
from hilum.errors import DiskFull, Locked, Refused, TooManyUnreadable, UnreadableFilm
from hilum.films.preprocess import Preprocessing, described
from hilum.films.radiograph import Reason
from hilum.films.read import read
from hilum.films.workers import Workers
from hilum.progress import SILENT, Progress

MARGIN = 64 << 20  # bytes of the disk that a cache leaves free
CHUNK = 32  # films that a worker is handed at once


@dataclass(frozen=True, eq=False)
class Cache:
    """The pixels of a manifest's films.

    Attributes
    ----------
    pixels : (places, size, size) uint8, read-only, mapped from disk; holds other films too
    rows : (n,) int64, the place of each film of the manifest in ``pixels``; -1 where it has none,
        because it is unreadable or refused
    checksums : (n,) uint32, CRC-32 of each film's pixels; 0 where it has none
    unreadable : (path, reason) of the films that could not be read
    refused : (path, reason) of the films that no model must answer (a lateral, a CT)
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    unreadable: list[tuple[str, Reason]] = field(default_factory=list)
    refused: list[tuple[str, Reason]] = field(default_factory=list)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, size, size) uint8: a copy of the pixels of these rows of the manifest.

        Raises
        ------
        ValueError
            One of them has no pixels.
        """
        places = self.rows[rows]
        if (places < 0).any():
            raise ValueError("a film without pixels was asked for")
        return np.asarray(self.pixels[places])

    @classmethod
    def fill(
        cls,
        manifest: Manifest,
        preprocessing: Preprocessing,
        *,
        workers: int | None = None,
        progress: Progress = SILENT,
        limit: float = 0.02,
    ) -> Cache:
        """Decode what is not there yet, by several processes, and map the pixels.

        What was made is kept at once: a run that is killed goes on where it was. A second run of
        the same preprocessing waits for the first. Pixels are checked against their checksums
        each time; damaged ones are made again.

        Parameters
        ----------
        workers : processes; all cores by default, 0 decodes in this process
        limit : share of the manifest's films that may be unreadable; at least one film is allowed
            unless it is 0

        Raises
        ------
        TooManyUnreadable
            More films than that cannot be read. What was decoded is kept.
        DiskFull
            The disk has no room for the pixels.
        """
        folder, guard = _place(preprocessing)
        film_keys = keys(manifest.file_names())
        shelf = Shelf(folder, preprocessing.size)
        allowed = max(1.0, limit * len(manifest)) if limit > 0 else 0.0
        if len(_missing(shelf, film_keys)):
            with _locked(guard, progress):
                shelf.load()
                missing = _missing(shelf, film_keys)
                if len(missing):
                    known = _without(manifest, shelf, film_keys)["unreadable"]
                    if len(known) > allowed:
                        raise _too_many(manifest, known, f"of {len(manifest)}")
                    with _room(shelf.folder):
                        _make(
                            shelf,
                            preprocessing,
                            manifest,
                            film_keys,
                            missing,
                            workers=workers,
                            allowed=allowed - len(known),
                            progress=progress,
                        )
                    shelf.load()
        without = _without(manifest, shelf, film_keys)
        if len(without["unreadable"]) > allowed:
            raise _too_many(manifest, without["unreadable"], f"of {len(manifest)}")
        rows = np.where(_judged(shelf, film_keys), -1, shelf.places(film_keys))
        return cls(shelf.pixels(), rows, shelf.checksums(rows), **without)


def _judged(shelf: Shelf, film_keys: Keys) -> NDArray[np.bool_]:
    """(n,) whether a film is known to have no pixels."""
    return np.fromiter((bytes(key) in shelf.verdicts for key in film_keys), bool)


def _without(
    manifest: Manifest, shelf: Shelf, film_keys: Keys
) -> dict[str, list[tuple[str, Reason]]]:
    """The films that are known to have no pixels: ``unreadable`` and ``refused``, with reasons."""
    found: dict[str, list[tuple[str, Reason]]] = {"unreadable": [], "refused": []}
    for path, key in zip(manifest.path, map(bytes, film_keys), strict=True):
        if not key:
            found["unreadable"].append((path, Reason("missing", "there is no such file")))
        elif key in shelf.verdicts:
            verdict = shelf.verdicts[key]
            found[verdict.kind].append((path, verdict.reason))
    return found


def _missing(shelf: Shelf, film_keys: Keys) -> Rows:
    """Rows of the films, each once, that have neither sound pixels nor a reason to have none."""
    wanted = (film_keys != b"") & ~_judged(shelf, film_keys)
    rows = np.flatnonzero(wanted)
    blocks = np.array_split(rows, len(rows) // BLOCK + 1)
    rows = np.concatenate([some[~shelf.sound(film_keys[some])] for some in blocks])
    if not len(rows):
        return rows
    order = np.argsort(film_keys[rows], kind="stable")  # np.unique would copy the keys twice more
    in_order = film_keys[rows[order]]
    return np.sort(rows[order[np.append(True, in_order[1:] != in_order[:-1])]])


def _make(
    shelf: Shelf,
    preprocessing: Preprocessing,
    manifest: Manifest,
    film_keys: Keys,
    missing: Rows,
    *,
    workers: int | None,
    allowed: float,
    progress: Progress,
) -> None:
    """Decode the missing films into their places; damaged ones go where they were.

    Parameters
    ----------
    allowed : of them, so many may be unreadable
    """
    size = preprocessing.size
    _check_room(shelf, len(missing))
    places = shelf.places(film_keys[missing])
    new = places < 0
    first = shelf.reserve(int(new.sum()))
    places[new] = first + np.arange(new.sum())
    progress.say(
        f"decoding {len(missing):,} films to {size} × {size}: "
        f"{len(missing) * shelf.film_bytes / 1e6:,.0f} MB in {shelf.folder}"
    )
    shelf.describe(preprocessing)
    root = str(manifest.root)
    decode = partial(decode_into, str(shelf.pixel_file), preprocessing)
    count = machine.cores() if workers is None else workers
    count = min(count, -(-len(missing) // CHUNK))
    unreadable: list[tuple[str, Reason]] = []
    with (
        Register(shelf) as register,
        Workers(count) as pool,
        progress.stage("decoding films", len(missing)) as advance,
    ):
        tasks = (
            (place, os.path.join(root, manifest.path[row]))  # noqa: PTH118 (a hundred thousand)
            for place, row in zip(map(int, places), missing, strict=True)
        )
        for number, answer in pool.map(decode, tasks, chunk=CHUNK):
            row = missing[number]
            key = bytes(film_keys[row])
            if isinstance(answer, UnreadableFilm):
                reason = Reason(answer.code, answer.text)
                register.note(key, Verdict("unreadable", reason))
                unreadable.append((manifest.path[row], reason))
                if len(unreadable) > allowed:
                    raise _too_many(manifest, unreadable, "so far")
            elif isinstance(answer, Reason):
                register.note(key, Verdict("refused", answer))
            else:
                register.keep(key, int(places[number]), answer)
            advance(1)


def decode_into(
    pixel_file: str, preprocessing: Preprocessing, task: tuple[int, str]
) -> int | Reason:
    """Write a film's pixels to its place; a worker's task.

    Parameters
    ----------
    task : the place, and the film's path

    Returns
    -------
    the CRC-32 of the pixels, or why no model must answer this film
    """
    place, file = task
    film = read(source(file), name=file)
    if film.refusals:
        return film.refusals[0]
    pixels, _, reasons = described(film, preprocessing)
    for reason in reasons:
        if reason.refers:  # what an answer refers by its picture, no training learns from either
            return reason
    data = pixels.tobytes()
    with _room(Path(pixel_file).parent):
        descriptor = os.open(pixel_file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, data, place * len(data))
        finally:
            os.close(descriptor)
    return zlib.crc32(data)


def _check_room(shelf: Shelf, films: int) -> None:
    shelf.folder.mkdir(parents=True, exist_ok=True)
    need, free = films * shelf.film_bytes, shutil.disk_usage(shelf.folder).free
    if need + MARGIN > free:
        raise DiskFull(
            f"no room for {films:,} decoded films: {need / 1e6:,.0f} MB are needed, with "
            f"{MARGIN / 1e6:,.0f} to spare, and {free / 1e6:,.0f} MB are free in {shelf.folder}. "
            "Free some space (hilum doctor --clear empties the cache), or set HILUM_CACHE to "
            "another disk."
        )


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """A full disk in plain words."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"the disk is full: {folder}; the films decoded so far are kept. Free some space and "
            "go on, or set HILUM_CACHE to another disk."
        ) from None


def _too_many(
    manifest: Manifest, unreadable: list[tuple[str, Reason]], share: str
) -> TooManyUnreadable:
    first = "; ".join(f"{manifest.shown(path)}: {reason.text}" for path, reason in unreadable[:3])
    return TooManyUnreadable(
        f"too many films cannot be read: {len(unreadable)} {share} ({first}). "
        "Mend them or take them out."
    )


def _base() -> Path:
    return machine.cache_folder() / "films-1"


def _place(preprocessing: Preprocessing) -> tuple[Path, Path]:
    """The folder of one preprocessing, and its lock beside it."""
    folder = _base() / preprocessing.digest
    return folder, folder.with_suffix(".lock")


@contextmanager
def _locked(guard: Path, progress: Progress) -> Iterator[None]:
    """The lock of a cache; waits for another run, and says so.

    Raises
    ------
    Refused
        The cache's folder cannot be made, or nobody may write there.
    """
    try:
        guard.parent.mkdir(parents=True, exist_ok=True)
        guard.touch()
    except OSError as error:
        raise Refused(
            f"decoded films cannot be kept: {guard.parent} ({os.strerror(error.errno or 5)}). Set "
            "HILUM_CACHE to a folder that can be written."
        ) from error
    with ExitStack() as stack:
        try:
            stack.enter_context(storage.lock(guard, what="cache"))
        except Locked:
            progress.say("another run decodes films into the same cache: waiting for it")
            stack.enter_context(storage.lock(guard, wait=True, what="cache"))
        yield


def usage() -> tuple[Path, int]:
    """The cache's folder, and the bytes of disk that it takes."""
    folder = _base()
    blocks = 0
    for file in folder.rglob("*") if folder.is_dir() else ():
        try:
            blocks += file.stat().st_blocks  # holes take none
        except OSError:
            continue  # it went away meanwhile
    return folder, 512 * blocks


def clear() -> tuple[Path, int]:
    """Empty the cache; returns its folder and the bytes that it took.

    Raises
    ------
    Locked
        A run is decoding films into it.
    """
    folder, size = usage()
    for shelf in [path for path in folder.glob("*") if path.is_dir()]:
        with storage.lock(shelf.with_suffix(".lock"), what="cache"):
            shutil.rmtree(shelf)
    return folder, size
