"""Pure steps from stored values to grey values: arrays and numbers in, arrays and words out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UnreadableFilm
from hilum.films.radiograph import Pixels, Reason

_DEPTHS = (8, 10, 12, 14, 16)
_MIDDLE = (0.005, 0.995)  # shares of the pixels between which the middle 99 % lie


def over_depth(values: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Grey values of a raster file with more than 8 bits, or of floats.

    Sixteen-bit files often hold 10, 12 or 14 bits, and nothing in them says so. The smallest of
    these depths that holds the largest value is taken as the range. Floats within [0, 1] and
    within [0, 255] are taken as such; all else is stretched from its least to its largest value.

    Returns
    -------
    values : float32 in [0, 255]
    step : what was done, in words
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise UnreadableFilm("corrupt", "the picture holds values that are no numbers")
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 1:
            return (values * np.float32(255)).astype(np.float32), "range 0 to 1"
        if low >= 0 and high <= 255:
            return values.astype(np.float32), "range 0 to 255"
    else:
        low, high = float(values.min()), float(values.max())
        depth = next((d for d in _DEPTHS if high < 1 << d), 0)
        if low >= 0 and depth:
            scale = np.float32(255 / ((1 << depth) - 1))
            return values.astype(np.float32) * scale, f"range of {depth} bits"
    if high == low:
        return np.zeros(values.shape, np.float32), "constant"
    stretched = (values.astype(np.float64) - low) * (255 / (high - low))
    return stretched.astype(np.float32), "range from least to largest value"


def finish(
    values: NDArray[Any], steps: Sequence[str] = (), reasons: Sequence[Reason] = ()
) -> Pixels:
    """Pixels, read-only; a picture of one single value is no film (``constant``)."""
    first = values[0, 0]
    if (values[:: max(1, len(values) // 8)] == first).all() and (values == first).all():
        raise UnreadableFilm("constant", "all pixels have the same value")
    values.setflags(write=False)
    return Pixels(values, tuple(steps), tuple(reasons))


# The steps of a DICOM film work on levels: the values that occur or could occur, far fewer than
# pixels. Each level is carried through modality, VOI and presentation once, then looked up.


def stored(
    values: NDArray[Any], bits: int, high: int, signed: bool, exact: bool
) -> tuple[NDArray[Any], str | None]:
    """Take the stored bits out of the allocated ones (PS3.5, 8.1.1).

    Parameters
    ----------
    values : integers as allocated
    bits, high : Bits Stored (0028,0101) and High Bit (0028,0102)
    signed : Pixel Representation (0028,0103) is 1
    exact : uncompressed data, where whatever is outside the stored bits (once overlays) goes. A
        codestream has a depth of its own: a value over the stated range is kept, and only a sign
        that it does not know of is put back.

    Returns
    -------
    values, step : what was done in words, or None
    """
    allocated = 8 * values.dtype.itemsize
    if bits >= allocated:
        return values, None
    if not exact:
        low, most = int(values.min()), int(values.max())
        if not signed or low < 0 or not 1 << (bits - 1) <= most < 1 << bits:
            return values, None
        high = bits - 1
    down = max(0, high + 1 - bits)
    up = allocated - bits - down
    if up < 0 or (up == 0 and down == 0):
        return values, None
    kind = np.dtype(f"i{values.dtype.itemsize}" if signed else f"u{values.dtype.itemsize}")
    taken = (values.astype(kind, copy=False) << up) >> (up + down)
    if np.array_equal(taken, values):
        return values, None
    return taken, f"the {bits} stored bits taken"


def levels_of(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """Levels, the index of each pixel's level, and how many pixels each level has."""
    low, high = int(values.min()), int(values.max())
    if high - low < 1 << 20:
        index = values if low == 0 else values.astype(np.int64) - low
        counts = np.bincount(index.ravel(), minlength=high - low + 1)
        return np.arange(low, high + 1), index, counts
    found, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return found.astype(np.int64), index.reshape(values.shape), counts


