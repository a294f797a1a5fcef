"""From a DICOM file's stored values to a film as it is to be read (P-values).

Pixels go one way (PS3.3, C.11 and C.8.11.3.1.2): stored bits → padding masked → modality rescale
or table → value-of-interest window or table → inverted once if Photometric Interpretation says
so → turned to the patient's left and foot.

Not applied: overlays (group 60xx; drawings, not film), display shutters (C.7.6.11; a viewer's
mask: what lies beneath is film), presentation states (other objects), a field of view's rotation
or flip (C.8.11.4; already in the pixels). Burned-in text stays where it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from hilum.errors import UnreadableFilm
from hilum.films import codecs, eligibility, grayscale
from hilum.films.fields import field, number, orientation, whole, word, words
from hilum.films.radiograph import Pixels, Reason

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # PS3.3, C.11.2.1.2 and C.11.2.1.3
_NARROW = 0.25  # share of the grey scale, under which the middle 99 % of the pixels are noted

_UNKNOWN_ORIENTATION = Reason(
    "orientation",
    "its patient orientation cannot be read; the film was left as it is stored",
    refers=False,
)


def present(ds: Dataset, syntax: uid.UID, filled: tuple[str, ...], least: int) -> Pixels:
    """Decode and show a film, as far as possible at ``least`` pixels a side or a little more.

    ``filled``: what was taken for values that its header does not state; its first steps.

    Raises
    ------
    UnreadableFilm
    """
    with codecs.guarded():
        if whole(ds, "PixelPaddingValue") is not None:
            least = 0  # a scaled decode would mix padding into its neighbours
        values = codecs.first_frame(ds, syntax, least)
        photometric = word(ds, "PhotometricInterpretation")
        reasons: list[Reason] = []
        if photometric.startswith("YBR") and values.ndim == 2:
            grey, steps = values, ["luma"]
        elif values.ndim == 3 or photometric == "PALETTE COLOR":
            grey, steps = _luma(ds, values)
        elif values.dtype.kind == "f":
            grey, step = grayscale.over_depth(values)
            steps = [step]
        else:
            grey, steps, reasons = _film(ds, values, syntax)
        factor = round((whole(ds, "Columns") or 1) / max(1, values.shape[1]))
        if factor > 1:
            steps.insert(0, f"decoded at 1/{factor}")
        steps = [*filled, *steps]
        directions = orientation(ds)
        turned, turning = grayscale.orient(grey, *directions)
        if turning:
            turned = np.ascontiguousarray(turned)
            steps.append(turning)
        if not all(directions) and any(words(ds, "PatientOrientation")):
            reasons.append(_UNKNOWN_ORIENTATION)
    return grayscale.finish(turned, steps, reasons)


def _luma(ds: Dataset, values: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Colour (PS3.3, C.7.6.3.1.2) to ITU-R BT.601 luma, of which the table step takes the range."""
    steps = ["luma"]
    if values.ndim == 2:
        try:
            values = apply_color_lut(values, ds)[..., :3]
        except Exception:
            raise UnreadableFilm("corrupt", "its palette is missing or broken") from None
        steps.insert(0, "palette")
    grey = values[..., :3] @ np.array([0.299, 0.587, 0.114], np.float64)
    if values.dtype == np.uint8:
        return np.rint(grey).astype(np.uint8), steps
    top = (1 << (8 * values.dtype.itemsize if steps[0] == "palette" else int(ds.BitsStored))) - 1
    return (grey * (255 / top)).astype(np.float32), steps


def _film(
    ds: Dataset, values: NDArray[Any], syntax: uid.UID
) -> tuple[NDArray[Any], list[str], list[Reason]]:
    """One grey film, level by level."""
    steps: list[str] = []
    reasons: list[Reason] = []
    bits, signed = int(ds.BitsStored), ds.PixelRepresentation == 1
    exact = not syntax.is_encapsulated or syntax == uid.RLELossless
    values, step = grayscale.stored(values, bits, int(ds.HighBit), signed, exact)
    if step:
        steps.append(step)
    levels, index, counts = grayscale.levels_of(values)

    wrap = 1 << int(ds.BitsAllocated) if signed else 0
    mask = grayscale.padded(
        levels, number(ds, "PixelPaddingValue"), number(ds, "PixelPaddingRangeLimit"), wrap
    )
    shown = counts * ~mask
    if not shown.any():
        raise UnreadableFilm("constant", "all pixels are padding")
    if counts[mask].any():
        steps.append("padding masked")

    bounds = np.array(
        [-(1 << (bits - 1)), (1 << (bits - 1)) - 1] if signed else [0, (1 << bits) - 1]
    )
    bounds = np.array([min(bounds[0], levels[0]), max(bounds[1], levels[-1])])
    real, bounds, step = _modality(ds, levels, bounds)
    if step:
        steps.append(step)

    grey, step, reason = _of_interest(ds, real, bounds, shown, bits)
    steps.append(step)
    if reason:
        reasons.append(reason)
    low, high = grayscale.middle(grey[shown > 0], shown[shown > 0])
    if high - low < _NARROW:
        reasons.append(
            Reason(
                "narrow",
                f"the middle 99 % of its pixels use {high - low:.0%} of the grey scale",
                refers=False,
            )
        )

    photometric, shape = word(ds, "PhotometricInterpretation"), word(ds, "PresentationLUTShape")
    if photometric == "MONOCHROME1":  # PS3.3, C.7.6.3.1.2: the lowest value is white
        grey = 1 - grey
        steps.append("inverted")
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        # PS3.3, C.8.11.3 and C.11.6.1.2: INVERSE goes with MONOCHROME1 and only with it.
        reasons.append(
            Reason(
                "polarity",
                f"{photometric} with presentation shape {shape} contradict each other; "
                "the photometric interpretation was followed",
                refers=False,
            )
        )
    grey = np.where(mask, 0, grey) * 255
    table = np.rint(grey).astype(np.uint8) if bits <= 8 else grey.astype(np.float32)
    return table[index], steps, reasons


