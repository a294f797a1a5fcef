"""What a file says beside its picture: profile, EXIF, quantiser. Nothing is decoded.

These facts come from scanner, archive and export, never from the lungs, so a class that they tell
is a shortcut (see :mod:`hilum.audit.probes`). A broken file yields what was found before the break.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Luminance quantiser of ITU-T T.81, table K.1, by rows: the one that libjpeg scales by quality.
_STANDARD = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
)  # fmt: skip

_ICC, _EXIF_DIRECTORY, _XMP = 34675, 34665, 700  # TIFF tags


def _zigzag() -> NDArray[np.intp]:
    """Place in a row-wise 8 × 8 table of each coefficient as a JPEG stores it (T.81, A.6)."""
    places = [(r, c) for r in range(8) for c in range(8)]
    places.sort(key=lambda p: (p[0] + p[1], p[0] if (p[0] + p[1]) % 2 else p[1]))
    return np.array([8 * r + c for r, c in places])


_ORDER = _zigzag()


@dataclass(frozen=True)
class FileFacts:
    """Attributes
    ----------
    size : bytes of the file
    profile : bytes of its ICC profile, 0 for none
    exif : bytes of its EXIF block, 0 for none
    metadata : bytes of all that is neither picture, table nor profile (EXIF, texts, comments)
    quantiser : 64 steps of the JPEG's luminance table by rows; empty elsewhere
    tables : quantiser tables in the file
    progressive : a progressive JPEG or an interlaced PNG
    """

    size: int
    profile: int = 0
    exif: int = 0
    metadata: int = 0
    quantiser: tuple[int, ...] = ()
    tables: int = 0
    progressive: bool = False

    @property
    def quality(self) -> float | None:
        """libjpeg's quality, 1 to 100, whose table comes nearest; None where there is none."""
        return nearest_quality(self.quantiser)[0] if self.quantiser else None

    @property
    def oddness(self) -> float | None:
        """How far the table is from libjpeg's at that quality: mean share of a step, 0 if equal."""
        return nearest_quality(self.quantiser)[1] if self.quantiser else None


def nearest_quality(quantiser: tuple[int, ...]) -> tuple[float, float]:
    """The quality of libjpeg's scaled standard table nearest to this one, and the distance.

    libjpeg's rule: scale = 5000 / q below 50, else 200 - 2 q; step = (standard · scale + 50) / 100
    in whole numbers, within 1 to 255.
    """
    away = np.abs(_BY_QUALITY - np.array(quantiser)).mean(1) / max(1.0, float(np.mean(quantiser)))
    best = int(np.argmin(away))
    return float(best + 1), float(away[best])


def _by_quality() -> NDArray[np.int64]:
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_STANDARD * scale[:, None] + 50) // 100, 1, 255)


_BY_QUALITY = _by_quality()


def file_facts(data: bytes, format: str) -> FileFacts:
    """Facts of an encoded file; of DICOM and arrays only the size.

    Parameters
    ----------
    format : as ``Radiograph.format``
    """
    if format == "jpeg":
        return _of_jpeg(data)
    if format == "png":
        return _of_png(data)
    return _of_tiff(data) if format == "tiff" else FileFacts(len(data))


def _of_jpeg(data: bytes) -> FileFacts:
    """Marker segments up to the first scan (ITU-T T.81, B.1 and B.2)."""
    profile = exif = metadata = tables = 0
    quantiser: tuple[int, ...] = ()
    progressive, position = False, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in (0xD9, 0xDA):
            break
        length = data[position + 2] << 8 | data[position + 3]
        body = data[position + 4 : position + 2 + length]
        if marker == 0xDB:
            for number, table in _quantisers(body):
                tables += 1
                if number == 0:
                    quantiser = table
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            if marker == 0xE2 and body[:12] == b"ICC_PROFILE\0":
                profile += len(body) - 14
            else:
                metadata += length
                exif += len(body) if marker == 0xE1 and body[:6] == b"Exif\0\0" else 0
        position += 2 + max(2, length)
    return FileFacts(len(data), profile, exif, metadata, quantiser, tables, progressive)


def _quantisers(body: bytes) -> list[tuple[int, tuple[int, ...]]]:
    """Tables of a DQT segment (T.81, B.2.4.1): number, and 64 steps by rows."""
    found, position = [], 0
    while position < len(body):
        wide, number = body[position] >> 4, body[position] & 15
        end = position + 1 + (128 if wide else 64)
        if end > len(body):
            break
        steps = np.frombuffer(body[position + 1 : end], ">u2" if wide else np.uint8)
        table = np.zeros(64, np.int64)
        table[_ORDER] = steps
        found.append((number, tuple(table.tolist())))
        position = end
    return found


def _of_png(data: bytes) -> FileFacts:
    """Chunks (Portable Network Graphics, 5.3 and 11.3)."""
    profile = exif = metadata = 0
    interlaced, position = False, 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if kind == b"IHDR" and len(body) == 13:
            interlaced = bool(body[12])
        elif kind == b"iCCP":
            profile = _inflated(body[body.find(b"\0") + 2 :])
        elif kind[:1].islower():  # not needed to show the picture
            metadata += length
            exif += length if kind == b"eXIf" else 0
        position += 12 + length
    return FileFacts(len(data), profile, exif, metadata, progressive=interlaced)


def _inflated(packed: bytes) -> int:
    try:
        return len(zlib.decompressobj().decompress(packed, 1 << 22))
    except zlib.error:
        return len(packed)


def _of_tiff(data: bytes) -> FileFacts:
    """The first directory of a classic TIFF (TIFF 6.0, section 2)."""
    tags: dict[int, int] = {}
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, 500), 12):
            tag, _, values = struct.unpack_from(order + "HHI", data, entry)
            tags[tag] = values
    except (KeyError, struct.error):
        pass
    profile, exif = tags.get(_ICC, 0), 12 if _EXIF_DIRECTORY in tags else 0
    return FileFacts(len(data), profile, exif, exif + tags.get(_XMP, 0))
