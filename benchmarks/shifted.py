"""The test films of *time to quality*: as they are, and under imitated shifts, made once for all.

Two kinds of shifts. Those of ``hilum.training.shifts.SHIFTS`` are the ones that hilum chooses its
thresholds on (and partly trains with), on validation films. The *held out* ones here are none of
them: hilum neither trains nor chooses on anything alike by name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hilum.datasets.manifest import Manifest
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.training.parts import identity
from hilum.training.shifts import SHIFTS, imitate

Films = NDArray[np.uint8]
SIZE = 224
SEED = 2021


def motion(film: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The child moved: a running mean of 5 to 13 pixels along one axis."""
    length, axis = int(rng.integers(5, 14)), int(rng.integers(2))
    moved = [np.roll(film, k - length // 2, axis) for k in range(length)]
    return np.mean(moved, axis=0, dtype=np.float32)


def vignette(film: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Darker towards the corners, down to 0.3 to 0.6 of the grey value."""
    p = np.linspace(-1, 1, len(film), dtype=np.float32)
    radius = (p[:, None] ** 2 + p**2) / 2
    return film * (1 - np.float32(rng.uniform(0.4, 0.7)) * radius)


def posterised(film: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Few grey levels, 6 to 12."""
    levels = int(rng.integers(6, 13))
    return np.rint(film / 255 * (levels - 1)) * np.float32(255 / (levels - 1))


def marker(film: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A bright plate with two dark bars in one of the four corners."""
    size = len(film)
    side = int(size * rng.uniform(0.12, 0.2))
    top, left = (int(size * 0.03) if rng.random() < 0.5 else int(size * 0.97) - side for _ in "yx")
    marked = film.copy()
    plate = marked[top : top + side, left : left + side]
    plate[:] = 245
    plate[side // 5 : -(side // 5), side // 4 : side // 4 + side // 8] = 10
    plate[side // 5 : -(side // 5), -(side // 4) - side // 8 : -(side // 4)] = 10
    return marked


HELD_OUT: dict[str, Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]] = {
    "motion": motion,
    "vignette": vignette,
    "posterised": posterised,
    "marker": marker,
}


def hold_out(films: Films, numbers: NDArray[np.int64], name: str) -> Films:
    """(n, s, s) uint8 under a held-out shift, a function of the film's own number alone."""
    shifted = [
        HELD_OUT[name](film.astype(np.float32), np.random.default_rng((SEED, int(number))))
        for film, number in zip(films, numbers, strict=True)
    ]
    return np.clip(np.rint(np.stack(shifted)), 0, 255).astype(np.uint8)


def mixed(sets: dict[str, Films]) -> Films:
    """Each film under one of ``SHIFTS``, in turn: a quick look at all of them."""
    names = list(SHIFTS)
    films = [sets[names[i % len(names)]][i] for i in range(len(sets["plain"]))]
    return np.stack(films)


def make_sets(manifest: Manifest, target: Path) -> None:
    """Write the sets of a manifest's films, (n, 224, 224) uint8 each, with labels and patients."""
    films = np.stack(
        [preprocess(manifest.read_film(i), Preprocessing(SIZE)) for i in range(len(manifest))]
    )
    numbers = np.array([identity(path) for path in manifest.path], np.int64)
    sets = {"plain": films}
    for name in SHIFTS:
        pieces = [
            imitate(torch.from_numpy(films[rows]), torch.from_numpy(numbers[rows]), name, SEED)
            for rows in np.array_split(np.arange(len(films)), -(-len(films) // 64))
        ]
        sets[name] = torch.cat(pieces).numpy()
    for name in HELD_OUT:
        sets[name] = hold_out(films, numbers, name)
    sets["mixed"] = mixed(sets)
    np.savez(target, label=np.asarray(manifest.label), patient=np.array(manifest.patient), **sets)
