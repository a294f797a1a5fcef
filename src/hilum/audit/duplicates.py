"""The same film twice: the same file, the same pixels, or nearly the same picture.

Hashes are bucketed by bands, so time stays near linear, and every pair that the hash proposes is
confirmed on the small copies: their fine structure must correlate. Mirrored or turned films are
not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.audit.survey import Scratch, Survey, pixel_digest
from hilum.errors import UnreadableFilm
from hilum.films.workers import Workers
from hilum.progress import SILENT, Progress

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest

BANDS, BITS = 16, 16  # 16 bands of 16 bits: a pair 20 bits apart shares a band in 99 of 100 cases
WINDOW = 64  # how many neighbours in a band's order a film is compared with at most
A_FILM = 16  # pairs that are proposed for each film, on average, at most
FARTHEST = 28  # bits of 256; of strangers' chests one pair in a thousand lies within 53
ALIKE = 0.85  # least correlation of fine structure; docs/audit.md has the measurement
_BLUR, _SHIFT = 2.0, 2  # of the 64 × 64 copy, in pixels

KINDS = {
    "file": "the same file",
    "pixels": "the same pixels in another file",
    "near": "nearly the same picture",
}

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Films that are copies of each other.

    Attributes
    ----------
    kind : a key of ``KINDS``; of several, the loosest
    rows : of the manifest, in order
    similarity : least correlation along the links of the group; 1 for the same pixels
    parts, labels, patients : how many distinct ones (films without a part or label left out)
    """

    kind: str
    rows: tuple[int, ...]
    similarity: float
    parts: int
    labels: int
    patients: int


def find(
    manifest: Manifest, seen: Survey, workers: Workers, progress: Progress = SILENT
) -> list[Group]:
    """All groups of copies: those across classes first, then across parts, then by kind."""
    readable = np.flatnonzero(seen.readable)
    links: dict[tuple[int, int], tuple[str, float]] = {}
    same_file = _equal(seen.file, readable)
    for a, b in same_file:
        links[a, b] = ("file", 1.0)
    # One film stands for all that share its file.
    alone = np.setdiff1d(readable, [b for _, b in same_file])
    with progress.stage("comparing films", None) as advance:
        same_copy = _equal(seen.copy, alone)
        for (a, b), equal in zip(
            same_copy, _same_pixels(manifest, same_copy, workers), strict=True
        ):
            links[a, b] = ("pixels", 1.0) if equal else ("near", 1.0)
        alone = np.setdiff1d(alone, [b for _, b in same_copy])
        pairs = candidates(seen.hash, alone)
        # Not pairs.tolist(): up to A_FILM a film are proposed, and a pair of integers is 150 bytes.
        for pair, alike in zip(pairs, similarities(seen.copies, pairs), strict=True):
            if alike >= ALIKE:
                links[int(pair[0]), int(pair[1])] = ("near", float(alike))
        advance(len(readable))
    groups = [_group(manifest, rows, within) for rows, within in _joined(links)]
    order = list(KINDS)
    return sorted(
        groups, key=lambda g: (-g.labels, -g.parts, order.index(g.kind), -g.similarity, g.rows)
    )


