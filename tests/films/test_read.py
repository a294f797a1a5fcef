from __future__ import annotations

import io
import os
from pathlib import Path

import dicoms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hilum.errors import UnreadableFilm, UsageError
from hilum.films.limits import LIMITS, Limits
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import find, read, sniff

GREY = dicoms.chest(bits=8)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def code_of(source: object) -> str:
    with pytest.raises(UnreadableFilm) as caught:
        film = read(source)  # type: ignore[arg-type]
        _ = film.pixels
    assert caught.value.text and "\n" not in caught.value.text
    return caught.value.code


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not-a-film"),
        (b"  \n<html>", "not-a-film"),
        (b"path,label\na.png,1\n", "not-a-film"),
        (b"GIF89a" + bytes(50), "not-a-film"),
        (b"%PDF-1.7\n", "not-a-film"),
        (b"PK\x03\x04" + bytes(50), "not-a-film"),
        (bytes(5000), "not-a-film"),
        (b"\x01\x02\x03\x04" * 40, "not-a-film"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"II*\0", "corrupt"),
        (bytes(128) + b"DICM", "not-a-film"),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".dcm", ""])
def test_what_is_no_film_says_so_whatever_its_name(
    tmp_path: Path, content: bytes, code: str, suffix: str
) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(content)
    assert code_of(path) == code
    assert code_of(content) == code


def test_places_without_a_film(tmp_path: Path) -> None:
    assert code_of(tmp_path / "absent.png") == "missing"
    assert code_of(tmp_path) == "not-a-film"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)  # else opening it would wait for a writer
    try:
        assert code_of(tmp_path / "pipe") == "not-a-film"
    finally:
        os.close(reader)


def test_a_folder_of_films_names_no_type(tmp_path: Path) -> None:
    """Content alone tells the type: a PNG named .dcm and a DICOM film named .jpg are read."""
    (tmp_path / "a.dcm").write_bytes(png(GREY))
    (tmp_path / "b.jpg").write_bytes(dicoms.film(GREY))
    assert read(tmp_path / "a.dcm").format == "png"
    assert read(tmp_path / "b.jpg").format == "dicom"


def test_path_bytes_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    data = png(GREY)
    (tmp_path / "a.png").write_bytes(data)
    small = Preprocessing(32)
    films = [read(tmp_path / "a.png"), read(str(tmp_path / "a.png")), read(data), read(GREY)]
    pixels = [preprocess(film, small) for film in films]
    for other in pixels[1:]:
        np.testing.assert_array_equal(pixels[0], other)
    assert films[0].sha256 == films[2].sha256
    assert films[0].name == str(tmp_path / "a.png") and films[2].name == "<bytes>"


def test_pixels_are_read_only_and_an_array_is_kept_as_it_was() -> None:
    mine = GREY.copy()
    film = read(mine)
    mine[:] = 7
    np.testing.assert_array_equal(film.pixels, GREY)
    with pytest.raises(ValueError, match="read-only"):
        film.pixels[0, 0] = 1


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((4, 4, 3), np.uint8), "unsupported"),
        (np.zeros((0, 4), np.uint8), "unsupported"),
        (np.zeros((4, 4), bool), "unsupported"),
        (np.full((9, 9), 3, np.uint8), "constant"),
        (np.linspace(-3, 3, 100).reshape(10, 10), "unsupported"),
        (np.linspace(0, 900, 100).reshape(10, 10), "unsupported"),
        (np.full((3, 3), np.nan), "unsupported"),
    ],
)
def test_arrays_that_are_no_film(array: np.ndarray, code: str) -> None:
    assert code_of(array) == code


@pytest.mark.parametrize("thing", [1, 10**12, None, io.BytesIO(b""), ["a.jpg"]])
def test_what_no_film_can_be_is_a_wrong_call(thing: object) -> None:
    with pytest.raises(UsageError, match="not a film: "):
        read(thing)  # type: ignore[arg-type]


def test_float_arrays_of_both_ranges_are_the_same_film() -> None:
    unit = GREY / 255
    for array in (unit, unit.astype(np.float32), GREY.astype(np.float64)):
        np.testing.assert_allclose(read(array).pixels, GREY, atol=1e-4)


