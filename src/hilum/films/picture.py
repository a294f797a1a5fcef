"""Pictures for people: PNG, a heat map laid over its film, films side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hilum.films.radiograph import Radiograph

# From clear through amber to red: dark spots of a film stay dark, and the order is also one of
# lightness, so it reads in grey print. Columns: heat, red, green, blue, opacity.
_HEAT = np.array(
    [
        [0.00, 255, 220, 90, 0.00],
        [0.25, 255, 205, 60, 0.15],
        [0.50, 253, 155, 35, 0.40],
        [0.75, 235, 85, 35, 0.55],
        [1.00, 195, 15, 40, 0.65],
    ]
)


def png(array: NDArray[Any]) -> bytes:
    """A PNG file of (h, w) grey or (h, w, 3) colour values; floats are taken within [0, 255]."""
    if array.dtype != np.uint8:
        array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def view(radiograph: Radiograph, longest: int = 640) -> NDArray[np.uint8]:
    """A film for people: (h, w) uint8 in its own shape, no side over ``longest`` pixels.

    Networks take :func:`hilum.films.preprocess.preprocess`; nothing is ever scored from a view.
    """
    values = radiograph.decode(longest).values
    image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    return np.asarray(image)


def resized(
    values: NDArray[Any], height: int, width: int, *, cubic: bool = False
) -> NDArray[np.float32]:
    """(h, w) values as (height, width) float32; bilinear, each value the mean of what it covers."""
    method = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((width, height), method))


def colours(heat: NDArray[Any]) -> NDArray[np.float32]:
    """Colour and opacity of a heat in [0, 1]: (..., 4) with 0–255, 0–255, 0–255, 0–1."""
    clipped = np.clip(np.nan_to_num(heat), 0, 1)
    parts = [np.interp(clipped, _HEAT[:, 0], _HEAT[:, column]) for column in range(1, 5)]
    return np.stack(parts, axis=-1).astype(np.float32)


def blend(film: NDArray[Any], heat: NDArray[Any]) -> NDArray[np.uint8]:
    """The film (h, w) with a heat map (a, b) in [0, 1] spread over all of it: (h, w, 3) uint8."""
    painted = colours(resized(heat, *film.shape, cubic=True))
    opacity = painted[..., 3:]
    mixed = np.asarray(film, np.float32)[..., None] * (1 - opacity) + painted[..., :3] * opacity
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def mosaic(
    arrays: Sequence[NDArray[Any]],
    columns: int,
    labels: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Pictures side by side in rows, each in a cell of the largest one's size.

    Parameters
    ----------
    arrays : (h, w) grey or (h, w, 3) colour, of any sizes
    labels : a line beneath each

    Returns
    -------
    (H, W) uint8, or (H, W, 3) where one of them has colour
    """
    if not arrays:
        return np.zeros((1, 1), np.uint8)
    colour = any(array.ndim == 3 for array in arrays)
    height = max(array.shape[0] for array in arrays)
    width = max(array.shape[1] for array in arrays)
    size = max(10, min(22, width // 14))
    below, gap = size + 6 if labels else 0, 4
    rows = -(-len(arrays) // columns)
    columns = min(columns, len(arrays))
    page = Image.new(
        "RGB" if colour else "L",
        (columns * (width + gap) + gap, rows * (height + below + gap) + gap),
        "#181818" if colour else 24,
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    for number, array in enumerate(arrays):
        left = gap + (number % columns) * (width + gap)
        top = gap + (number // columns) * (height + below + gap)
        values = np.clip(np.rint(array), 0, 255).astype(np.uint8)
        page.paste(
            Image.fromarray(np.ascontiguousarray(values)),
            (left + (width - array.shape[1]) // 2, top + (height - array.shape[0]) // 2),
        )
        if labels:
            text = _shortened(labels[number], draw, font, width)
            draw.text(
                (left + width / 2, top + height + 1),
                text,
                "#e8e8e8" if colour else 232,
                font,
                anchor="ma",
            )
    return np.asarray(page)


def _shortened(text: str, draw: ImageDraw.ImageDraw, font: Any, width: int) -> str:
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = text[:-2].rstrip() + "…" if not text.endswith("…") else text[:-2] + "…"
    return text
