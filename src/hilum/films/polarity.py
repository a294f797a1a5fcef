"""Is a film shown as a negative? A check on the picture, whatever its header says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.films.radiograph import Reason

# The mean frontal chest film, 8 × 8, its left half (the right one is its mirror image): bright
# mediastinum and abdomen, dark lungs and borders. Made by benchmarks/polarity.py.
_HALF = np.array(
    [
        [-94, -68, -35, 25],
        [-43, 0, -7, 18],
        [-34, 9, -31, 19],
        [-45, 3, -28, 40],
        [-57, -4, -4, 61],
        [-67, -3, 22, 73],
        [-76, 19, 62, 89],
        [-77, 45, 85, 100],
    ],
    np.float64,
)
_CHEST = np.hstack([_HALF, _HALF[:, ::-1]])
_CHEST -= _CHEST.mean()
_CHEST /= np.linalg.norm(_CHEST)

NEGATIVE = -0.2
"""Likeness under which a film is referred: docs/records/films/polarity.json."""

REASON = Reason(
    "negative", "it looks like the negative of a chest film, or like no chest film at all"
)


def likeness(values: NDArray[Any]) -> float | None:
    """Correlation of a film (h, w) with the mean chest film: 1 the same, -1 its negative.

    None where the film is smaller than 8 × 8 or has one value only.
    """
    if min(values.shape) < 8:
        return None
    image = Image.fromarray(values if values.dtype == np.uint8 else values.astype(np.float32))
    small = np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.float64)
    small = small - small.mean()
    norm = float(np.linalg.norm(small))
    return float((small * _CHEST).sum() / norm) if norm > 1e-6 else None