def test_limits() -> None:
    small = Limits(bytes=10, pixels=100)
    small.check_bytes(10)
    small.check_pixels(10, 10)
    for check in (lambda: small.check_bytes(11), lambda: small.check_pixels(101, 1)):
        with pytest.raises(UnreadableFilm) as caught:
            check()
        assert caught.value.code == "too-large"
    with pytest.raises(UnreadableFilm):
        small.check_pixels(0, 5)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as stream:  # sparse: takes no room
        stream.write(png(GREY))
        stream.truncate(LIMITS.bytes + 1)
    assert code_of(path) == "too-large"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", bytes(128) + b"DICM"):
        try:
            _ = read(start + data).pixels
        except UnreadableFilm as error:
            assert error.code


def test_sniff_needs_content() -> None:
    assert sniff(png(GREY)) == "png"
    assert sniff(dicoms.film(GREY)) == "dicom"
    assert sniff(dicoms.film(GREY)[132:]) == "dicom"  # no preamble
    assert sniff(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100") == "dicom"  # no meta header either
    assert sniff(b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100") == "dicom"  # big endian
    assert sniff(b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100") == "dicom"  # implicit
    assert sniff(b"hello") is None


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_find_walks_folders_and_passes_over_what_is_plainly_no_film(tmp_path: Path) -> None:
    films = [touch(tmp_path / name) for name in ("b.jpeg", "a/1.dcm", "a/noextension", "a/B.PNG")]
    strays = ("a/.DS_Store", "Thumbs.db", "labels.csv", "README", "a/._1.dcm", "page.html")
    for name in strays:
        touch(tmp_path / name)
    touch(tmp_path / ".hidden/c.png")
    passed: list[Path] = []
    assert find(tmp_path, passed=passed) == sorted(films)
    assert sorted(path.name for path in passed) == sorted(Path(name).name for name in strays)


@pytest.mark.parametrize(
    "files",
    [
        ["lock"],  # a run that has just claimed its folder
        ["recipe.toml", "environment.json", "augmented.png", "model.hilum/x.png", "checkpoint.pt"],
        ["metrics.json", "scores.csv", "figures/roc.png", "figures/roc.svg"],
        ["duplicates.csv", "facts.csv", "figures/a.png"],
        ["plan.json", "lock", "figures/a.png"],
        ["heatmaps.csv", "a.png"],
    ],
)
def test_results_beside_the_films_are_no_films(tmp_path: Path, files: list[str]) -> None:
    film = touch(tmp_path / "NORMAL/a.png")
    for name in files:
        touch(tmp_path / "result" / name)
    assert find(tmp_path) == [film]
    assert find(tmp_path / "result") == []  # nor where the result itself is named
    other = touch(tmp_path / "NORMAL/below/metrics.json").with_name("b.png")
    assert find(tmp_path) == [film] and find([touch(other), film]) == [other, film]
    assert sorted(find(tmp_path)) == [film, other]  # one such name alone is no result of hilum's


def test_find_takes_what_is_named_outright_patterns_and_each_film_once(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "b.jpg"), touch(tmp_path / "a.jpg")
    table = touch(tmp_path / "labels.csv")
    assert find([first, table]) == [first, table]
    assert find([f"{tmp_path}/*.jpg"]) == [second, first]
    assert find([first, tmp_path]) == [first, second]
    assert find([f"{tmp_path}/**/a.jpg", second]) == [second]


def test_find_says_what_is_missing(tmp_path: Path) -> None:
    for source in (tmp_path / "none", f"{tmp_path}/*.gif"):
        with pytest.raises(UsageError, match=r"none|matches"):
            find(source)


def test_find_follows_links_once(tmp_path: Path) -> None:
    film = touch(tmp_path / "set/a.png")
    (tmp_path / "set/again").symlink_to(tmp_path / "set")
    (tmp_path / "view").symlink_to(tmp_path / "set")
    assert find(tmp_path / "set") == [film]
    assert [path.name for path in find(tmp_path / "view")] == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a matter of Unix")
@pytest.mark.timeout(20)
def test_a_named_pipe_is_no_film_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableFilm, match="this is not a file"):
        read(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "film.dcm")
    assert code_of(tmp_path / "film.dcm") == "not-a-film"
