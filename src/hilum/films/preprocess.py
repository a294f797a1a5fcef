"""Pixels for a network: the one way from a film to uint8, for every path in hilum."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError
from hilum.films import polarity, resize
from hilum.films.radiograph import Pixels, Radiograph, Reason
from hilum.storage import digest


@dataclass(frozen=True)
class Preprocessing:
    """Every constant between a decoded film and the network's uint8 input.

    Attributes
    ----------
    size : side of the square output in pixels
    geometry : ``stretch``, both sides to ``size`` on their own (what Keras's loader and the
        published small copies do; shape becomes stretch, training must imitate it)
    filter : the antialiasing resampling filter, ``triangle``
    format : version of the meaning of these fields
    """

    size: int = 224
    geometry: str = "stretch"
    filter: str = "triangle"
    format: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise UsageError(f"no such size: {self.size}. A film's side is 1 to 4096 pixels.")
        if (self.geometry, self.filter, self.format) != ("stretch", "triangle", 1):
            raise UsageError(
                f"unknown preprocessing: {self.geometry}, {self.filter}, format {self.format}. "
                "This hilum knows stretch, triangle, format 1."
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def digest(self) -> str:
        """Hex digest that names a cache of these pixels."""
        return digest(repr(sorted(self.as_dict().items())))[:16]


def preprocess(radiograph: Radiograph, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The film as the network takes it: (size, size) uint8, bright is dense.

    Raises
    ------
    UnreadableFilm
    """
    return _pixels(radiograph, preprocessing.size)[0]


def described(
    radiograph: Radiograph, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], tuple[str, ...], tuple[Reason, ...]]:
    """The same pixels as :func:`preprocess`, with what was done and found on the way.

    Returns
    -------
    pixels : (size, size) uint8
    steps : in order, in words
    reasons : what is odd about the pixels, a negative among it; ``refers`` says what it means

    Raises
    ------
    UnreadableFilm
    """
    size = preprocessing.size
    pixels, found = _pixels(radiograph, size)
    steps, reasons = found.steps, found.reasons
    height, width = found.values.shape
    if (height, width) != (size, size):
        steps = (*steps, f"{width} x {height} to {size} x {size}")
    likeness = polarity.likeness(pixels)
    if likeness is not None and likeness < polarity.NEGATIVE:
        reasons = (*reasons, polarity.REASON)
    return pixels, steps, reasons


def _pixels(radiograph: Radiograph, size: int) -> tuple[NDArray[np.uint8], Pixels]:
    # A decoder's own scaling may stand in for the first part of the resize only as long as twice
    # the target is left for the filter to work on.
    found = radiograph.decode(2 * size)
    return resize.square(found.values, size), found
