"""DICOM files: what the header says, checked, and whether the film may be answered."""

from __future__ import annotations

import io
import zlib
from functools import partial

from pydicom import dcmread, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from hilum.errors import UnreadableFilm
from hilum.films import codecs, eligibility
from hilum.films.fields import age_in_years, first, orientation, whole, word
from hilum.films.limits import LIMITS
from hilum.films.presentation import present
from hilum.films.radiograph import Header, Pixels, Radiograph


def open_dicom(data: bytes, name: str) -> Radiograph:
    """A film from the bytes of a DICOM file; decodes nothing yet.

    What is not for a chest model (a lateral, a CT, a report) opens too, with ``refusals``.

    Raises
    ------
    UnreadableFilm
        ``truncated``, ``corrupt``, ``too-large``.
    """
    with codecs.guarded():
        ds = _parsed(data)
        refused = eligibility.refusals(ds)
        syntax = _syntax(ds)
        if any(reason.code == "no-pixels" for reason in refused):
            return Radiograph(name, data, "dicom", _header(ds, syntax), refused, _no_pixels)
        filled = _complete(ds, syntax)
        return Radiograph(
            name, data, "dicom", _header(ds, syntax), refused, partial(present, ds, syntax, filled)
        )


def _parsed(data: bytes) -> Dataset:
    _check_deflated(data)
    try:
        ds = dcmread(io.BytesIO(data), force=True)
        elements = [ds.get_item(tag) for tag in ds.keys()]  # noqa: SIM118 (values stay raw)
    except RecursionError:
        raise UnreadableFilm("corrupt", "its sequences are nested without end") from None
    except zlib.error:
        raise UnreadableFilm("truncated", "its deflated data end too early") from None
    except Exception:
        raise UnreadableFilm("corrupt", "its header is broken") from None
    if not elements:
        if len(data) > 400:
            raise UnreadableFilm("truncated", "it ends too early")
        raise UnreadableFilm("not-a-film", "there is nothing in it")
    for element in elements:
        if (
            isinstance(element, RawDataElement)
            and element.length != 0xFFFFFFFF
            and len(element.value or b"") < element.length
        ):
            raise UnreadableFilm("truncated", "it ends too early")
    if _depth(ds) > LIMITS.nesting:
        raise UnreadableFilm("corrupt", "its sequences are nested too deeply")
    return ds


def _check_deflated(data: bytes) -> None:
    """Inflate a deflated file (PS3.5, A.5) once in pieces, so that a bomb is found out."""
    head = data[:2048]
    if uid.DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    if head[128:132] != b"DICM":
        return
    length = int.from_bytes(head[140:144], "little")  # (0002,0000), the first element
    engine, total, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[144 + length :]
    try:
        while rest and not engine.eof:
            total += len(engine.decompress(rest, 16 << 20))
            LIMITS.check_bytes(total)
            rest = engine.unconsumed_tail
    except zlib.error:
        raise UnreadableFilm("corrupt", "its deflated data are broken") from None
    if not engine.eof:
        raise UnreadableFilm("truncated", "its deflated data end too early")


def _depth(ds: Dataset, level: int = 0) -> int:
    """How deep sequences lie within each other; looks only at those that are parsed already."""
    if level > LIMITS.nesting:
        return level
    deepest = level
    for tag in ds.keys():  # noqa: SIM118
        element = ds.get_item(tag)
        if element is not None and element.VR == "SQ" and not isinstance(element, RawDataElement):
            for item in element.value or ():
                deepest = max(deepest, _depth(item, level + 1))
    return deepest