def padded(
    levels: NDArray[Any], value: float | None, limit: float | None, wrap: int = 0
) -> NDArray[np.bool_]:
    """Levels that are padding: Pixel Padding Value (0028,0120) to Range Limit (0028,0121).

    PS3.3, C.7.5.1.1.2: stored values, before any table. ``wrap`` is 2**bits where pixels are
    signed, for writers that state the value unsigned.
    """
    if value is None:
        return np.zeros(levels.shape, bool)
    ends = [value, value if limit is None else limit]
    ends = [end - wrap if wrap and end >= wrap // 2 else end for end in ends]
    return (levels >= min(ends)) & (levels <= max(ends))


@dataclass(frozen=True)
class Table:
    """A look-up table of PS3.3, C.11.1.1 (modality) or C.11.2.1.1 (VOI).

    Attributes
    ----------
    first : the value that maps to the first entry; lower ones do too, higher ones to the last
    data : the entries
    bits : depth of an entry, as it is stated
    """

    first: int
    data: NDArray[Any]
    bits: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        places = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.data) - 1)
        return self.data[places].astype(np.float64)

    @property
    def depth(self) -> int:
        """Bits of an entry: of 16 stated ones the fewest of a usual depth that hold the largest.

        A table in an image states 8 or 16 bits unless its module says otherwise (C.11.2.1.1), and
        makers write 16 over entries of 10, 12 or 14 (D. Clunie in comp.protocols.dicom, 6 February
        2005; dcm4che/dcm4che#413; Enet4/dicom-rs#825). By the letter such a film is nearly black.
        """
        most = int(self.data.max())
        return next((d for d in _DEPTHS if most < 1 << d), 16) if self.bits == 16 else self.bits

    @property
    def top(self) -> float:
        """The largest output that an entry can state."""
        return float(max((1 << self.depth) - 1, int(self.data.max())))

    @property
    def remark(self) -> str:
        """Behind the table's name in a step; empty where its entries use the bits it states."""
        return "" if self.depth == self.bits else f" of {self.depth} bits, {self.bits} stated"


def rescale(values: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float64]:
    """Rescale Slope (0028,1053) and Intercept (0028,1052), PS3.3, C.11.1.1.2."""
    return values * slope + intercept


def window(
    values: NDArray[Any], centre: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float64]:
    """Window Center and Width (0028,1050/1051) to [0, 1] by VOI LUT Function (0028,1056).

    PS3.3, C.11.2.1.2.1 LINEAR (width ≥ 1), C.11.2.1.3.1 SIGMOID and C.11.2.1.3.2 LINEAR_EXACT
    (width > 0).
    """
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def between(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """``low`` to 0, ``high`` to 1."""
    return np.clip((values - low) / (high - low), 0, 1)


def percentiles(values: NDArray[Any], counts: NDArray[Any], shares: Sequence[float]) -> list[float]:
    """Values under which these shares of the pixels lie; ``counts`` are pixels a value."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(counts[order])
    places = np.searchsorted(total, np.asarray(shares) * total[-1], side="left")
    return [float(values[order[min(place, len(order) - 1)]]) for place in places]


def middle(values: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float]:
    """The values between which the middle 99 % of the pixels lie."""
    low, high = percentiles(values, counts, _MIDDLE)
    return low, high


def shows_nothing(grey: NDArray[Any], counts: NDArray[Any]) -> float | None:
    """The share of pixels that a window clips, where it has nothing to do with the film.

    That is where more than 95 % of the pixels end black or white, or where the middle 98 % of
    them lie within 3 % of the range; None otherwise.
    """
    total = counts.sum()
    clipped = float(counts[(grey <= 0) | (grey >= 1)].sum() / total)
    low, high = percentiles(grey, counts, (0.01, 0.99))
    return clipped if clipped > 0.95 or high - low < 0.03 else None


def orient(values: NDArray[Any], rows: str, columns: str) -> tuple[NDArray[Any], str | None]:
    """Turn a frontal film so that the patient's left is right and the foot is below (``L\\F``).

    Parameters
    ----------
    rows, columns : Patient Orientation (0020,0020), PS3.3, C.7.6.1.1.1: where the rows run (to
        the right) and where the columns run (downwards); the first letter counts

    Returns
    -------
    values, step : unchanged and None unless both directions are known and frontal
    """
    across, down = rows[:1], columns[:1]
    steps = []
    if across in ("H", "F") and down in ("L", "R"):
        values, across, down = values.T, down, across
        steps.append("transposed")
    if across not in ("L", "R") or down not in ("H", "F"):
        return values, None
    if across == "R":
        values = values[:, ::-1]
        steps.append("mirrored")
    if down == "H":
        values = values[::-1]
        steps.append("turned upside down")
    return values, ", ".join(steps) or None
