"""What results call a film, a folder, a patient: by name, or by a keyed hash that tells nothing.

A path may hold a person's name or number. With ``--hide-names``, that is with ``HILUM_HIDE_NAMES``
in the environment (so that every process of a command knows), results call a file by a hash of
where it lies. The key is this user's own: the same file has the same name here every time, and
nobody can find a name by trying names without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from hilum import storage
from hilum.errors import Refused
from hilum.machine import config_folder

VARIABLE = "HILUM_HIDE_NAMES"
_HASHED = re.compile(r"h[0-9a-f]{20}")


def hidden() -> bool:
    """Whether results hide the names of files."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


@contextmanager
def hiding(hide: bool = True) -> Iterator[None]:
    """Hide names within the context; without ``hide`` the environment decides, as everywhere."""
    before = os.environ.get(VARIABLE)
    if hide:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if hide and before is None:
            os.environ.pop(VARIABLE, None)
        elif hide and before is not None:
            os.environ[VARIABLE] = before


def shown(path: str | Path, folder: str | Path = "", what: str = "film") -> str:
    """What results call this path: itself, or ``film-`` and 16 hexadecimal digits.

    Bytes that are no UTF-8 (names from old archives) are escaped: results are text.

    Parameters
    ----------
    path : as it is shown where names are not hidden
    folder : that a relative path is relative to; the working directory where empty
    what : the word before the hash
    """
    if hidden():
        return hash_of(path, folder, what)
    return str(path).encode("utf-8", "backslashreplace").decode()


def without_ending(path: str) -> str:
    """The path without its file's ending; digits are none (``1.2.840.113`` is a UID)."""
    head, ending = os.path.splitext(path)  # noqa: PTH122 (many thousands)
    return path if ending[1:].isdigit() else head


def hash_of(path: str | Path, folder: str | Path = "", what: str = "film") -> str:
    """What results call this path where names are hidden."""
    place = os.path.abspath(os.path.join(folder, path))  # noqa: PTH100, PTH118 (many thousands)
    return f"{what}-{_keyed(f'path {place}')[:16]}"


def patient(key: str) -> str:
    """What results call a patient: his key, hashed where it may come from a file's name."""
    return key if not hidden() or _HASHED.fullmatch(key) else hashed(key)


def hashed(identifier: str) -> str:
    """A patient's identifier as a keyed hash: the same here every time, telling nothing.

    HMAC-SHA-256 under a random key that this user's configuration folder keeps (mode 0600, made
    when it is first needed); elsewhere the same patient has another hash.
    """
    return "h" + _keyed(identifier.strip())[:20]


def _keyed(text: str) -> str:
    return hmac.new(
        _key(config_folder()), text.encode("utf-8", "surrogateescape"), hashlib.sha256
    ).hexdigest()


@lru_cache(maxsize=1)
def _key(folder: Path) -> bytes:
    path = folder / "patients.key"
    try:
        return _read_key(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.lock(path.with_name("patients.key.lock"), wait=True):
        if not path.exists():
            old = os.umask(0o077)
            try:
                with storage.atomic_write(path) as stream:
                    stream.write(secrets.token_bytes(32))
            finally:
                os.umask(old)
        return _read_key(path)


def _read_key(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) < 32:
        raise Refused(
            f"the key of the patient hashes is damaged: {path}. Put its copy back, or delete it: "
            "patients then get new hashes, and splits drawn by them move."
        )
    return key
