"""Copies are found whatever was done to the file, and strangers are not."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from hilum.audit import duplicates
from hilum.audit.survey import SMALL, perceptual_hash
from hilum.datasets import phantom
from hilum.datasets.phantom import Patient
from hilum.films.workers import Workers

ORIGINAL = "train/PNEUMONIA/person1_virus_1.jpeg"


def small(film: np.ndarray) -> np.ndarray:
    square = Image.fromarray(film).resize((SMALL.size, SMALL.size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    copies = np.stack([small(a), small(b)])
    return next(duplicates.similarities(copies, np.array([[0, 1]])))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of strangers, and copies of some of them that are named otherwise."""
    folder = phantom.make(
        tmp_path_factory.mktemp("copies") / "films", films=150, seed=3, size=(160, 200)
    )
    films = sorted((folder / "train/PNEUMONIA").iterdir())
    normal = sorted((folder / "train/NORMAL").iterdir())
    shutil.copy(films[0], folder / "test/PNEUMONIA/person900_virus_1.jpeg")  # another part
    shutil.copy(films[1], folder / "train/NORMAL/IM-9001-0001.jpeg")  # another class
    Image.open(films[2]).save(folder / "train/PNEUMONIA/person902_virus_1.png")
    Image.open(films[3]).save(folder / "train/PNEUMONIA/person903_virus_1.jpeg", quality=35)
    with Image.open(normal[0]) as film:
        half = film.resize((film.width // 2, film.height // 2), Image.Resampling.BILINEAR)
        half.save(folder / "train/NORMAL/IM-9004-0001.jpeg", quality=80)
    with Image.open(normal[1]) as film:
        w, h = film.size
        cut = film.crop((round(0.01 * w), 0, w, round(0.99 * h)))
        ImageEnhance.Contrast(cut).enhance(0.7).save(folder / "train/NORMAL/IM-9005-0001.jpeg")
    return folder


def test_exactly_what_was_planted_is_found(planted: Path, looked_at) -> None:
    manifest, seen = looked_at(planted)
    groups = duplicates.find(manifest, seen, Workers(0))
    found = {}
    for group in groups:
        names = [Path(manifest.path[row]).stem for row in group.rows]
        assert len(names) == 2
        copy = next(name for name in names if "person90" in name or "IM-90" in name)
        found[copy] = group
    assert set(found) == {
        "person900_virus_1", "IM-9001-0001", "person902_virus_1", "person903_virus_1",
        "IM-9004-0001", "IM-9005-0001",
    }  # fmt: skip
    kinds = {name: group.kind for name, group in found.items()}
    assert kinds["person900_virus_1"] == kinds["IM-9001-0001"] == "file"
    assert kinds["person902_virus_1"] == "pixels"
    assert kinds["person903_virus_1"] == kinds["IM-9004-0001"] == kinds["IM-9005-0001"] == "near"
    assert found["person900_virus_1"].parts == 2 and found["IM-9001-0001"].labels == 2
    assert all(group.patients == 2 for group in groups)
    assert groups[0] is found["IM-9001-0001"] and groups[1] is found["person900_virus_1"]


def test_another_film_of_the_same_child_is_no_copy() -> None:
    rng = np.random.default_rng(0)
    for seed in range(12):
        child = Patient.drawn(rng)
        a, b = (phantom.draw(2 * seed + k, positive=True, patient=child) for k in (0, 1))
        assert similarity(a, b) < duplicates.ALIKE - 0.1


def test_exposure_and_compression_hardly_change_hash_and_similarity() -> None:
    for seed in range(6):
        film = phantom.draw(seed, positive=bool(seed % 2), size=(320, 400))
        stream = io.BytesIO()
        Image.fromarray(film).save(stream, "JPEG", quality=40)
        darker = (255 * (np.asarray(Image.open(stream)) / 255) ** 1.4).astype(np.uint8)
        hashes = [
            np.unpackbits(np.frombuffer(perceptual_hash(small(f)), np.uint8))
            for f in (film, darker)
        ]
        assert (hashes[0] != hashes[1]).sum() <= 24
        assert similarity(film, darker) > 0.95


def test_a_small_shift_is_aligned() -> None:
    film = phantom.draw(5, positive=False, size=(329, 329))
    one, moved = film[:320, :320], film[9:, 9:]  # by 1.8 pixels of the small copy
    assert similarity(one, moved) > duplicates.ALIKE


@given(seed=st.integers(0, 10_000), apart=st.integers(0, 10))
def test_near_hashes_are_candidates(seed: int, apart: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (60, 32), np.uint8)
    bits = np.unpackbits(hashes[17])
    bits[rng.permutation(256)[:apart]] ^= 1
    hashes[40] = np.packbits(bits)
    pairs = duplicates.candidates(hashes, np.arange(60))
    assert [17, 40] in pairs.tolist()  # up to 15 bits apart one of 16 bands must be equal
    assert len(pairs) == 1


def test_only_the_rows_asked_for_are_compared() -> None:
    hashes = np.zeros((5, 32), np.uint8)
    assert duplicates.candidates(hashes, np.array([1, 3])).tolist() == [[1, 3]]
    assert len(duplicates.candidates(hashes, np.array([2]))) == 0


def test_a_thousand_equal_hashes_cost_no_square_of_comparisons() -> None:
    hashes = np.zeros((4000, 32), np.uint8)
    start = time.perf_counter()
    pairs = duplicates.candidates(hashes, np.arange(4000), window=8)
    assert len(pairs) <= 8 * 4000
    assert time.perf_counter() - start < 5
