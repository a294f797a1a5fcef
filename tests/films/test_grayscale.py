from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.films import grayscale

numbers = st.floats(-70_000, 70_000)


def linear(x: float, centre: float, width: float) -> float:
    """The pseudo-code of PS3.3, C.11.2.1.2.1, with y from 0 to 1."""
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (centre - 0.5)) / (width - 1) + 0.5


def linear_exact(x: float, centre: float, width: float) -> float:
    """The pseudo-code of PS3.3, C.11.2.1.3.2."""
    if x <= centre - width / 2:
        return 0.0
    if x > centre + width / 2:
        return 1.0
    return (x - centre) / width + 0.5


@given(st.integers(-70_000, 70_000), numbers, st.floats(1, 100_000))
def test_a_linear_window_is_the_standards(x: int, centre: float, width: float) -> None:
    found = grayscale.window(np.array([float(x)]), centre, width)[0]
    assert math.isclose(found, linear(x, centre, width), abs_tol=1e-9)


@given(st.integers(-70_000, 70_000), numbers, st.floats(0.01, 100_000))
def test_an_exact_window_is_the_standards(x: int, centre: float, width: float) -> None:
    found = grayscale.window(np.array([float(x)]), centre, width, "LINEAR_EXACT")[0]
    assert math.isclose(found, linear_exact(x, centre, width), abs_tol=1e-9)


