"""Resizing: the compiled way gives Pillow's bytes, and the order of the axes is hilum's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hilum.films import resize
from hilum.native import library

SIDES = st.one_of(st.integers(1, 40), st.integers(41, 700))


def film(height: int, width: int, seed: int) -> np.ndarray:
    """Noise, or black and white alone, where sums lie nearest to the ends of a byte."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (height, width), dtype=np.uint8)
    return values if seed % 3 else np.where(values > 127, 255, 0).astype(np.uint8)


@given(height=SIDES, width=SIDES, size=SIDES, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_both_ways_give_the_same_bytes(height: int, width: int, size: int, seed: int) -> None:
    native = library.load("films")[0]
    if native is None:
        pytest.skip(library.load("films")[1])
    values = film(height, width, seed)
    np.testing.assert_array_equal(resize._by(native, values, size), resize._by_pillow(values, size))


def test_weights_that_sum_to_more_than_one_do_not_wrap_around() -> None:
    native = library.load("films")[0]
    if native is None:
        pytest.skip(library.load("films")[1])
    white = np.full((1, 430_185), 255, np.uint8)
    assert resize._by(native, white, 1)[0, 0] == resize._by_pillow(white, 1)[0, 0] == 255


def test_lines_apart_in_memory_are_read_right() -> None:
    values = film(300, 200, 1)[::2, 10:150]
    np.testing.assert_array_equal(
        resize.square(values, 64), resize.square(np.ascontiguousarray(values), 64)
    )


@pytest.mark.parametrize("shape", [(900, 300), (300, 900), (64, 500), (500, 64), (64, 64)])
@pytest.mark.parametrize("ready", [True, False])
def test_the_width_goes_first(
    shape: tuple[int, int], ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow 13 itself begins with the height where a film is much taller than wide."""
    if not ready:
        monkeypatch.setattr(library, "ready", lambda name: None)
    values = film(*shape, 1)
    stated = Image.fromarray(values).resize((64, shape[0]), Image.Resampling.BILINEAR)
    stated = stated.resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize.square(values, 64), np.asarray(stated))