def _modality(
    ds: Dataset, levels: NDArray[np.int64], bounds: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], str | None]:
    """The modality table or rescale (PS3.3, C.11.1) on levels, and on the stored range."""
    if eligibility.modality(ds) in ("XA", "RF"):
        # PS3.3, C.8.7.1.1.2: in these it undoes the detector's curve and is not for display.
        return levels, bounds, None
    table = _table(ds, "ModalityLUTSequence", bounds[0])
    if table:
        return table(levels), np.array([0.0, table.top]), f"modality table{table.remark}"
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    slope = slope if slope else 1.0  # absent, empty, None or zero
    intercept = intercept or 0.0
    if slope == 1 and intercept == 0:
        return levels, bounds, None
    real = grayscale.rescale(levels, slope, intercept)
    return real, np.sort(grayscale.rescale(bounds, slope, intercept)), "rescaled"


def _of_interest(
    ds: Dataset, real: NDArray[Any], bounds: NDArray[Any], counts: NDArray[Any], bits: int
) -> tuple[NDArray[np.float64], str, Reason | None]:
    """The values of interest to [0, 1] (PS3.3, C.11.2 and C.8.11.3.1.5).

    A table and windows are alternatives, of which one is applied: the table wins, being the
    maker's full curve; of several windows or tables the first. Without either a DX and whatever
    is stored in 8 bits or less is shown over its whole range, because such values are made for
    display; a CR over the middle 99 % of its pixels, because its range says nothing.
    """
    reason = None
    table = _table(ds, "VOILUTSequence", bounds[0])
    centre, width = number(ds, "WindowCenter"), number(ds, "WindowWidth")
    stated = word(ds, "VOILUTFunction") or "LINEAR"
    function = stated if stated in _FUNCTIONS else "LINEAR"
    grey = None
    if table:
        grey, step = table(real) / table.top, f"VOI table{table.remark}"
    elif centre is not None and width is not None and _window_is_valid(width, function):
        grey = grayscale.window(real, centre, width, function)
        step = f"window {centre:g}/{width:g}"
        if stated != function:  # free text, so not quoted
            step += ", its function unknown, LINEAR applied"
        elif function != "LINEAR":
            step += f" {function}"
    elif eligibility.modality(ds) == "DX" or bits <= 8:
        return grayscale.between(real, bounds[0], bounds[1]), "whole range", None
    if grey is not None:
        clipped = grayscale.shows_nothing(grey, counts)
        if clipped is None:
            return grey, step, None
        reason = Reason(
            "window",
            f"its {'table' if table else 'window'} does not fit its pixels ({clipped:.0%} of them "
            "end black or white); the middle 99 % of the pixels was shown instead",
            refers=False,
        )
    occupied = counts > 0
    low, high = grayscale.middle(real[occupied], counts[occupied])
    if high <= low:
        low, high = float(real[occupied].min()), float(real[occupied].max())
    if high <= low:
        raise UnreadableFilm("constant", "all pixels have the same value")
    return grayscale.between(real, low, high), "middle 99 % of the pixels", reason


def _window_is_valid(width: float, function: str) -> bool:
    return width >= 1 if function == "LINEAR" else width > 0


def _table(ds: Dataset, keyword: str, least: float) -> grayscale.Table | None:
    """The first table of a sequence (PS3.3, C.11.1.1.1, C.11.2.1.1); None where it is broken.

    ``least`` that it can be given: where that is below zero, its first value is a signed one.
    """
    items = field(ds, keyword)
    if not items:
        return None
    descriptor, data = field(items[0], "LUTDescriptor"), field(items[0], "LUTData")
    if data is None or descriptor is None:
        return None
    try:
        entries, start, bits = (int(value) for value in descriptor)
    except (TypeError, ValueError):
        return None
    entries = entries % (1 << 16) or 1 << 16  # unsigned, whatever the type of the other two
    order = "<" if ds.original_encoding[1] is not False else ">"
    try:
        if not isinstance(data, bytes):
            data, order = np.asarray(data, "<u2").tobytes(), "<"
        values = np.frombuffer(data, order + "u2" if len(data) % 2 == 0 else "u1")
    except (TypeError, ValueError, OverflowError):
        return None
    if len(data) < 2 * entries:  # two entries of 8 bits in a word, the first in its low byte
        bytewise = order == "<" or items[0]["LUTData"].VR == "OB" or values.itemsize == 1
        values = np.frombuffer(data, "u1") if bytewise else values.astype("<u2").view("u1")
    if len(values) < entries or not 0 < bits <= 16:
        return None
    if start >= 1 << 15 and least < 0:
        start -= 1 << 16  # its bits are those of a signed value, its type says unsigned
    return grayscale.Table(start, values[:entries].astype(np.int64), bits)
