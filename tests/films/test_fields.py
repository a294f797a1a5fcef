from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from hilum.films.fields import orientation, words


def stating(value: object) -> Dataset:
    ds = Dataset()
    ds.PatientOrientation = value
    return ds


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("R/F", ["R", "F"]),
        (" r / f ", ["R", "F"]),
        ("R F", ["R", "F"]),
        (["R", "F"], ["R", "F"]),
        (["DERIVED", "SCREEN SAVE"], ["DERIVED", "SCREEN SAVE"]),  # only a single value is split
        ("N/A", []),
        ("", []),
    ],
)
def test_slashes_and_spaces_separate_what_is_written_as_one(
    stated: object, expected: list[str]
) -> None:
    assert words(stating(stated), "PatientOrientation") == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (["L", "F"], ("L", "F")),
        (["LF", "FR"], ("L", "F")),  # the first letter is the main direction
        (["RAF", "FPL"], ("R", "F")),
        (["RIGHT", "FOOT"], ("R", "F")),
        ("R/F", ("R", "F")),
        (["A", "F"], ("A", "F")),
        ("A", ("A", "")),
        (["", "F"], ("", "F")),
        ("RF", ("R", "")),
        (["PA", "F"], ("", "F")),  # two letters of one axis: a view, no direction
        (["LE", "CD"], ("", "")),  # a quadruped's left and caudal
        (["LATERAL", "F"], ("", "F")),
        ("N/A", ("", "")),
        (None, ("", "")),
    ],
)
def test_main_directions(stated: object, expected: tuple[str, str]) -> None:
    assert orientation(stating(stated)) == expected
