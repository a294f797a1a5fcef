"""Files that are whole or absent: atomic writes, locks, digests, folders of results."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from hilum.errors import DiskFull, FolderTaken, Locked, Refused


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that takes its name only when it is complete.

    The bytes go to a neighbour first, are flushed to the disk and then renamed, so a reader
    sees the old file or the new one and a crash leaves the old one.

    Raises
    ------
    DiskFull
        The disk has no room; the old file is untouched.
    Refused
        There is no such folder, or nobody may write there.
    """
    path = Path(path)
    # A digest of the name: the name itself may be as long as a file system allows.
    partial = path.with_name(f".{digest(path.name)[:16]}.{os.getpid()}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        try:
            opened = partial.open(mode, **text)  # type: ignore[call-overload]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refused(
                f"the file cannot be written: {path} ({os.strerror(error.errno or 5)}). Choose "
                "another place."
            ) from error
        with opened as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk is full: {path.name} could not be written, what was there before is "
                f"kept. Free some space in {path.parent}."
            ) from error
        raise
    finally:
        with suppress(OSError):  # where nothing could be written there is nothing to remove
            partial.unlink()


def write_file(path: Path | str, content: str | bytes) -> None:
    """A text or bytes as a file, whole or not at all; raises what :func:`atomic_write` does."""
    with atomic_write(path, "w" if isinstance(content, str) else "wb") as stream:
        stream.write(content)


def write_json(path: Path | str, content: object) -> None:
    """Write JSON atomically, readable by people; NaN is refused (use ``None``)."""
    with atomic_write(path, "w") as stream:
        json.dump(content, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


@contextmanager
def lock(path: Path | str, *, wait: bool = False, what: str = "folder") -> Iterator[None]:
    """Hold an advisory lock for as long as the context, or the process, lives.

    Parameters
    ----------
    wait : wait for the holder instead of raising
    what : the word for the message

    Raises
    ------
    Locked
        Another process holds it. A lock dies with its process, so there is none to clean up.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise Locked(
                f"another process works here: {path.parent} (process {holder}). "
                f"Wait for it, or choose another {what}."
            ) from None
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def digest(*parts: bytes | str | Path) -> str:
    """SHA-256 in hex over bytes, texts and files (each read in pieces), in order."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    total.update(piece)
        else:
            total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()


def new_folder(path: Path | str, *, marker: str | None = None, option: str = "--out") -> Path:
    """Make a folder for a result; one that already holds files is refused, never overwritten.

    Parameters
    ----------
    marker : a file that may already be there (a lock)
    option : with which another folder is named

    Raises
    ------
    FolderTaken
    """
    path = Path(path)
    if path.exists():
        if not path.is_dir():
            raise FolderTaken(
                f"there is a file of that name: {path}. Choose another with {option}."
            )
        if any(entry.name != marker for entry in path.iterdir()):
            raise FolderTaken(
                f"the folder holds another result: {path}. Choose another with {option}."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderTaken(
            f"the folder cannot be made: {path} ({error.strerror}). Choose another."
        ) from error
    return path


@contextmanager
def unless_empty(folder: Path) -> Iterator[None]:
    """Keep what an error leaves in a folder of results; remove one that is empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
        raise


@contextmanager
def begun(path: Path | str, *, way_on: Callable[[], str] = lambda: "") -> Iterator[Path]:
    """A new folder of results, locked while the context lives; one that stays empty is removed.

    Parameters
    ----------
    way_on : how to go on with what the folder holds, where that was begun and has not ended

    Raises
    ------
    Locked, FolderTaken
    """
    path = Path(path)
    held = path / "lock"
    if not held.exists():
        _free(path, way_on)
    with lock(held, what="--out"):
        _free(path, way_on)
        try:
            yield path
        except BaseException:
            if [entry.name for entry in path.iterdir()] == ["lock"]:
                held.unlink()
                path.rmdir()
            raise


def _free(path: Path, way_on: Callable[[], str]) -> None:
    try:
        new_folder(path, marker="lock")
    except FolderTaken as error:
        if line := way_on():
            raise FolderTaken(
                f"the folder holds another result, which has not ended: {path}. {line}, or choose "
                "another with --out."
            ) from error
        raise


def resume_command(command: str, folder: Path | str) -> str:
    """What goes on with what a command began in a folder, as a shell takes it."""
    path = str(folder)
    path = f"./{path}" if path.startswith("-") else path  # else it would be an option
    return f"hilum {command} --resume {shlex.quote(path)}"


def dated_folder(name: str) -> Path:
    """``hilum-NAME-DATE-TIME`` here, for results of a command that was given no ``--out``."""
    base = Path(f"hilum-{name}-{datetime.now():%Y%m%d-%H%M%S}")
    folder, k = base, 2
    while folder.exists():
        folder, k = base.with_name(f"{base.name}-{k}"), k + 1
    return folder
