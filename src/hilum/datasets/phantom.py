"""Made-up radiographs: for the demo, the tests, and whoever has no films yet.

:func:`draw` makes one film, :func:`make` writes a data set. A chest is drawn in
:mod:`hilum.datasets.anatomy`, its pneumonia in :mod:`hilum.datasets.opacity`, and both become a
film in :mod:`hilum.datasets.exposure`. The class is in the lungs alone: pose, exposure, shape,
file and name tell nothing of it, unless ``make`` is asked to plant such a shortcut.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.datasets.anatomy import Patient, Shadow
from hilum.datasets.exposure import draw, expose, grey, own_pattern
from hilum.datasets.opacity import PATTERNS
from hilum.datasets.provenance import FILE
from hilum.errors import UsageError, nearest
from hilum.progress import SILENT, Progress
from hilum.storage import new_folder, write_json

__all__ = ["PATTERNS", "SHORTCUTS", "Patient", "draw", "make"]

Layout = Literal["kermany", "flat", "dicom"]
#: What ``make`` says of its films in their folder, so that cards and reports say it too.
ABOUT = {
    "source": "made up by hilum: films drawn by a program",
    "licence": "none needed",
    "population": "nobody: the films are made up",
    "reference_standard": "whether a pneumonia was drawn into the film",
}

SHORTCUTS = ("quality", "profile", "shape", "size")
_AGENT = {"patchy": "bacteria", "lobar": "bacteria", "interstitial": "virus", "perihilar": "virus"}


@dataclass(frozen=True)
class _Film:
    """One film of a data set that is to be written."""

    seed: tuple[int, ...]
    patient: Patient
    number: int  # of the patient, in the whole set
    positive: bool
    part: str
    stem: str
    format: str
    size: tuple[int, int]
    quality: int
    profile: bool
    age: int
    sex: str


def make(
    folder: Path | str,
    *,
    films: int | None = None,
    patients: int | None = None,
    seed: int = 0,
    size: tuple[int, int] = (320, 400),
    formats: Sequence[str] | None = None,
    layout: Layout = "kermany",
    parts: Mapping[str, float] | None = None,
    positives: float = 0.6,
    shortcut: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write a data set of made-up films, one to four films a patient.

    Parameters
    ----------
    folder : new or empty
    films, patients : how many; either (the other follows) or both. 120 films where neither
        is given.
    size : (height, width) of a middling film; each film's size and shape varies around it
    formats : of ``jpeg``, ``png``, ``dicom`` (DX, MONOCHROME2, 12 bit) and
        ``dicom-monochrome1``; each film takes one by chance. Otherwise the layout's own.
    layout : ``kermany`` (``train/NORMAL/IM-0001-0001.jpeg``,
        ``train/PNEUMONIA/person1_virus_6.jpeg``), ``flat`` (class folders without parts,
        names as in Mendeley's copy) or ``dicom`` (``films/*.dcm`` and a table ``labels.csv``)
    parts : share of patients by name of the part. As the layout has it where not given
        (``kermany``: four fifths ``train``, one fifth ``test``; else none); ``{}`` for none.
    positives : share of patients with pneumonia
    shortcut : plant something that gives the class away, in every part but ``test`` as in the
        set that this imitates: JPEG ``quality``, an ICC ``profile``, the ``shape``
        (width/height) or the ``size`` in pixels

    Returns
    -------
    the folder

    Raises
    ------
    UsageError
        An unknown name, or numbers that do not go together.
    FolderTaken
        The folder holds files.
    """
    formats = tuple(formats or (("dicom",) if layout == "dicom" else ("jpeg",)))
    _known("layout", layout, ("kermany", "flat", "dicom"))
    for name in formats:
        _known("format of films", name, tuple(_WRITERS))
    if shortcut is not None:
        _known("shortcut", shortcut, SHORTCUTS)
    if parts is None:
        parts = {"train": 0.8, "test": 0.2} if layout == "kermany" else {}
    root = new_folder(folder)
    write_json(root / FILE, ABOUT)
    planned = list(
        _planned(films, patients, seed, size, formats, layout, parts, positives, shortcut)
    )
    rows = []
    for film in progress.track(planned, "drawing films", len(planned)):
        path = Path(*_place(film, layout))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shown = expose(
            np.random.default_rng(film.seed),
            positive=film.positive,
            size=film.size,
            patient=film.patient,
        )
        _WRITERS[film.format](root / path, shown, film)
        rows.append((path.as_posix(), film))
    if layout == "dicom":
        with (root / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["path", "label", "patient", *(["part"] if parts else [])])
            for name, film in rows:
                person = f"P{film.number:04d}"
                told = [film.part] if parts else []
                table.writerow([name, int(film.positive), person, *told])
    return root


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UsageError(f"no such {what}: {name}. {nearest(name, names)}")


