"""JPEG, PNG and TIFF films: header first, pixels when asked for.

Only EXIF's orientation changes pixels; colour profiles, gamma and transparency never do, because
they say how a screen should look, not what the film shows. Colours are weighed to ITU-R BT.601
luma, palettes looked up first.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.errors import UnreadableFilm
from hilum.films import grayscale, jpeg
from hilum.films.limits import LIMITS
from hilum.films.radiograph import Header, Pixels, Radiograph

_PNG_COLOURS = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_PHOTOMETRIC, _ORIENTATION, _BITS, _SAMPLE_FORMAT = 262, 274, 258, 339


def open_raster(data: bytes, format: str, name: str) -> Radiograph:
    """A film from the bytes of a ``jpeg``, ``png`` or ``tiff`` file; decodes nothing yet.

    Raises
    ------
    UnreadableFilm
        ``truncated``, ``corrupt``, ``too-large`` or ``unsupported``.
    """
    if format == "jpeg":
        found = jpeg.read_header(data)
        turned = found.orientation >= 5
        header = Header(
            width=found.height if turned else found.width,
            height=found.width if turned else found.height,
            bits=found.bits,
            colour=found.colour,
            compression="JPEG",
        )
        return Radiograph(name, data, format, header, (), partial(_decode_jpeg, data, found))
    header = _png_header(data) if format == "png" else _tiff_header(data)
    return Radiograph(name, data, format, header, (), partial(_decode_by_pillow, data, format))


def _decode_jpeg(data: bytes, header: jpeg.JpegHeader, least: int) -> Pixels:
    values = jpeg.decode(data, header, least)
    steps = []
    if header.components != 1:
        steps.append("luma")
    factor = max(1, round(header.width / values.shape[1]))
    if factor > 1:
        steps.append(f"decoded at 1/{factor}")
    if header.orientation != 1:
        values = np.ascontiguousarray(jpeg.turn(values, header.orientation))
        steps.append(f"EXIF orientation {header.orientation}")
    return grayscale.finish(values, steps)


def _png_header(data: bytes) -> Header:
    """Check every chunk (Portable Network Graphics, 5.3): sizes, order, CRC of what counts.

    Pillow does not check the CRC of picture data, and a wrong picture is worse than none.
    """
    position, header, finished = 8, None, False
    while position < len(data):
        if position + 8 > len(data):
            raise UnreadableFilm("truncated", "the PNG ends within a chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        body = position + 8
        position = body + length + 4
        if position > len(data):
            raise UnreadableFilm("truncated", "the PNG ends within a chunk")
        if not kind[0] & 0x20:  # upper case: a critical chunk
            crc = zlib.crc32(memoryview(data)[body - 4 : body + length])
            if crc != struct.unpack_from(">I", data, body + length)[0]:
                raise UnreadableFilm("corrupt", "a check sum of the PNG is wrong")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise UnreadableFilm("corrupt", "the PNG does not begin with its header")
            width, height, bits, colour = struct.unpack_from(">IIBB", data, body)
            LIMITS.check_pixels(width, height)
            header = Header(
                width=width,
                height=height,
                bits=bits,
                colour=_PNG_COLOURS.get(colour, str(colour)),
                compression="PNG",
            )
        elif kind == b"eXIf" and jpeg.exif_orientation(data[body : body + length]) >= 5:
            header = replace(header, width=header.height, height=header.width)
        elif kind == b"IEND":
            finished = True
            break
    if header is None or not finished:
        raise UnreadableFilm("truncated", "the PNG ends before its last chunk")
    return header


def _tiff_header(data: bytes) -> Header:
    with _opened(data, "tiff") as image:
        tags: Any = getattr(image, "tag_v2", {})
        bits = tags.get(_BITS, 1)
        width, height = image.size  # Pillow states the sides as its load() will turn them
        LIMITS.check_pixels(width, height)
        return Header(
            width=width,
            height=height,
            bits=int(max(bits)) if isinstance(bits, tuple) else int(bits),
            colour=image.mode,
            compression=f"TIFF {image.info.get('compression', 'raw')}",
        )


def _opened(data: bytes, format: str) -> Image.Image:
    """The file opened by Pillow, nothing decoded; raises ``UnreadableFilm``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd tags, and of sizes that are checked here
        try:
            image = Image.open(io.BytesIO(data), formats=(format.upper(),))
        except Image.DecompressionBombError:
            raise UnreadableFilm(
                "too-large",
                f"the picture has more than {LIMITS.pixels / 1e6:.0f} million pixels",
            ) from None
        except Image.UnidentifiedImageError:
            raise UnreadableFilm(
                "corrupt", f"the {format.upper()} has a broken header or an unknown layout"
            ) from None
        except Exception:  # whatever a broken header makes a parser raise
            raise UnreadableFilm("corrupt", f"the {format.upper()}'s header is broken") from None
    LIMITS.check_pixels(*image.size)
    return image


def _decode_by_pillow(data: bytes, format: str, least: int) -> Pixels:
    with _opened(data, format) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags: dict[int, Any] = dict(getattr(image, "tag_v2", {}))
        stored_mode = image.mode
        try:
            image.load()
            values, steps = _grey(image)
        except MemoryError:
            raise UnreadableFilm(
                "too-large", "the picture needs more memory than allowed"
            ) from None
        except Exception as error:
            if "truncated" in str(error):
                raise UnreadableFilm("truncated", "the file ends before its last line") from None
            raise UnreadableFilm("corrupt", "the picture's data are broken") from None
        orientation = 1
        if format == "png":  # for TIFF Pillow's load() has already turned the rows
            orientation = jpeg.exif_orientation(
                image.info.get("exif", b"").removeprefix(b"Exif\0\0")
            )
        elif tags.get(_ORIENTATION, 1) != 1:
            steps.append(f"orientation {tags[_ORIENTATION]}")
        # TIFF 6.0, section 3: 0 is WhiteIsZero. Pillow turns 8 bits and less by itself.
        white_is_zero = tags.get(_PHOTOMETRIC) == 0 and stored_mode not in ("1", "L", "P")
    if values.dtype != np.uint8:
        values, step = grayscale.over_depth(values)
        steps.append(step)
    if white_is_zero:
        values = 255 - values
        steps.append("inverted")
    if orientation != 1:
        values = np.ascontiguousarray(jpeg.turn(values, orientation))
        steps.append(f"EXIF orientation {orientation}")
    return grayscale.finish(values, steps)


def _grey(image: Image.Image) -> tuple[NDArray[Any], list[str]]:
    """One plane as stored: uint8, or 16-bit, 32-bit and float samples as they are."""
    mode = image.mode
    if mode == "L" or mode.startswith("I") or mode == "F":
        return np.asarray(image), []
    if mode == "1":
        return np.asarray(image.convert("L")), []
    if mode == "LA":
        return np.asarray(image.getchannel(0)), ["transparency ignored"]
    steps = ["transparency ignored"] if mode in ("RGBA", "PA") else []
    if mode in ("P", "PA"):
        return np.asarray(image.convert("RGB").convert("L")), [*steps, "palette", "luma"]
    if mode in ("RGB", "RGBA", "RGBX"):
        return np.asarray(image.convert("L")), [*steps, "luma"]
    return np.asarray(image.convert("RGB").convert("L")), [*steps, "luma"]
