"""What a DICOM image means: which are frontal chest films, and why others are not answered.

Refusing is a matter of the header alone and never hinders reading. Each rule gives a reason with
a stable code; no rule quotes free text from the header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pydicom import uid
from pydicom.dataset import Dataset

from hilum.films.fields import AXES, UNSTATED, Code, codes, orientation, word, words
from hilum.films.radiograph import Reason

# PS3.3, C.7.3.1.1.1: projection radiographs of a detector or a plate; RF only as a still.
RADIOGRAPHS = ("CR", "DX", "RG", "RF")

_RADIOGRAPH_CLASSES = {
    uid.ComputedRadiographyImageStorage: "CR",
    uid.DigitalXRayImageStorageForPresentation: "DX",
    uid.DigitalXRayImageStorageForProcessing: "DX",
}

_MODALITIES = {
    "CT": "a computed tomography",
    "MR": "a magnetic resonance image",
    "US": "an ultrasound image",
    "IVUS": "an ultrasound image",
    "MG": "a mammogram",
    "XA": "an angiogram",
    "NM": "a nuclear medicine image",
    "PT": "a positron emission tomogram",
    "SR": "a structured report",
    "SEG": "a segmentation",
    "PR": "a presentation state",
    "KO": "a list of key images",
    "ECG": "an electrocardiogram",
    "RTDOSE": "a radiotherapy dose",
    "RTPLAN": "a radiotherapy plan",
    "RTSTRUCT": "a radiotherapy structure set",
    "RTIMAGE": "a radiotherapy image",
    "IO": "a dental film",
    "PX": "a panoramic dental film",
    "BMD": "a bone densitometry",
    "OPT": "an ophthalmic image",
    "OP": "an ophthalmic image",
    "ES": "an endoscopic image",
    "XC": "a photograph",
    "GM": "a microscopic image",
    "SM": "a microscopic image",
    "DOC": "a document",
}

# Patient examined or not: PS3.3, C.7.6.1.1.2 and C.8.11.3.1.1; words vendors put behind them.
_CAPTURED = re.compile(r"SCREEN|CAPTURE|REPORT|DOSE|COLLAGE|PRINT|SUMMARY|CHART|GRAPH\b|SLIDE")
_COMPUTED = re.compile(r"\bCAD\b|HEAT ?MAP|OVERLAY|RESULT|ANNOTAT|\bAI\b|PREDICTION|SALIENCY")
_DERIVED = re.compile(
    r"SUBTRACT|SUPPRESS|DUAL ?ENERGY|\bDES?\b|ENERGY|BONE|SOFT ?TISSUE|\bTISSUE|TOMO|\bMIP\b"
    r"|STITCH|COMPOSED|SYNTH"
)

# PS3.3, C.8.6.1, Conversion Type. WSD (workstation) is what archives of exported films carry,
# DF and SD are films that were digitised, DI came straight from a modality.
_CONVERSIONS = frozenset(("", "WSD", "DF", "SD", "DI"))

_CHEST = re.compile(
    r"CHEST|\bCHST|THORAX|\bTHX|TORAX|TORACE|THORACIC CAVITY|LUNG|\bCXR|PULMO|PECHO|TÓRAX|"
    r"POITRINE|BRUSTKORB"
)
# A region that is wider than the chest (PS3.16, annex L: CHESTABDOMEN) is not the chest.
_BESIDE_CHEST = re.compile(
    r"ABD|ADDOM|BAUCH|NECK|PELVIS|SPINE|RIB|BREAST|WALL|HEAD|SHOULDER|WHOLE|ENTIRE"
)
_CHEST_CODES = frozenset(
    # Thorax and its older codes, thoracic cavity, lung (PS3.16, CID 4009, annex L; SCT and SRT)
    ("816094009", "302551006", "51185008", "T-D3000", "43799004", "T-D3200", "39607008", "T-28000")
)
# Designators of the scheme that the standard's lists are of (PS3.16, 8.1): a code says it all.
_SNOMED = ("SCT", "SRT", "SNM3", "99SDM")

# PS3.16, CID 4010 DX View, SNOMED CT and the SRT codes of older files.
_VIEW_CODES = {
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("272479007", "R-10214", "R-40888"), "PA"),
    **dict.fromkeys(("399033003", "R-10202"), "FRONTAL"),
    **dict.fromkeys(("399198007", "R-10232"), "RL"),
    **dict.fromkeys(("399173006", "R-10236"), "LL"),
    **dict.fromkeys(("399067008", "R-102CD", "399352003", "R-10228"), "LATERAL"),
    **dict.fromkeys(("399260004", "R-10224", "30730003", "G-A145"), "LATERAL"),
    **dict.fromkeys(("399236003", "R-10234", "399356000", "R-40985"), "OBLIQUE"),
    **dict.fromkeys(("399184004", "R-10238", "399135007", "R-10220"), "OBLIQUE"),
    **dict.fromkeys(("399038007", "R-10210", "399006002", "R-10212"), "OBLIQUE"),
    **dict.fromkeys(("399182000", "R-102C1", "399160007", "R-10204"), "OBLIQUE"),
    **dict.fromkeys(("399312000", "R-10208", "399059000", "R-10216"), "OBLIQUE"),
    **dict.fromkeys(("260427002", "R-40783", "260426006", "R-40782"), "OBLIQUE"),
    **dict.fromkeys(("102535000", "102536004", "32185000"), "DECUBITUS"),
}
_DECUBITUS = re.compile(r"DECUB|\b[LR]LD\b")
_OBLIQUE = re.compile(r"OBL|\b[LR][AP]O\b|\b[LR]LO\b|\b[LR]O\b")
_LATERAL = re.compile(
    r"(?<![FIU])(?<!\bP)LAT|"  # not in flat, inflated, bilateral, modulated, plate
    r"\bLL\b|\bRL\b|\b[LR]L[LR]\b|XTABLE|CROSS ?TABLE|SWIMMER|\bML\b|\bLM\b"
)
_FRONTAL_VIEWS = ("AP", "PA", "FRONTAL")
_FRONTAL = re.compile(r"\bAP\b|\bPA\b|FRONTAL|ANTERO|POSTERO|\bLORDOTIC\b|ERECT|SUPINE|PORTABLE")

# Directions of a quadruped (PS3.3, C.7.6.1.1.1): left, right, dorsal, ventral, rostral, medial ...
_QUADRUPED = re.compile(r"(LE|RT|CR|CD|PR|DI|PA|PL|[DVRML])+")
_HUMAN = re.compile(r"HUMAN|HOMO SAPIENS|^PERSON$")
_ANIMAL = re.compile(r"CANINE|FELINE|EQUINE|BOVINE|AVIAN|VETERIN|\b(DOG|CAT|HORSE|RABBIT|BIRD)\b")


def refusals(ds: Dataset) -> tuple[Reason, ...]:
    """Why this image must not be answered as a chest film; empty for one that may be."""
    return tuple(reason for rule in _RULES for reason in rule(ds))


def modality(ds: Dataset) -> str | None:
    """Modality (0008,0060), ``unknown`` if not of a list; where it is empty, by the SOP class."""
    stated = word(ds, "Modality")
    if not stated:
        return _RADIOGRAPH_CLASSES.get(ds.get("SOPClassUID", ""))
    return stated if stated in (*RADIOGRAPHS, *_MODALITIES, "OT", "SC") else "unknown"


def view(ds: Dataset) -> str | None:
    """``AP``, ``PA``, ``FRONTAL``, ``LATERAL``, ``LL``, ``RL``, ``OBLIQUE``, ``DECUBITUS``.

    By View Code Sequence (0054,0220) and its modifiers and View Position (0018,5101), of which
    one that is not frontal wins; where they say nothing by the technique's name; else None.
    """
    found = [
        _VIEW_CODES.get(code.value) or _view_in_words(code.meaning)
        for code in codes(ds, "ViewCodeSequence", "ViewModifierCodeSequence")
    ]
    found.append(_view_in_words(word(ds, "ViewPosition")))
    if not any(found):
        found = [_view_in_words(name) for name in _technique(ds)]
    odd = [one for one in found if one and one not in _FRONTAL_VIEWS]
    known = odd + [one for one in _FRONTAL_VIEWS if one in found]
    return known[0] if known else None


def _technique(ds: Dataset) -> list[str]:
    """What the device called the examination: it names views and species where tags do not."""
    named = [word(ds, "AcquisitionDeviceProcessingDescription")]
    return named + [code.meaning for code in codes(ds, "PerformedProtocolCodeSequence")]


def _view_in_words(text: str) -> str | None:
    text = re.sub(r"[_\W]+", " ", text)
    if _DECUBITUS.search(text):
        return "DECUBITUS"
    if _OBLIQUE.search(text):
        return "OBLIQUE"
    if _LATERAL.search(text):
        return {"LL": "LL", "RL": "RL"}.get(text.strip(), "LATERAL")
    if re.search(r"\bPA\b|POSTERO ?ANTERIOR", text):
        return "PA"
    if re.search(r"\bAP\b|ANTERO ?POSTERIOR", text):
        return "AP"
    return "FRONTAL" if _FRONTAL.search(text) else None


def _flavour(ds: Dataset) -> str:
    """Image Type (0008,0008) from its third value on: what the maker says of this image."""
    return " ".join(words(ds, "ImageType")[2:]).replace("_", " ")


def _without_pixels(ds: Dataset) -> Iterator[Reason]:
    if not any(key in ds for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        yield Reason("no-pixels", "there are no pixels in it")


def _not_a_radiograph(ds: Dataset) -> Iterator[Reason]:
    kind = modality(ds)
    if kind in RADIOGRAPHS:
        return
    if kind is None:
        if ds.get("SOPClassUID") != uid.SecondaryCaptureImageStorage:
            yield Reason("not-a-radiograph", "nothing in it says that it is a radiograph")
    elif kind not in ("OT", "SC"):
        what = _MODALITIES.get(kind, "of another modality")
        yield Reason("not-a-radiograph", f"it is {what}, not a radiograph")


def _secondary_capture(ds: Dataset) -> Iterator[Reason]:
    kind = modality(ds)
    captured = str(ds.get("SOPClassUID", "")).startswith(uid.SecondaryCaptureImageStorage)
    text = _flavour(ds)
    if kind in ("OT", "SC") or (kind is None and captured):
        yield Reason("secondary-capture", "it is a secondary capture of no stated modality")
    elif _CAPTURED.search(text):
        yield Reason("secondary-capture", "its image type says that it is a capture or a report")
    elif captured and word(ds, "ConversionType") not in _CONVERSIONS:
        yield Reason("secondary-capture", "it was captured or drawn, not exposed (conversion type)")
    elif captured and words(ds, "ImageType")[1:2] == ["SECONDARY"]:
        yield Reason("secondary-capture", "its image type says that it was made after the exposure")
    elif captured and word(ds, "BurnedInAnnotation") == "YES":
        yield Reason("secondary-capture", "text is burned into it (burned-in annotation)")


def _several_frames(ds: Dataset) -> Iterator[Reason]:
    try:
        frames = int(ds.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 1
    if frames > 1:
        yield Reason("multi-frame", f"it has {frames} frames; a film has one")


def _for_processing(ds: Dataset) -> Iterator[Reason]:
    if (
        word(ds, "PresentationIntentType") == "FOR PROCESSING"
        or ds.get("SOPClassUID") == uid.DigitalXRayImageStorageForProcessing
    ):
        yield Reason("for-processing", "it is meant for processing, not for reading")


def _derived(ds: Dataset) -> Iterator[Reason]:
    if modality(ds) not in RADIOGRAPHS:
        return
    text = _flavour(ds)
    described = " ".join(word(ds, k) for k in ("DerivationDescription", "SeriesDescription"))
    if _COMPUTED.search(text):
        yield Reason("derived", "its image type says that it is a program's result")
    elif _DERIVED.search(text) or re.search(
        r"BONE ?(SUPPRESS|SUBTRACT)|DUAL.?ENERGY|SOFT.?TISSUE|RIB ?SUPPRESS", described
    ):
        yield Reason("derived", "it is derived (bone or soft tissue alone, or a composition)")


def _another_body_part(ds: Dataset) -> Iterator[Reason]:
    if modality(ds) not in RADIOGRAPHS:
        return
    examined = Code("", word(ds, "BodyPartExamined"), "")
    if not all(map(_may_be_chest, (examined, *codes(ds, "AnatomicRegionSequence")))):
        yield Reason("not-chest", "its header names another part of the body than the chest")


def _may_be_chest(part: Code) -> bool:
    """Whether a part of the body is the chest or is not stated. A code goes before its meaning."""
    if part.value in _CHEST_CODES:
        return True
    text = part.meaning.replace("_", " ")
    if part.value in UNSTATED and text in UNSTATED:
        return True
    if part.value and part.scheme in _SNOMED:
        return False
    return bool(_CHEST.search(text)) and not _BESIDE_CHEST.search(text)


def _another_view(ds: Dataset) -> Iterator[Reason]:
    if modality(ds) not in RADIOGRAPHS:
        return
    seen = view(ds)
    # PS3.3, C.7.6.1.1.1: a frontal film, turned or not, runs left-right and head-foot.
    directions = orientation(ds)
    axes = [AXES[direction] for direction in directions if direction]
    if seen in ("LATERAL", "LL", "RL") or ("depth" in axes and "side" not in axes):
        yield Reason("lateral", "it is a lateral view; a frontal one is needed")
    elif seen == "OBLIQUE":
        yield Reason("oblique", "it is an oblique view; a frontal one is needed")
    elif seen == "DECUBITUS":
        yield Reason("decubitus", "the patient lies on a side")
    elif "depth" in axes or len(axes) != len(set(axes)):
        yield Reason("not-frontal", "its patient orientation is not that of a frontal view")


def _an_animal(ds: Dataset) -> Iterator[Reason]:
    # PS3.3, C.7.1.1 (species), C.7.3.1 and C.7.6.1.1.1: QUADRUPED changes what the directions
    # mean. Many a veterinary device states none of this, and calls its technique "canine".
    stated = words(ds, "PatientOrientation")
    quadruped = len(stated) == 2 and all(map(_QUADRUPED.fullmatch, stated))
    species = [word(ds, "PatientSpeciesDescription")]
    species += [code.meaning for code in codes(ds, "PatientSpeciesCodeSequence")]
    if (
        word(ds, "AnatomicalOrientationType") == "QUADRUPED"
        or (quadruped and not all(orientation(ds)))  # letters that no biped has
        or any(name and not _HUMAN.search(name) for name in species)
        or any(_ANIMAL.search(name) for name in _technique(ds))
    ):
        yield Reason("animal", "the patient is an animal")


_RULES: tuple[Callable[[Dataset], Iterator[Reason]], ...] = (
    _without_pixels,
    _not_a_radiograph,
    _secondary_capture,
    _several_frames,
    _for_processing,
    _derived,
    _another_body_part,
    _another_view,
    _an_animal,
)
