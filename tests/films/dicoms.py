"""DICOM films for tests, built in memory: any pixels, any header, any transfer syntax."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

CR = uid.ComputedRadiographyImageStorage
DX = uid.DigitalXRayImageStorageForPresentation
SC = uid.SecondaryCaptureImageStorage


def chest(height: int = 96, width: int = 80, bits: int = 12, seed: int = 0) -> np.ndarray:
    """A smooth thing with dark lungs and some noise, over most of the range of ``bits``."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height, x / width
    shade = 0.25 + 0.5 * y + 0.25 * np.exp(-(((x - 0.5) / 0.12) ** 2))
    for side in (0.27, 0.73):
        shade -= 0.45 * np.exp(-(((x - side) / 0.14) ** 2) - ((y - 0.45) / 0.25) ** 2)
    shade += np.random.default_rng(seed).normal(0, 0.01, shade.shape)
    top = (1 << bits) - 1
    return np.clip(shade * top, 0, top).astype(np.uint8 if bits <= 8 else np.uint16)


def pattern(height: int, width: int, bits: int) -> np.ndarray:
    """Waves and a little roughness by integers alone, so the same on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.abs((3 * x + 2 * y) % 256 - 128) * 3 + np.abs((x - 2 * y) % 180 - 90) * 4
    rough = (x * 73 + y * 151 + x * y) % 23
    whole = (waves + rough) * 85  # 0 to 65,280
    return (whole >> (16 - bits)).astype(np.uint8 if bits <= 8 else np.uint16)


def header(pixels: np.ndarray, sop: str = DX, **elements: Any) -> FileDataset:
    """A frontal chest film's data set; keywords replace elements, None removes them."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop, "1.2.3.4"
    ds.Modality = {CR: "CR", DX: "DX"}.get(sop, "CR")
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
    ds.PatientOrientation = ["L", "F"]
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    bits = elements.pop("BitsStored", 8 if pixels.dtype.itemsize == 1 else 12)
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def file(ds: FileDataset) -> bytes:
    """The data set as the bytes of a file."""
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def film(pixels: np.ndarray, sop: str = DX, **elements: Any) -> bytes:
    return file(header(pixels, sop, **elements))


def table(first: int, data: np.ndarray, bits: int) -> Sequence:
    """The one item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    entries = len(data) if len(data) < 1 << 16 else 0
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [entries, first, bits])
    item.add_new("LUTData", "OW", data.astype("<u2").tobytes())
    return Sequence([item])


def code(value: str, meaning: str, scheme: str = "SCT", **within: Any) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = value, meaning, scheme
    for keyword, content in within.items():
        setattr(item, keyword, content)
    return Sequence([item])


def encoded(ds: FileDataset, syntax: str) -> bytes:
    """The file in another transfer syntax, by whatever encoder there is for it."""
    import gdcm
    from PIL import Image

    syntax = uid.UID(syntax)
    if syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEG2000):
        more = {"j2k_cr": [4]} if syntax == uid.JPEG2000 else {}
        ds.compress(syntax, generate_instance_uid=False, **more)
        return file(ds)
    if not syntax.is_encapsulated:
        meta = ds.file_meta
        meta.TransferSyntaxUID = syntax
        implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
        if not little and ds.BitsAllocated == 16:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        again = FileDataset(
            None, dict(ds), ds.preamble, meta, is_implicit_VR=implicit, is_little_endian=little
        )
        again["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
        return file(again)
    if syntax == uid.JPEGBaseline8Bit:
        stream = io.BytesIO()
        shape = (ds.Rows, ds.Columns) + ((3,) if ds.SamplesPerPixel == 3 else ())
        pixels = np.frombuffer(ds.PixelData, np.uint8).reshape(shape)
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        ds.PixelData = encapsulate([stream.getvalue()])
        if ds.SamplesPerPixel == 3:
            ds.PhotometricInterpretation = "YBR_FULL_422"
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax
        return file(ds)
    # JPEG lossless and near-lossless JPEG-LS by GDCM, which goes from file to file.
    with tempfile.TemporaryDirectory() as folder:
        plain, coded = f"{folder}/plain.dcm", f"{folder}/coded.dcm"
        Path(plain).write_bytes(file(ds))
        reader = gdcm.ImageReader()
        reader.SetFileName(plain)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change(), f"GDCM cannot encode {syntax.name}"
        writer = gdcm.ImageWriter()
        writer.SetFileName(coded)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(coded).read_bytes()
