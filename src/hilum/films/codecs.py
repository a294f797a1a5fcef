"""DICOM's transfer syntaxes: which decoder takes which, and one frame of stored values.

Decoders are libjpeg-turbo, GDCM, CharLS, OpenJPEG and pydicom's own, all under BSD or MIT
licences. There is one for each syntax and no second try: two decoders that disagree would give
one film two answers.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import (
    encapsulate,
    generate_fragments,
    generate_frames,
    parse_basic_offsets,
)
from pydicom.pixels import get_decoder

from hilum.errors import UnreadableFilm
from hilum.films import jpeg

# Transfer syntax (PS3.5, A.4 and annex 10) → pydicom's name of the plugin that decodes it.
DECODERS: dict[uid.UID, str] = {
    uid.ImplicitVRLittleEndian: "",
    uid.ExplicitVRLittleEndian: "",
    uid.ExplicitVRBigEndian: "",
    uid.DeflatedExplicitVRLittleEndian: "",
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "gdcm",  # red, green and blue; the rest is for libjpeg-turbo
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}

_JPEG_FAMILY = frozenset(
    (
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
    )
)
_JPEG_2000 = frozenset(
    (uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)
)

# PS3.3, C.7.6.3.1.2, with what older editions had.
PHOTOMETRIC = (
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "XYB"),
    *("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"),
)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn whatever pydicom raises on broken data into ``UnreadableFilm``, and keep it quiet.

    It parses on access, so nearly any line may raise nearly anything; its warnings and log lines
    quote values of the header.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UnreadableFilm, AssertionError):
        raise
    except MemoryError:
        raise UnreadableFilm("too-large", "it needs more memory than is allowed") from None
    except Exception:  # its text may quote the header, so it is not passed on
        raise UnreadableFilm("corrupt", "its header contradicts itself or is broken") from None
    finally:
        logger.setLevel(level)


@cache
def _silence_gdcm() -> None:
    try:
        import gdcm
    except ImportError:
        return
    gdcm.Trace.DebugOff()
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()


def first_frame(ds: Dataset, syntax: uid.UID, least: int = 0) -> NDArray[Any]:
    """Stored values of the first frame: (h, w), or (h, w, 3) as RGB where there is colour.

    An 8-bit JPEG comes from the very decoder that takes JPEG files, as its luma plane alone,
    perhaps at a power of two below full size, both sides at least ``least``.

    Raises
    ------
    UnreadableFilm
        ``no-pixels``, ``unsupported``, ``truncated``, ``corrupt``.
    """
    if syntax not in DECODERS:
        raise UnreadableFilm("unsupported", "its transfer syntax has no decoder here")
    if ds.PhotometricInterpretation not in PHOTOMETRIC:
        raise UnreadableFilm("unsupported", "its photometric interpretation is unknown")
    grey = str(ds.PhotometricInterpretation).startswith("MONOCHROME")
    if syntax.is_encapsulated:
        frame = _check_frame(ds, syntax)
        if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
            header = jpeg.read_header(frame)
            # Without YBR in its label colour may be stored as red, green and blue.
            if header.bits == 8 and (grey or ds.PhotometricInterpretation.startswith("YBR")):
                return jpeg.decode(frame, header, least)
            if grey and header.bits == 12:
                return _twelve_bits(frame, header, syntax)
        elif syntax == uid.RLELossless and ds.BitsAllocated == 1:
            raise UnreadableFilm("unsupported", "its layout of pixels has no decoder here")
        if int(ds.NumberOfFrames) == 1:  # pydicom would go by a wrong offset table
            ds.PixelData = encapsulate([frame], has_bot=False)
        _silence_gdcm()
    else:
        _check_length(ds)
    try:
        # Its correction of unused bits would wrap values that a codestream has over the bits.
        options: Any = {"correct_unused_bits": False, "view_only": True}
        values, _ = get_decoder(syntax).as_array(
            ds, index=0, raw=grey, decoding_plugin=DECODERS[syntax], **options
        )
    except MemoryError:
        raise UnreadableFilm("too-large", "the picture needs more memory than allowed") from None
    except NotImplementedError:
        raise UnreadableFilm("unsupported", "its layout of pixels has no decoder here") from None
    except Exception:  # a codec may raise anything on broken data, and quote what it likes
        raise UnreadableFilm("corrupt", "its coded pixels are broken") from None
    return values


def _twelve_bits(frame: bytes, header: jpeg.JpegHeader, syntax: uid.UID) -> NDArray[Any]:
    """A grey JPEG of 12 bits by GDCM itself, which pydicom does not ask for it.

    GDCM's values are right (python-gdcm#35); on the films of both kinds at hand they stay within
    JPEG's loss of the lossless twin.
    """
    import gdcm

    _silence_gdcm()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.width, header.height, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    kind = gdcm.TransferSyntax.GetTSType(str(syntax))
    image.SetTransferSyntax(gdcm.TransferSyntax(kind))
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    decoded = image.GetBuffer()
    values = np.frombuffer((decoded or "").encode("utf-8", "surrogateescape"), "<u2")
    if values.size != header.width * header.height:
        raise UnreadableFilm("corrupt", "its coded pixels are broken")
    return values.reshape(header.height, header.width)


def _check_length(ds: Dataset) -> None:
    """Native pixel data (PS3.5, 8.1) must hold what rows, columns and bits ask for."""
    samples = int(ds.SamplesPerPixel)
    bits = int(ds.Rows) * int(ds.Columns) * samples * int(ds.BitsAllocated)
    if ds.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in ds and 8 * len(ds[keyword].value or b"") < bits:
            raise UnreadableFilm("truncated", "there are fewer pixels than its header states")


def _frames(data: bytes, count: int) -> Iterator[bytes]:
    """Encapsulated frames (PS3.5, A.4).

    Where there is one, all fragments are its own, whatever an offset table says.
    """
    if count > 1:
        yield from generate_frames(data, number_of_frames=count)
        return
    stream = io.BytesIO(data)
    parse_basic_offsets(stream)
    fragments = list(generate_fragments(stream))
    if fragments:
        yield b"".join(fragments)


def _check_frame(ds: Dataset, syntax: uid.UID) -> bytes:
    """The first encapsulated frame, whole and of the size that the header states."""
    try:
        frame = next(_frames(ds.PixelData, int(ds.NumberOfFrames)))
    except StopIteration:
        raise UnreadableFilm("no-pixels", "there are no pixels in it") from None
    except Exception:
        raise UnreadableFilm("corrupt", "its coded pixels are broken") from None
    if syntax in _JPEG_FAMILY:
        if frame[:2] != b"\xff\xd8":
            raise UnreadableFilm("corrupt", "its coded pixels are not of its transfer syntax")
        header = jpeg.read_header(frame)
        size, planes = (header.width, header.height), header.components
    elif syntax in _JPEG_2000:
        start = frame.find(b"\xff\x4f\xff\x51", 0, 1 << 16)  # SOC and SIZ, perhaps behind JP2 boxes
        if start < 0 or len(frame) < start + 42:
            raise UnreadableFilm("corrupt", "its coded pixels are not of its transfer syntax")
        right, bottom, left, top = (
            int.from_bytes(frame[at : at + 4], "big") for at in range(start + 8, start + 24, 4)
        )
        size = (right - left, bottom - top)
        planes = int.from_bytes(frame[start + 40 : start + 42], "big")
    else:
        return frame
    if size != (int(ds.Columns), int(ds.Rows)):
        raise UnreadableFilm("corrupt", "its header and its coded pixels disagree on the size")
    if planes != int(ds.SamplesPerPixel):
        raise UnreadableFilm("corrupt", "its header and its coded pixels disagree on colour")
    if b"\xff\xd9" not in frame.rstrip(b"\0")[-3:]:  # EOI or EOC; one byte may pad it
        raise UnreadableFilm("truncated", "its coded pixels end too early")
    return frame
