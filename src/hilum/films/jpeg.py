"""JPEG: the header, and the luma plane by libjpeg-turbo, at full size or a power of two below.

A grey JPEG and the Y of a colour one are the same thing (JFIF's Y is ITU-R BT.601 luma), so grey
is taken straight from the luma plane and colour is never rebuilt. Other files are weighed by the
same BT.601 luma.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from hilum.errors import UnreadableFilm
from hilum.films.limits import LIMITS

_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}  # F7: JPEG-LS
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF, 0xF7))


@dataclass(frozen=True)
class JpegHeader:
    """Attributes
    ----------
    width, height : as stored, before any orientation
    bits : precision of a sample
    components : 1 grey, 3 colour, 4 CMYK
    process : the frame marker's low byte (0xC0 baseline, 0xC2 progressive, ...)
    orientation : EXIF, 1 to 8
    """

    width: int
    height: int
    bits: int
    components: int
    process: int
    orientation: int = 1

    @property
    def colour(self) -> str:
        return {1: "L", 3: "YCbCr", 4: "CMYK"}.get(self.components, str(self.components))


def read_header(data: bytes) -> JpegHeader:
    """Walk the marker segments up to the first scan (ITU-T T.81, B.1 and B.2).

    Raises
    ------
    UnreadableFilm
        ``truncated``, ``corrupt`` or ``too-large``.
    """
    position, end, orientation = 2, len(data), 1
    frame: tuple[int, int, int, int, int] | None = None
    while True:
        if position + 4 > end:
            raise UnreadableFilm("truncated", "the JPEG ends within its header")
        if data[position] != 0xFF:
            raise UnreadableFilm("corrupt", "the JPEG's header is broken")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker == 0xD9:
            raise UnreadableFilm("truncated", "the JPEG ends before its picture")
        if marker == 0xDA:
            break
        length = data[position + 2] << 8 | data[position + 3]
        body = position + 4
        if length < 2:
            raise UnreadableFilm("corrupt", "the JPEG's header is broken")
        if body + length - 2 > end:
            raise UnreadableFilm("truncated", "the JPEG ends within its header")
        if marker in _FRAMES:
            if length < 8:
                raise UnreadableFilm("corrupt", "the JPEG's header is broken")
            bits, height, width, components = struct.unpack_from(">BHHB", data, body)
            frame = (width, height, bits, components, marker)
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[body + 6 : body + length - 2])
        position = body + length - 2
    if frame is None:
        raise UnreadableFilm("corrupt", "the JPEG has no frame header")
    header = JpegHeader(*frame, orientation=orientation)
    LIMITS.check_pixels(header.width, header.height)
    # Within coded data FF is never followed by DA (T.81, B.1.1.5), so this counts the scans.
    if header.process in _PROGRESSIVE and data.count(b"\xff\xda", position) > LIMITS.scans:
        raise UnreadableFilm("too-large", f"the JPEG has more than {LIMITS.scans} scans")
    return header


def exif_orientation(block: bytes) -> int:
    """Tag 0x0112 of an EXIF block's first directory; 1 where it is absent or broken."""
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, 200), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, entry)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


def turn(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Show stored rows as EXIF's orientation says (EXIF 2.32, 4.6.4 A, tag Orientation)."""
    if orientation >= 5:
        values = values.T
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def scale_for(header: JpegHeader, least: int) -> int:
    """The largest of 8, 4, 2, 1 that leaves both sides at ``least`` pixels or more."""
    if least <= 0:
        return 1
    for factor in (8, 4, 2):
        if min(-(-header.width // factor), -(-header.height // factor)) >= least:
            return factor
    return 1


def decode(data: bytes, header: JpegHeader, least: int = 0) -> NDArray[np.uint8]:
    """The luma plane, (height, width) uint8 as stored, divided by ``scale_for(header, least)``.

    libjpeg only warns of a broken or cut file and goes on with grey; here each such warning is
    an error.

    Raises
    ------
    UnreadableFilm
        ``truncated``, ``corrupt`` or ``unsupported``.
    """
    if header.bits != 8 or header.process in _LOSSLESS:
        raise UnreadableFilm(
            "unsupported", f"a JPEG of {header.bits} bits or without loss is read only in DICOM"
        )
    if header.components not in (1, 3):
        return _decode_by_pillow(data)
    factor = scale_for(header, least)
    try:
        # With these least sides exactly 1/factor is chosen, never an odd eighth.
        values = simplejpeg.decode_jpeg(
            data,
            "GRAY",
            min_height=-(-header.height // factor),
            min_width=-(-header.width // factor),
        )
    except ValueError as error:
        text = str(error).lower()
        if "premature end" in text:
            raise UnreadableFilm("truncated", "the JPEG ends before its last line") from None
        if "conversion" in text or "unsupported" in text or "not implemented" in text:
            return _decode_by_pillow(data)
        raise UnreadableFilm("corrupt", "the JPEG's coded data are broken") from None
    return values[:, :, 0]


def _decode_by_pillow(data: bytes) -> NDArray[np.uint8]:
    """Whatever libjpeg-turbo cannot turn to grey by itself: CMYK, YCCK, odd component sets."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB").convert("L"))
    except OSError as error:
        if "truncated" in str(error):
            raise UnreadableFilm("truncated", "the JPEG ends before its last line") from None
        raise UnreadableFilm("corrupt", "the JPEG's coded data are broken") from None
    except (ValueError, SyntaxError, TypeError, EOFError):
        raise UnreadableFilm("corrupt", "the JPEG's coded data are broken") from None