def _equal(digests: Scratch, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first, other) for rows of equal digests, ``first`` being the earliest."""
    if not len(rows):
        return []
    # S, not V: numpy sorts it. That it drops zeros at the end makes no two digests one.
    some = digests[rows]
    short = some.view(f"S{some.shape[1]}")[:, 0]
    _, first, which = np.unique(short, return_index=True, return_inverse=True)
    first = rows[first[which.reshape(-1)]]
    again = first != rows
    return list(zip(first[again].tolist(), rows[again].tolist(), strict=True))


def _same_pixels(
    manifest: Manifest, pairs: list[tuple[int, int]], workers: Workers
) -> Iterator[bool]:
    """Whether two films of equal small copies are equal at full size."""
    rows = sorted({row for pair in pairs for row in pair})
    files = [str(manifest.root / manifest.path[row]) for row in rows]
    found: dict[int, Any] = {}
    for number, answer in workers.map(pixel_digest, files, chunk=4):
        found[rows[number]] = answer
    for a, b in pairs:
        yield not isinstance(found[a], UnreadableFilm) and found[a] == found[b]


def candidates(
    hashes: Scratch | NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    window: int = WINDOW,
) -> Pairs:
    """(k, 2) pairs of rows whose hashes differ in at most ``FARTHEST`` bits and share a band.

    For each band the films are sorted by a key that begins with its bits, and each is compared
    with the next ``window`` films as long as they agree in the band (Manku et al. 2007, "Detecting
    near-duplicates for web crawling"). The bits of a band are strewn over the picture.

    Parameters
    ----------
    hashes : (n, 32) uint8; rows : which of them
    """
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    own = np.ascontiguousarray(hashes[rows])
    short = own.view(np.uint16)
    strewn = np.random.default_rng(0).permutation(8 * own.shape[1])
    found = np.zeros(0, np.int64)  # pairs as first × n + other
    for band in range(BANDS):
        here = [found]
        chosen = np.take(strewn, range(BITS * band, BITS * band + 64), mode="wrap")
        key = np.zeros(len(rows), np.uint64)
        for bit in chosen.tolist():  # bit by bit: all bits of all films at once take much memory
            key = (key << np.uint64(1)) | (own[:, bit // 8] >> (7 - bit % 8) & 1)
        order = np.argsort(key, kind="stable")
        bucket = key[order] >> np.uint64(64 - BITS)
        for step in range(1, min(window, len(order) - 1) + 1):
            near = np.flatnonzero(bucket[:-step] == bucket[step:])
            if not len(near):
                break
            a, b = order[near], order[near + step]
            close = _ONES[short[a] ^ short[b]].sum(axis=1) <= FARTHEST
            a, b = a[close], b[close]
            here.append(np.minimum(a, b) * len(rows) + np.maximum(a, b))
        found = _least_apart(np.unique(np.concatenate(here)), short)
    return rows[np.stack(np.divmod(found, len(rows)), axis=1)]


def _least_apart(found: NDArray[np.int64], short: NDArray[np.uint16]) -> NDArray[np.int64]:
    """No more than ``A_FILM`` pairs for each film on average: those that differ least."""
    most = A_FILM * len(short)
    if len(found) <= most:
        return found
    apart = np.concatenate(
        [
            _ONES[short[some // len(short)] ^ short[some % len(short)]].sum(axis=1)
            for some in np.array_split(found, -(-len(found) // (1 << 18)))
        ]
    )
    return np.sort(found[np.argsort(apart, kind="stable")[:most]])


_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def similarities(copies: Scratch | NDArray[np.uint8], pairs: Pairs) -> Iterator[float]:
    """Correlation of the fine structure of each pair, at the best shift of up to 2 pixels.

    A copy less its own blur keeps edges, vessels and ribs where they are; what all chests share
    is gone. Exposure, contrast and compression hardly change it.

    Parameters
    ----------
    copies : (n, 64, 64) uint8; pairs : (k, 2)
    """
    from scipy import fft

    shifts = range(-_SHIFT, _SHIFT + 1)
    for start in range(0, len(pairs), 256):
        a, b = (_fine(copies[pairs[start : start + 256, side]]) for side in (0, 1))
        # All shifts at once, wrapped round the edges, to find the best; then it alone, in full.
        spectrum = fft.rfft2(a) * np.conj(fft.rfft2(b))
        wrapped = fft.irfft2(spectrum, s=a.shape[1:])
        corner = np.stack([wrapped[:, dy, dx] for dy in shifts for dx in shifts], axis=1)
        best = corner.argmax(axis=1)
        size = a.shape[1] - 2 * _SHIFT
        for number in np.unique(best):
            dy, dx = shifts[number // len(shifts)], shifts[number % len(shifts)]
            at = np.flatnonzero(best == number)
            inner = _unit(a[at, _SHIFT : _SHIFT + size, _SHIFT : _SHIFT + size])
            moved = _unit(b[at, _SHIFT - dy : _SHIFT - dy + size, _SHIFT - dx : _SHIFT - dx + size])
            corner[at, 0] = np.einsum("nij,nij->n", inner, moved)
        yield from corner[:, 0].tolist()


def _fine(copies: NDArray[np.uint8]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    films = copies.astype(np.float32)
    return films - gaussian_filter(films, (0, _BLUR, _BLUR))


def _unit(films: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = films - films.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(np.einsum("nij,nij->n", centred, centred))
    return np.asarray(centred / np.maximum(length, 1e-3)[:, None, None])


Links = dict[tuple[int, int], tuple[str, float]]


def _joined(links: Links) -> Iterable[tuple[list[int], list[tuple[str, float]]]]:
    """Rows that hang together by links, and those links."""
    leader: dict[int, int] = {}

    def lead(row: int) -> int:
        while leader.setdefault(row, row) != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for a, b in links:
        first, other = sorted((lead(a), lead(b)))
        leader[other] = first
    rows: dict[int, list[int]] = {}
    for row in sorted(leader):
        rows.setdefault(lead(row), []).append(row)
    within: dict[int, list[tuple[str, float]]] = {}
    for (a, _), link in links.items():
        within.setdefault(lead(a), []).append(link)
    return ((rows[first], within[first]) for first in rows)


def _group(manifest: Manifest, rows: list[int], links: list[tuple[str, float]]) -> Group:
    kinds = {kind for kind, _ in links}
    return Group(
        kind=next(kind for kind in reversed(KINDS) if kind in kinds),
        rows=tuple(rows),
        similarity=min(alike for _, alike in links),
        parts=len({manifest.part[row] for row in rows} - {""}),
        labels=len({int(manifest.label[row]) for row in rows} - {-1}),
        patients=len({manifest.patient[row] for row in rows}),
    )
