from __future__ import annotations

import hashlib
import io

import dicoms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydicom import uid

from hilum.errors import UsageError
from hilum.films import polarity
from hilum.films.preprocess import Preprocessing, described, preprocess
from hilum.films.read import read


def triangle(values: np.ndarray, size: int) -> np.ndarray:
    """Antialiased linear resize of the last axis, from its definition, in float64.

    Weights of a triangle whose half-width is the reduction (one where there is none), centred
    where the output pixel's middle falls.
    """
    count = values.shape[-1]
    scale = count / size
    support = max(1.0, scale)
    centres = (np.arange(size) + 0.5) * scale - 0.5
    weights = 1 - np.abs(np.arange(count)[None] - centres[:, None]) / support
    weights = np.maximum(weights, 0)
    weights /= weights.sum(1, keepdims=True)
    return values @ weights.T


@pytest.mark.parametrize("shape", [(96, 80), (300, 411), (20, 37), (64, 64)])
@pytest.mark.parametrize("size", [16, 64, 100])
def test_the_resize_is_the_stated_triangle(shape: tuple[int, int], size: int) -> None:
    for bits in (8, 12):
        film = read(dicoms.film(dicoms.chest(*shape, bits=bits)))
        found = preprocess(film, Preprocessing(size)).astype(float)
        expected = triangle(triangle(film.pixels.astype(float), size).T, size).T
        # Pillow rounds between the two passes where there are 8 bits.
        assert np.abs(found - expected).max() <= (1.51 if bits == 8 else 0.51)


def test_a_film_of_the_right_size_is_left_alone() -> None:
    square = dicoms.chest(48, 48, bits=8)
    pixels, steps, _ = described(read(square), Preprocessing(48))
    np.testing.assert_array_equal(pixels, square)
    assert steps == ()


@given(
    arrays(np.uint8, st.tuples(st.integers(2, 50), st.integers(2, 50))), st.sampled_from([8, 31])
)
def test_every_way_in_gives_the_same_pixels(grey: np.ndarray, size: int) -> None:
    if grey.min() == grey.max():
        return
    small = Preprocessing(size)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    ways = [read(grey), read(stream.getvalue()), read(dicoms.film(grey))]
    found = [preprocess(film, small) for film in ways]
    for pixels in (*found[1:], described(ways[0], small)[0]):
        np.testing.assert_array_equal(pixels, found[0])
    assert found[0].shape == (size, size) and found[0].dtype == np.uint8


def test_deep_films_are_rounded_half_to_even_once() -> None:
    ramp = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (64, 1))
    pixels = preprocess(read(dicoms.film(ramp)), Preprocessing(64))
    np.testing.assert_array_equal(pixels, np.rint(ramp * np.float32(255 / 4095)))


def test_what_was_done_is_told() -> None:
    large = dicoms.chest(800, 640, bits=8)
    stream = io.BytesIO()
    Image.fromarray(large).convert("RGB").save(stream, "JPEG")
    _, steps, reasons = described(read(stream.getvalue()), Preprocessing(64))
    assert steps == ("luma", "decoded at 1/4", "160 x 200 to 64 x 64")
    assert reasons == ()


GOLDEN = {
    "png": "1248d2d8acdf",
    "deep png": "253fced1f489",
    "jpeg": "10726c4f622e",
    "scaled jpeg": "4ac9cfc4f872",
    "dicom": "17b81f4abc6d",
    "dicom, jpeg-ls": "aae682edafde",
    "dicom, jpeg 2000": "aae682edafde",
    "dicom, jpeg lossless": "aae682edafde",
    "dicom, negative": "9ece5cb1b697",
    "dicom, 8 bits": "1248d2d8acdf",
}


def golden_films() -> dict[str, bytes]:
    grey, deep = dicoms.pattern(192, 160, bits=8), dicoms.pattern(192, 160, bits=12)

    def coded(values: np.ndarray, kind: str) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, kind)
        return stream.getvalue()

    def dicom(syntax: uid.UID) -> bytes:
        return dicoms.encoded(dicoms.header(deep), syntax)

    return {
        "png": coded(grey, "PNG"),
        "deep png": coded(deep * 16, "PNG"),
        "jpeg": coded(grey, "JPEG"),
        "scaled jpeg": coded(grey.repeat(4, 0).repeat(4, 1), "JPEG"),
        "dicom": dicoms.film(deep, WindowCenter="1500", WindowWidth="2500"),
        "dicom, jpeg-ls": dicom(uid.JPEGLSLossless),
        "dicom, jpeg 2000": dicom(uid.JPEG2000Lossless),
        "dicom, jpeg lossless": dicom(uid.JPEGLosslessSV1),
        "dicom, negative": dicoms.film(deep, PhotometricInterpretation="MONOCHROME1"),
        "dicom, 8 bits": dicoms.film(grey),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pixels(name: str) -> None:
    """A change of decoder, filter or step changes every model's input: this pins them."""
    pixels = preprocess(read(golden_films()[name]), Preprocessing(64))
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:12] == GOLDEN[name]


def test_preprocessing_is_a_value_with_a_digest() -> None:
    one = Preprocessing(128)
    assert Preprocessing(**one.as_dict()) == one
    assert one.digest == Preprocessing(128).digest != Preprocessing(129).digest
    for wrong in ({"size": 0}, {"size": 5000}, {"geometry": "fit"}, {"filter": "cubic"}):
        with pytest.raises(UsageError):
            Preprocessing(**wrong)


def test_a_negative_is_noticed_whatever_its_header_says() -> None:
    chest = dicoms.chest(200, 180, bits=8)
    assert polarity.likeness(chest) > 0.3
    assert polarity.likeness(255 - chest) == pytest.approx(-polarity.likeness(chest), abs=0.01)
    reasons = described(read(255 - chest), Preprocessing(64))[2]
    assert [(reason.code, reason.refers) for reason in reasons] == [("negative", True)]
    assert described(read(chest), Preprocessing(64))[2] == ()
    assert polarity.likeness(chest[:5, :5]) is None
    assert polarity.likeness(np.full((20, 20), 9, np.uint8)) is None
