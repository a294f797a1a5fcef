from __future__ import annotations

import io
import struct
import zlib

import dicoms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageCms

from hilum.errors import UnreadableFilm
from hilum.films import jpeg
from hilum.films.limits import LIMITS
from hilum.films.read import read

GREY = dicoms.chest(bits=8)
DEEP = dicoms.chest(bits=16)


def coded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def code_of(data: bytes) -> str:
    with pytest.raises(UnreadableFilm) as caught:
        _ = read(data).pixels
    return caught.value.code


def modes(grey: np.ndarray) -> dict[str, Image.Image]:
    """The same film in every way that a file may hold it."""
    image = Image.fromarray(grey)
    palette = image.copy().convert("P")
    palette.putdata(list((255 - grey).ravel()))  # a palette that runs the other way
    palette.putpalette([255 - value // 3 for value in range(768)])
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.fromarray(np.arange(grey.size).reshape(grey.shape).astype(np.uint8)))
    return {
        "grey": image,
        "grey and alpha": transparent.convert("LA"),
        "colour": image.convert("RGB"),
        "colour and alpha": transparent,
        "palette": palette,
    }


@pytest.mark.parametrize("mode", modes(GREY))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_grey_film_is_the_same_in_every_mode(kind: str, mode: str) -> None:
    film = read(coded(modes(GREY)[mode], kind))
    np.testing.assert_array_equal(film.pixels, GREY)
    assert (film.header.height, film.header.width) == GREY.shape


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=40)))
def test_lossless_files_give_back_any_pixels(grey: np.ndarray) -> None:
    if grey.min() == grey.max():
        return
    for kind, options in (("PNG", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {})):
        np.testing.assert_array_equal(read(coded(grey, kind, **options)).pixels, grey)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_files_are_shown_over_their_own_depth(kind: str, bits: int) -> None:
    top = (1 << bits) - 1
    deep = np.linspace(0, top, 600).reshape(20, 30).astype(np.uint16)
    film = read(coded(deep, kind))
    assert film.pixels.dtype == np.float32
    np.testing.assert_allclose(film.pixels, deep * (255 / top), rtol=1e-5)
    assert film.full.steps == (f"range of {bits} bits",)


def test_eight_bits_of_colour_are_weighed_as_luma() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    luma = colour @ [0.299, 0.587, 0.114]
    for kind in ("PNG", "TIFF"):
        film = read(coded(colour, kind))
        assert np.abs(film.pixels - luma).max() <= 0.51
        assert "luma" in film.full.steps
    photo = read(coded(colour.repeat(8, 0).repeat(8, 1), "JPEG", quality=100, subsampling=0))
    assert np.abs(photo.pixels - luma.repeat(8, 0).repeat(8, 1)).max() < 3


def test_white_may_be_zero_in_tiff() -> None:
    """TIFF 6.0: PhotometricInterpretation 0; Pillow turns 8 bits and forgets 16."""
    for values in (GREY, DEEP):
        plain = read(coded(values, "TIFF")).pixels
        data = bytearray(coded(values, "TIFF"))
        at = data.index(struct.pack("<HHI", 262, 3, 1))
        data[at + 8] = 0
        inverted = read(bytes(data)).pixels
        np.testing.assert_allclose(inverted, 255 - plain.astype(np.float32), atol=1e-3)


def orientations() -> list[tuple[int, np.ndarray]]:
    """Stored rows for each EXIF orientation of one and the same film, by their definition."""
    shown = GREY
    return [
        (1, shown),
        (2, shown[:, ::-1]),
        (3, shown[::-1, ::-1]),
        (4, shown[::-1]),
        (5, shown.T),
        (6, np.rot90(shown)),
        (7, shown[::-1, ::-1].T),
        (8, np.rot90(shown, -1)),
    ]