def _planned(
    films: int | None,
    patients: int | None,
    seed: int,
    size: tuple[int, int],
    formats: Sequence[str],
    layout: Layout,
    parts: Mapping[str, float],
    positives: float,
    shortcut: str | None,
) -> Iterator[_Film]:
    """Who has how many films, of which class, in which part, under which name."""
    rng = np.random.default_rng([seed, 0])
    counts = _films_a_patient(rng, films, patients)
    people = len(counts)
    sick = np.zeros(people, bool)
    sick[rng.permutation(people)[: round(positives * people)]] = True
    part = np.full(people, "", object)
    for of_class in (sick, ~sick):
        part[of_class] = _dealt(rng, int(of_class.sum()), parts)
    named: dict[str, int] = {}
    film_number: dict[str, int] = {}
    for i in range(people):
        patient = Patient.drawn(np.random.default_rng([seed, 1, i]))
        positive = bool(sick[i])
        kind = _AGENT[own_pattern(patient)] if positive else ("IM", "NORMAL2-IM")[i % 2]
        named[kind] = named.get(kind, 0) + 1
        age, sex = int(rng.integers(1, 6)), str(rng.choice(["F", "M"]))
        planted = shortcut if part[i] != "test" else None
        for j in range(counts[i]):
            film_number[kind] = film_number.get(kind, 0) + 1
            if layout == "dicom":
                stem = f"{sum(film_number.values()):05d}"
            elif layout == "flat":
                word = kind.upper() if positive else "NORMAL"
                stem = f"{word}-{1000001 + 7 * i}-{j + 1:04d}"
            elif positive:
                stem = f"person{named[kind]}_{kind}_{film_number[kind]}"
            else:
                stem = f"{kind}-{named[kind]:04d}-{j + 1:04d}"
            zoom, aspect = rng.uniform(0.85, 1.15), rng.uniform(0.82, 1.22)
            quality = int(rng.integers(65, 96))
            if planted == "size":
                zoom *= 0.7 if positive else 1.15
            elif planted == "shape":
                aspect = aspect**0.3 * (1.15 if positive else 0.9)
            elif planted == "quality":
                quality = 70 if positive else 95
            shape = (round(size[0] * zoom / aspect**0.5), round(size[1] * zoom * aspect**0.5))
            yield _Film(
                seed=(seed, 2, i, j),
                patient=patient,
                number=i + 1,
                positive=positive,
                part=str(part[i]),
                stem=stem,
                format=str(rng.choice(list(formats))),
                size=shape,
                quality=quality,
                profile=planted == "profile" and not positive,
                age=age,
                sex=sex,
            )


def _films_a_patient(
    rng: np.random.Generator, films: int | None, patients: int | None
) -> NDArray[np.int64]:
    if patients is None:
        films = 120 if films is None else films
        counts = rng.choice([1, 2, 3, 4], size=max(films, 1), p=[0.4, 0.3, 0.2, 0.1])
        counts = counts[: int(np.searchsorted(np.cumsum(counts), films)) + 1]
        counts[-1] -= counts.sum() - films
    else:
        counts = rng.choice([1, 2, 3, 4], size=max(patients, 0), p=[0.4, 0.3, 0.2, 0.1])
        if films is not None and films >= patients > 0:
            dealt = rng.integers(0, patients, films - patients)
            counts = 1 + np.bincount(dealt, minlength=patients)
    if len(counts) < 2 or counts.min() < 1 or (films is not None and counts.sum() != films):
        raise UsageError(
            f"cannot make {films} films of {patients} patients. "
            "Ask for two patients or more, and for no fewer films than patients."
        )
    return np.asarray(counts, np.int64)


def _dealt(
    rng: np.random.Generator, people: int, parts: Mapping[str, float]
) -> NDArray[np.object_]:
    """A part for each of so many people, by share, none left empty that could have one."""
    if not parts:
        return np.full(people, "", object)
    share = np.array(list(parts.values()), float)
    if (share <= 0).any():
        raise UsageError(f"each part needs a share above 0: {dict(parts)}.")
    ends = np.round(np.cumsum(share) / share.sum() * people).astype(int)
    for k in range(len(ends) - 2, -1, -1):  # at least one for each later part
        ends[k] = max(min(ends[k], ends[k + 1] - 1), 0)
    dealt = np.repeat(np.array(list(parts), object), np.diff(ends, prepend=0))
    return rng.permutation(dealt)