def test_a_sigmoid_window_is_the_standards() -> None:
    values = np.array([-1e9, 0.0, 50.0, 100.0, 150.0, 1e9])
    found = grayscale.window(values, 100, 50, "SIGMOID")
    expected = [0, 1 / (1 + math.exp(8)), 1 / (1 + math.exp(4)), 0.5, 1 / (1 + math.exp(-4)), 1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_notes_of_the_standard_hold() -> None:
    """C.11.2.1.2.1, notes: 2^(n-1) and 2^n are the identity; width 1 is a threshold."""
    values = np.arange(256)
    np.testing.assert_allclose(grayscale.window(values, 128, 256) * 255, values, atol=1e-9)
    np.testing.assert_array_equal(grayscale.window(values, 100, 1), values >= 100)


@given(st.integers(1, 16), st.booleans(), st.data())
def test_stored_bits_are_taken_and_their_sign(bits: int, signed: bool, data: st.DataObject) -> None:
    high = data.draw(st.integers(bits - 1, 15))
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    wanted = np.array(data.draw(st.lists(st.integers(least, most), min_size=1, max_size=20)))
    stray = data.draw(st.integers(0, 0xFFFF))
    field = ((1 << bits) - 1) << (high + 1 - bits)
    words = ((wanted << (high + 1 - bits)) & field) | (stray & ~field & 0xFFFF)
    allocated = words.astype(np.uint16)
    if signed:
        allocated = allocated.view(np.int16)
    if bits == 16:
        return
    found, _ = grayscale.stored(allocated, bits, high, signed, exact=True)
    np.testing.assert_array_equal(found, wanted)


def test_a_codestream_keeps_what_is_over_the_stated_bits() -> None:
    values = np.array([[0, 1023, 1024]], np.uint16)
    found, step = grayscale.stored(values, 10, 9, False, exact=False)
    assert found is values and step is None


def test_levels_bring_the_picture_back() -> None:
    random = np.random.default_rng(0)
    for values in (
        random.integers(0, 4096, (9, 11)).astype(np.uint16),
        random.integers(-300, 300, (9, 11)).astype(np.int16),
        random.integers(0, 2**31, (9, 11)),
    ):
        levels, index, counts = grayscale.levels_of(values)
        np.testing.assert_array_equal(levels[index], values)
        assert counts.sum() == values.size and len(counts) == len(levels)


@pytest.mark.parametrize(
    ("value", "limit", "wrap", "expected"),
    [
        (None, None, 0, []),
        (5, None, 0, [5]),
        (0, 3, 0, [0, 1, 2, 3]),
        (3, 0, 0, [0, 1, 2, 3]),
        (65535 - 1, None, 1 << 16, [-2]),
        (-2, 0, 1 << 16, [-2, -1, 0]),
    ],
)
def test_padding_is_a_value_or_a_range(
    value: int | None, limit: int | None, wrap: int, expected: list[int]
) -> None:
    levels = np.arange(-5, 10)
    assert levels[grayscale.padded(levels, value, limit, wrap)].tolist() == expected


@pytest.mark.parametrize(
    ("most", "stated", "depth"),
    [
        (4095, 16, 12),  # Agfa
        (1023, 16, 10),  # Fuji
        (16383, 16, 14),  # GE
        (255, 16, 8),
        (3000, 16, 12),
        (16384, 16, 16),
        (65535, 16, 16),
        (1023, 12, 12),  # who states 12 means 12
        (4095, 12, 12),
        (100, 8, 8),
    ],
)
def test_a_table_that_states_16_bits_has_those_that_its_entries_use(
    most: int, stated: int, depth: int
) -> None:
    table = grayscale.Table(0, np.array([0, most]), stated)
    assert (table.depth, table.top) == (depth, (1 << depth) - 1)
    assert table.remark == ("" if depth == stated else f" of {depth} bits, {stated} stated")


def test_a_table_holds_its_ends() -> None:
    table = grayscale.Table(10, np.array([7, 50, 255]), 8)
    assert table(np.array([-5, 10, 11, 12, 99])).tolist() == [7, 7, 50, 255, 255]
    assert table.top == 255
    assert grayscale.Table(0, np.array([0, 4000]), 8).top == 4000  # stated bits that are too few


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_percentiles_of_counted_levels(values: list[int], share: float) -> None:
    levels, _, counts = grayscale.levels_of(np.array([values]))
    (found,) = grayscale.percentiles(levels, counts, (share,))
    assert np.mean(np.array(values) <= found) >= share - 1e-9
    assert np.mean(np.array(values) < found) < share + 1e-9


def test_windows_that_show_nothing_are_known() -> None:
    counts = np.ones(1000)
    ramp = np.linspace(0, 1, 1000)
    assert grayscale.shows_nothing(ramp, counts) is None
    assert grayscale.shows_nothing(np.clip(ramp * 2 - 0.5, 0, 1), counts) is None  # half clipped
    assert grayscale.shows_nothing(np.ones(1000), counts) == 1
    assert grayscale.shows_nothing(np.clip(ramp * 50 - 20, 0, 1), counts) > 0.95
    assert grayscale.shows_nothing(0.5 + ramp * 0.02, counts) == 0  # a grey in grey


SHOWN = np.array([["hr", "hl"], ["fr", "fl"]])  # head and foot; the patient's right is left here
STORED = {
    ("L", "F"): SHOWN,
    ("R", "F"): SHOWN[:, ::-1],
    ("L", "H"): SHOWN[::-1],
    ("R", "H"): SHOWN[::-1, ::-1],
    ("F", "L"): SHOWN.T,
    ("F", "R"): SHOWN[:, ::-1].T,
    ("H", "L"): SHOWN[::-1].T,
    ("H", "R"): SHOWN[::-1, ::-1].T,
}


@pytest.mark.parametrize("orientation", STORED)
def test_every_frontal_orientation_ends_left_and_foot(orientation: tuple[str, str]) -> None:
    values, step = grayscale.orient(STORED[orientation], *orientation)
    np.testing.assert_array_equal(values, SHOWN)
    assert (step is None) == (orientation == ("L", "F"))


@pytest.mark.parametrize("orientation", [("", ""), ("A", "F"), ("P", "F"), ("L", ""), ("L", "L")])
def test_other_orientations_turn_nothing(orientation: tuple[str, str]) -> None:
    values, step = grayscale.orient(SHOWN, *orientation)
    assert values is SHOWN and step is None


def test_oblique_orientations_go_by_their_first_letter() -> None:
    values, _ = grayscale.orient(SHOWN[:, ::-1], "RP", "FA")
    np.testing.assert_array_equal(values, SHOWN)
