"""Which altered copies the audit finds, and how near strangers come.

    HILUM_FILMS=... python benchmarks/audit_copies.py --out docs/records/audit/copies.csv

260 real films (Kermany's at 224 pixels and as published, ChestX-ray14 at 256 pixels) are altered
each in one way, saved again as JPEG and looked for. Strangers are all pairs of the 5,232 films at
224 pixels that are not the same file.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from hilum.audit import duplicates
from hilum.audit.survey import SMALL, perceptual_hash
from hilum.films.preprocess import preprocess
from hilum.films.read import find, read

RNG = np.random.default_rng(0)


def saved(film: Image.Image, quality: int = 90) -> bytes:
    """The film as a JPEG."""
    stream = io.BytesIO()
    film.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def gamma(film: Image.Image, exponent: float) -> Image.Image:
    """Another film curve."""
    return film.point([round(255 * (k / 255) ** exponent) for k in range(256)])


def cropped(film: Image.Image, share: float) -> Image.Image:
    """A strip cut off at each side, unequal."""
    w, h = film.size
    return film.crop(
        (int(w * share * 0.7), int(h * share * 0.3), int(w * (1 - share * 0.3)),
         int(h * (1 - share * 0.7)))
    )  # fmt: skip


def noisy(film: Image.Image, spread: float) -> Image.Image:
    """Grain."""
    values = np.asarray(film, float)
    grain = RNG.normal(0, spread, values.shape)
    return Image.fromarray(np.clip(values + grain, 0, 255).astype(np.uint8))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 30": lambda film: Image.open(io.BytesIO(saved(film, 30))),
    "half the size": lambda film: film.resize((film.width // 2, film.height // 2)),
    "gamma 0.7": lambda film: gamma(film, 0.7),
    "gamma 1.5": lambda film: gamma(film, 1.5),
    "contrast 0.6": lambda film: ImageEnhance.Contrast(film).enhance(0.6),
    "histogram equalised": ImageOps.equalize,
    "grain of 8 grey levels": lambda film: noisy(film, 8),
    "blurred by 2 pixels": lambda film: film.filter(ImageFilter.GaussianBlur(2)),
    "2 % of each side cut off": lambda film: cropped(film, 0.02),
    "5 % of each side cut off": lambda film: cropped(film, 0.05),
    "turned by 1 degree": lambda film: film.rotate(1, Image.Resampling.BILINEAR),
    "turned by 2 degrees": lambda film: film.rotate(2, Image.Resampling.BILINEAR),
}


def small(data: bytes) -> NDArray[np.uint8]:
    """The copy that an audit keeps of a film."""
    return preprocess(read(data), SMALL)


def main() -> None:
    """Alter, look for, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    base = Path(os.environ["HILUM_FILMS"])
    sets = {"kermany_224": 120, "kermany_original": 60, "nih/images_256": 80}
    paths = [
        path
        for name, count in sets.items()
        for path in RNG.choice(np.array(find(base / name), object), count, replace=False)
    ]
    films = [Image.fromarray(np.asarray(read(path).pixels).astype(np.uint8)) for path in paths]
    originals = np.stack([small(saved(film)) for film in films])
    n = len(films)
    pairs = np.stack([np.arange(n), n + np.arange(n)], axis=1)
    rows = []
    for name, alter in ALTERED.items():
        copies = np.concatenate([originals, [small(saved(alter(film))) for film in films]])
        hashes = hashed(copies)
        apart = distance(hashes, pairs)
        alike = np.array(list(duplicates.similarities(copies, pairs)))
        proposed = {tuple(p) for p in duplicates.candidates(hashes, np.arange(2 * n)).tolist()}
        found = [
            (a, b) in proposed and likeness >= duplicates.ALIKE
            for (a, b), likeness in zip(pairs.tolist(), alike, strict=True)
        ]
        rows.append(
            [name, n, apart.min(), int(np.median(apart)), int(np.quantile(apart, 0.95)),
             f"{np.quantile(alike, 0.05):.3f}", f"{np.median(alike):.3f}", f"{alike.max():.3f}",
             f"{np.mean(found):.3f}"]
        )  # fmt: skip
        print(rows[-1], flush=True)
    rows.append(strangers(base / "kermany_224"))
    print(rows[-1])
    with out.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            ["altered", "pairs", "bits_apart_least", "bits_apart_median", "bits_apart_p95",
             "correlation_p5", "correlation_median", "correlation_highest", "found"]
        )  # fmt: skip
        table.writerows(rows)


def hashed(copies: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 32) perceptual hashes."""
    return np.stack([np.frombuffer(perceptual_hash(copy), np.uint8) for copy in copies])


def distance(hashes: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits in which the hashes of each pair differ."""
    return np.unpackbits(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]], axis=1).sum(axis=1)


def strangers(folder: Path) -> list[object]:
    """All pairs that are not one film: bits apart, correlation at the best of small shifts."""
    copies = np.stack([preprocess(read(path), SMALL) for path in find(folder)])
    which = np.unique(copies.reshape(len(copies), -1), axis=0, return_inverse=True)[1].reshape(-1)
    signs = 2 * np.unpackbits(hashed(copies), axis=1).astype(np.float32) - 1
    fine, side, far = duplicates._fine(copies), SMALL.size, duplicates._SHIFT
    inner = slice(far, side - far)
    still = unit(fine[:, inner, inner])
    counts, highest, alike = np.zeros(257, np.int64), 0.0, 0
    blocks = np.array_split(np.arange(len(copies)), 12)
    for rows in blocks:
        other = (which[rows, None] != which) & (rows[:, None] < np.arange(len(copies)))
        apart = np.rint((256 - signs[rows] @ signs.T) / 2).astype(np.int64)
        counts += np.bincount(apart[other], minlength=257)
    for dy in range(2 * far + 1):
        for dx in range(2 * far + 1):
            moved = unit(fine[:, dy : side - 2 * far + dy, dx : side - 2 * far + dx])
            for rows in blocks:
                likeness = still[rows] @ moved.T
                likeness[which[rows, None] == which] = 0
                highest = max(highest, float(likeness.max()))
                alike += int((likeness >= duplicates.ALIKE).sum())
    total, below = int(counts.sum()), np.cumsum(counts)
    least = int(np.flatnonzero(counts)[0])
    middle, most = (int(np.searchsorted(below, share * total)) for share in (0.5, 0.95))
    return ["strangers", total, least, middle, most, "", "", f"{highest:.3f}",
            f"{alike / total:.3f}"]  # fmt: skip


def unit(films: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, pixels) of mean 0 and length 1, so that a product is a correlation."""
    return duplicates._unit(films).reshape(len(films), -1)


if __name__ == "__main__":
    main()
