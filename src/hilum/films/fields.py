"""Values of a DICOM header as they can be trusted: missing, empty and broken ones are None."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

#: What writers put where they know nothing.
UNSTATED = frozenset(
    ("", "UNKNOWN", "UNSPECIFIED", "UNDEFINED", "NONE", "NA", "N/A", "NULL", "-", "*", "ANY")
)

#: The axis of the body along which each direction runs (PS3.3, C.7.6.1.1.1, bipeds).
AXES = {"L": "side", "R": "side", "H": "height", "F": "height", "A": "depth", "P": "depth"}
_IN_FULL = ("LEFT", "RIGHT", "HEAD", "FOOT", "FEET", "ANTERIOR", "POSTERIOR")


def field(ds: Dataset, keyword: str) -> Any:
    """The value as pydicom has it; None where it is absent, empty or cannot be parsed."""
    try:
        value = ds.get(keyword)
    except Exception:  # pydicom parses on access, and raises what it meets
        return None
    return None if value is None or (isinstance(value, str | bytes) and not value) else value


def first(ds: Dataset, keyword: str) -> Any:
    """The first of several values."""
    value = field(ds, keyword)
    if isinstance(value, MultiValue | list | tuple):
        return value[0] if len(value) else None
    return value


def number(ds: Dataset, keyword: str) -> float | None:
    """The first value as a finite number."""
    try:
        value = float(first(ds, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def whole(ds: Dataset, keyword: str) -> int | None:
    """The first value as an integer."""
    value = number(ds, keyword)
    return None if value is None or value != int(value) else int(value)


def word(ds: Dataset, keyword: str) -> str:
    """The first value in capitals, without spaces around; empty where there is none."""
    value = first(ds, keyword)
    return "" if value is None else str(value).strip(" \0").upper()


def words(ds: Dataset, keyword: str) -> list[str]:
    """All values like :func:`word`; in a single one forward slashes and spaces separate."""
    value = field(ds, keyword)
    if value is None:
        return []
    if isinstance(value, MultiValue | list | tuple):
        return [str(one).strip(" \0").upper() for one in value]
    text = str(value).strip(" \0").upper()
    return [] if text in UNSTATED else re.findall(r"[^\s/]+", text)


class Code(NamedTuple):
    """An item of a code sequence (PS3.3, 8.8) in capitals; each part may be empty.

    ``value`` is Code Value, else Long or URN Code Value.
    """

    value: str
    meaning: str
    scheme: str


def codes(ds: Dataset, keyword: str, within: str = "") -> Iterator[Code]:
    """The codes of a sequence's items, and of one within them."""
    items = field(ds, keyword)
    if not isinstance(items, Sequence):
        return
    for item in items:
        keys = ("CodeValue", "LongCodeValue", "URNCodeValue")
        value = next((found for key in keys if (found := word(item, key))), "")
        yield Code(value, word(item, "CodeMeaning"), word(item, "CodingSchemeDesignator"))
        if within:
            yield from codes(item, within)


def orientation(ds: Dataset) -> tuple[str, str]:
    """Patient Orientation (0020,0020): where rows and columns run, mainly; empty where unknown."""
    stated = [*words(ds, "PatientOrientation"), "", ""]
    return _main_direction(stated[0]), _main_direction(stated[1])


def _main_direction(text: str) -> str:
    """The first letter of a direction, which is the main one (PS3.3, C.7.6.1.1.1).

    Up to three letters of a biped, no axis twice, or the word in full; empty for all else.
    """
    axes = [AXES.get(letter) for letter in text]
    valid = None not in axes and len(set(axes)) == len(axes)
    return text[:1] if valid or text in _IN_FULL else ""


def age_in_years(ds: Dataset) -> float | None:
    """Patient's Age (0010,1010) as an Age String (PS3.5, 6.2), or birth to study in days."""
    text = word(ds, "PatientAge")
    match = re.fullmatch(r"(\d{1,3})\s*([DWMY]?)", text)
    if match:
        days = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25, "": 365.25}[match[2]]
        years = int(match[1]) * days / 365.25
        if 0 < years <= 130:  # 000Y is what anonymising leaves
            return round(years, 2)
    birth, study = _day(ds, "PatientBirthDate"), _day(ds, "StudyDate")
    if birth is None or study is None or not 0 <= study - birth <= 130 * 365.25:
        return None
    return round((study - birth) / 365.25, 2)


def _day(ds: Dataset, keyword: str) -> int | None:
    from datetime import date

    text = word(ds, keyword).replace(".", "").replace("-", "")
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])).toordinal()
    except ValueError:
        return None