@pytest.mark.parametrize(("orientation", "stored"), orientations())
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_orientation_is_the_one_tag_that_turns_pixels(
    kind: str, orientation: int, stored: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    if kind == "JPEG":
        more["quality"] = 95
    film = read(coded(np.ascontiguousarray(stored), kind, **more))
    assert (film.header.height, film.header.width) == film.pixels.shape == GREY.shape
    assert np.abs(film.pixels.astype(int) - GREY).max() <= (14 if kind == "JPEG" else 0)
    assert orientation == 1 or any("orientation" in step for step in film.full.steps)
    pillow = np.asarray(Image.open(io.BytesIO(coded(np.ascontiguousarray(stored), kind))))
    assert pillow.shape == stored.shape


def test_profiles_and_gamma_change_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = read(coded(GREY, "JPEG")).pixels
    np.testing.assert_array_equal(read(coded(GREY, "JPEG", icc_profile=profile)).pixels, plain)
    np.testing.assert_array_equal(read(coded(GREY, "PNG", icc_profile=profile)).pixels, GREY)
    data = coded(GREY, "PNG")
    chunk = b"gAMA" + struct.pack(">I", 20000)
    gamma = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    np.testing.assert_array_equal(read(data[:33] + gamma + data[33:]).pixels, GREY)


def test_grey_and_colour_jpeg_are_one_plane() -> None:
    """A decoder's luma, asked for as grey, is what Pillow makes of the colours, within rounding."""
    big = GREY.repeat(4, 0).repeat(4, 1)
    for image in (Image.fromarray(big), Image.fromarray(big).convert("RGB")):
        data = coded(image, "JPEG", quality=90)
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
        assert np.abs(read(data).pixels - pillow).max() <= 1


def test_progressive_and_cmyk_jpeg_are_read() -> None:
    plain = read(coded(GREY, "JPEG", quality=95)).pixels.astype(int)
    progressive = read(coded(GREY, "JPEG", quality=95, progressive=True)).pixels
    np.testing.assert_array_equal(progressive, plain)
    cmyk = read(coded(Image.fromarray(GREY).convert("CMYK"), "JPEG", quality=95)).pixels
    assert np.abs(cmyk - plain).max() <= 20


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 1500))
def test_a_scaled_decode_leaves_both_sides_large_enough(
    width: int, height: int, least: int
) -> None:
    header = jpeg.JpegHeader(width, height, 8, 1, 0xC0)
    factor = jpeg.scale_for(header, least)
    sides = -(-width // factor), -(-height // factor)
    assert factor in (1, 2, 4, 8)
    assert factor == 1 or min(sides) >= least
    if least and factor < 8:
        assert min(-(-width // (2 * factor)), -(-height // (2 * factor))) < least


@pytest.mark.parametrize("shape", [(640, 800), (641, 803), (1001, 667)])
@pytest.mark.parametrize("least", [0, 80, 160, 320, 321, 5000])
def test_the_decoder_scales_by_that_factor(shape: tuple[int, int], least: int) -> None:
    data = coded(dicoms.chest(*shape, bits=8), "JPEG")
    header = jpeg.read_header(data)
    values = jpeg.decode(data, header, least)
    factor = jpeg.scale_for(header, least)
    assert values.shape == (-(-shape[0] // factor), -(-shape[1] // factor))
    full = jpeg.decode(data, header).astype(float)
    if factor > 1 and shape == (640, 800):  # the same picture, averaged
        blocks = full.reshape(640 // factor, factor, 800 // factor, factor).mean((1, 3))
        assert np.abs(blocks - values).mean() < 1.5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_rows": 1}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_film_cut_anywhere_is_refused(kind: str, options: dict[str, object]) -> None:
    """Never half a picture: every cut that loses picture data is an error."""
    data = coded(GREY, kind, **options)
    whole = read(data).pixels
    for keep in sorted({*range(3, len(data), max(1, len(data) // 60)), len(data) - 1}):
        try:
            values = read(data[:keep]).pixels
        except UnreadableFilm as error:
            assert error.code in ("truncated", "corrupt", "not-a-film")
        else:  # a TIFF may end in bytes that say nothing of the picture
            assert kind == "TIFF"
            np.testing.assert_array_equal(values, whole)


def test_a_png_with_a_wrong_check_sum_is_refused() -> None:
    data = bytearray(coded(GREY, "PNG"))
    at = data.index(b"IDAT") + 60
    data[at] ^= 1
    assert code_of(bytes(data)) == "corrupt"


def test_bombs_are_refused_by_their_header() -> None:
    data = bytearray(coded(GREY, "PNG"))
    struct.pack_into(">II", data, 16, 60_000, 60_000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    assert code_of(bytes(data)) == "too-large"
    data = bytearray(coded(GREY, "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 60_000, 60_000)
    assert code_of(bytes(data)) == "too-large"
    data = bytearray(coded(GREY, "TIFF"))
    for tag in (256, 257):
        at = next(i for i in range(len(data)) if data[i : i + 2] == struct.pack("<H", tag))
        data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 60_000)
    assert code_of(bytes(data)) == "too-large"


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    data = coded(GREY, "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    scan = data[at:-2]
    assert code_of(data[:at] + scan * (LIMITS.scans + 1) + data[-2:]) == "too-large"


def test_deep_or_lossless_jpeg_outside_dicom_is_unsupported() -> None:
    data = bytearray(coded(GREY, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert code_of(bytes(data)) == "unsupported"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_constant_picture_is_no_film(kind: str) -> None:
    assert code_of(coded(np.full((40, 50), 77, np.uint8), kind)) == "constant"
    nearly = np.full((40, 50), 77, np.uint8)
    nearly[39, 49] = 200
    if kind != "JPEG":
        assert read(coded(nearly, kind)).pixels.max() == 200


def test_garbage_behind_a_whole_film_does_not_matter() -> None:
    for kind in ("JPEG", "PNG"):
        data = coded(GREY, kind)
        np.testing.assert_array_equal(read(data + b"tail" * 50).pixels, read(data).pixels)