def _syntax(ds: Dataset) -> uid.UID:
    """The transfer syntax; where the meta header is missing, the one it was read by."""
    stated = getattr(ds, "file_meta", {}).get("TransferSyntaxUID")
    if stated:
        return uid.UID(str(stated))
    implicit, little = ds.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _complete(ds: Dataset, syntax: uid.UID) -> tuple[str, ...]:
    """State what decoders ask for and writers forget; check the size before any decoding.

    Returns
    -------
    filled : what was taken for a missing value that changes pixels, in words
    """
    filled = []
    rows, columns = whole(ds, "Rows"), whole(ds, "Columns")
    if rows is None or columns is None:
        raise UnreadableFilm("corrupt", "its header does not state rows and columns")
    LIMITS.check_pixels(columns, rows)
    samples = whole(ds, "SamplesPerPixel") or 1
    ds.SamplesPerPixel = samples
    ds.NumberOfFrames = max(1, whole(ds, "NumberOfFrames") or 1)
    ds.PhotometricInterpretation = word(ds, "PhotometricInterpretation")
    if not ds.PhotometricInterpretation:
        ds.PhotometricInterpretation, step = _photometric(ds, samples)
        filled.append(step)
    if "PixelData" not in ds:
        return tuple(filled)
    stated, high = whole(ds, "BitsStored"), whole(ds, "HighBit")
    # PS3.5, 8.1.1: the high bit is one less than the bits stored.
    told = stated or (high + 1 if high is not None and high > 0 else None)
    allocated = whole(ds, "BitsAllocated") or (8 if (told or 8) <= 8 else 16)
    bits = stated or (told if told and told <= allocated else allocated)
    if not (0 < bits <= allocated and allocated in (1, 8, 16, 32, 64)):
        raise UnreadableFilm("corrupt", "its header states impossible bits")
    if not stated:
        filled.append(f"{bits} bits by its high bit" if bits == told else f"{bits} bits assumed")
    ds.BitsAllocated, ds.BitsStored = allocated, bits
    ds.HighBit = high if high is not None and bits - 1 <= high < allocated else bits - 1
    ds.PixelRepresentation = 1 if whole(ds, "PixelRepresentation") == 1 else 0
    if samples > 1 and (syntax.is_encapsulated or whole(ds, "PlanarConfiguration") is None):
        ds.PlanarConfiguration = 0  # what is coded has its own order (PS3.5, 8.2)
    return tuple(filled)


def _photometric(ds: Dataset, samples: int) -> tuple[str, str]:
    """A missing Photometric Interpretation, and where it was taken from, in words.

    PS3.3, C.8.11.3 and C.11.6.1.2: Presentation LUT Shape INVERSE goes with MONOCHROME1 alone,
    IDENTITY with MONOCHROME2.
    """
    shape = word(ds, "PresentationLUTShape")
    if samples == 1 and shape in ("IDENTITY", "INVERSE"):
        found = "MONOCHROME1" if shape == "INVERSE" else "MONOCHROME2"
        return found, f"{found} by its presentation shape"
    found = "MONOCHROME2" if samples == 1 else "RGB"
    return found, f"{found} assumed"


def _header(ds: Dataset, syntax: uid.UID) -> Header:
    def text(keyword: str) -> str | None:
        value = first(ds, keyword)
        return str(value).strip(" \0") or None if value is not None else None

    width, height = whole(ds, "Columns") or 0, whole(ds, "Rows") or 0
    rows, columns = orientation(ds)
    if rows[:1] in ("H", "F") and columns[:1] in ("L", "R"):
        width, height = height, width
    sex = word(ds, "PatientSex")
    colour = word(ds, "PhotometricInterpretation")
    return Header(
        width=width,
        height=height,
        bits=whole(ds, "BitsStored") or 8,
        colour=colour if not colour or colour in codecs.PHOTOMETRIC else "unknown",
        modality=eligibility.modality(ds),
        view=eligibility.view(ds),
        body_part=word(ds, "BodyPartExamined") or None,
        age=age_in_years(ds),
        sex=sex if sex in ("M", "F", "O") else None,
        patient=text("PatientID"),
        study=text("StudyInstanceUID"),
        series=text("SeriesInstanceUID"),
        instance=text("SOPInstanceUID"),
        compression="private" if syntax.is_private else syntax.name if syntax.type else "unknown",
    )


def _no_pixels(least: int) -> Pixels:
    raise UnreadableFilm("no-pixels", "there are no pixels in it")
