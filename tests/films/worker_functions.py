"""What the tests have workers do; a worker imports functions by name."""

from __future__ import annotations

import ctypes
import os
import time

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UnreadableFilm, UsageError
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read


def digest(data: bytes) -> bytes:
    return preprocess(read(data), Preprocessing(32)).tobytes()


def double(number: int) -> int:
    return 2 * number


def process(_: int) -> int:
    return os.getpid()


def slow_first(number: int) -> int:
    time.sleep(0.5 if number == 0 else 0)
    return number


def trouble(number: int) -> int:
    """3 crashes, 5 hangs, 7 wants too much memory, 9 is unreadable."""
    if number == 3:
        ctypes.string_at(0)
    if number == 5:
        time.sleep(1000)
    if number == 7:
        return int(np.ones(1 << 32, np.uint8)[0])
    if number == 9:
        raise UnreadableFilm("truncated", "it ends too early")
    return number


def defect(number: int) -> int:
    raise KeyError(f"a defect at {number}")


def misuse(number: int) -> int:
    raise UsageError("wrong: this. Do that.")


def noisy(number: int) -> int:
    os.write(1, b"noise")
    os.write(2, b"noise")
    return number


def large(number: int) -> bytes:
    return bytes(1 << 20)


def filled(number: int) -> NDArray[np.uint8]:
    """A film-sized array of its number."""
    return np.full((224, 224), number % 251, np.uint8)


def filled_large(number: int) -> NDArray[np.uint8]:
    """Half a batch of them has no room in the memory that a worker shares."""
    return np.full((1100, 1100), number % 251, np.uint8)