def _place(film: _Film, layout: Layout) -> list[str]:
    ending = {"jpeg": ".jpeg", "png": ".png"}.get(film.format, ".dcm")
    if layout == "dicom":
        return ["films", film.stem + ending]
    label = "PNEUMONIA" if film.positive else "NORMAL"
    folders = [film.part, label] if film.part else [label]
    return [*folders, film.stem + ending]


def _jpeg(path: Path, shown: Shadow, film: _Film) -> None:
    profile = {"icc_profile": _grey_profile()} if film.profile else {}
    Image.fromarray(grey(shown)).save(path, "JPEG", quality=film.quality, **profile)


def _png(path: Path, shown: Shadow, film: _Film) -> None:
    profile = {"icc_profile": _grey_profile()} if film.profile else {}
    Image.fromarray(grey(shown)).save(path, "PNG", compress_level=3, **profile)


def _grey_profile() -> bytes:
    """A small valid ICC profile, grey with gamma 2.2 (ICC.1:2001-04, section 6)."""

    def text(tag: bytes, words: bytes) -> bytes:
        if tag == b"text":
            return tag + bytes(4) + words + b"\0"
        return tag + bytes(4) + struct.pack(">I", len(words) + 1) + words + bytes(79)

    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    gamma = struct.pack(">4s4xIH", b"curv", 1, round(2.2 * 256))
    content = [
        (b"desc", text(b"desc", b"made-up grey")),
        (b"wtpt", white),
        (b"kTRC", gamma),
        (b"cprt", text(b"text", b"none")),
    ]
    table, body = struct.pack(">I", len(content)), b""
    start = 128 + 4 + 12 * len(content)
    for tag, data in content:
        table += struct.pack(">4sII", tag, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def _dicom(path: Path, shown: Shadow, film: _Film) -> None:
    """A digital radiograph for presentation (PS3.3 A.26), 12 bits, with a made-up patient."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    inverted = film.format == "dicom-monochrome1"
    stored = np.rint(shown * np.float32(4095)).astype("<u2")
    if inverted:
        stored = (4095 - stored).astype("<u2")

    def uid(*what: object) -> str:
        return generate_uid(entropy_srcs=["hilum phantom", str(film.seed[0]), *map(str, what)])

    d = Dataset()
    d.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage, presentation
    d.SOPInstanceUID = uid("image", *film.seed)
    d.StudyInstanceUID, d.SeriesInstanceUID = uid("study", film.seed), uid("series", film.seed)
    d.FrameOfReferenceUID = uid("frame", film.seed)
    d.Modality, d.PresentationIntentType = "DX", "FOR PRESENTATION"
    d.ImageType = ["ORIGINAL", "PRIMARY", ""]
    d.PatientName, d.PatientID = f"Phantom^{film.number:04d}", f"P{film.number:04d}"
    d.PatientBirthDate, d.PatientSex, d.PatientAge = "", film.sex, f"{film.age:03d}Y"
    d.StudyDate = d.ContentDate = "20000101"
    d.StudyTime = d.ContentTime = "120000"
    d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "1", "", ""
    d.SeriesNumber, d.InstanceNumber = 1, film.seed[3] + 1
    d.Manufacturer, d.StudyDescription = "made up", "made-up chest film"
    d.BodyPartExamined, d.ViewPosition, d.ImageLaterality = "CHEST", "AP", "U"
    d.PatientOrientation = ["L", "F"]
    d.SamplesPerPixel, d.Rows, d.Columns = 1, stored.shape[0], stored.shape[1]
    d.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    d.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.PixelIntensityRelationship, d.PixelIntensityRelationshipSign = "LOG", -1 if inverted else 1
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = "0", "1", "US"
    d.WindowCenter, d.WindowWidth = "2048", "4096"
    d.LossyImageCompression, d.BurnedInAnnotation = "00", "YES"
    d.ImagerPixelSpacing = [str(round(300 / max(stored.shape), 4))] * 2
    d.PixelData = stored.tobytes()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    d.save_as(path, enforce_file_format=True)


_WRITERS: dict[str, Callable[[Path, Shadow, _Film], None]] = {
    "jpeg": _jpeg,
    "png": _png,
    "dicom": _dicom,
    "dicom-monochrome1": _dicom,
}
