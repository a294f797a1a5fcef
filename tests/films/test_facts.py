"""Facts of a file beside its picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hilum.films.facts import file_facts, nearest_quality

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8))


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, kind, **options)
    return stream.getvalue()


@given(quality=st.integers(1, 100))
def test_the_quality_that_libjpeg_was_asked_for_is_read_back(quality: int) -> None:
    facts = file_facts(encoded("JPEG", quality=quality), "jpeg")
    stored = tuple(Image.open(io.BytesIO(encoded("JPEG", quality=quality))).quantization[0])
    assert facts.quantiser == stored
    # Near 0 and 100 neighbouring qualities share a table.
    assert nearest_quality(stored)[1] == 0.0
    assert facts.quality is not None and abs(facts.quality - quality) <= (1 if quality > 2 else 2)


def test_a_table_of_another_program_lies_away_from_libjpegs() -> None:
    other = [[2 + k // 8 for k in range(64)]]
    facts = file_facts(encoded("JPEG", qtables=other), "jpeg")
    assert facts.oddness is not None and facts.oddness > 0.1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_profile_and_exif_are_told_apart(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a note"
    plain = file_facts(encoded(kind), kind.lower())
    profiled = file_facts(encoded(kind, icc_profile=bytes(70_000)), kind.lower())
    assert plain.profile == 0 and profiled.profile == 70_000
    assert profiled.exif == plain.exif == 0
    if kind != "TIFF":  # there the notes are tags of the picture itself
        noted = file_facts(encoded(kind, exif=exif), kind.lower())
        assert noted.exif > 0 and noted.profile == 0 and noted.metadata > plain.metadata


def test_progressive_and_colour_jpegs() -> None:
    assert file_facts(encoded("JPEG", progressive=True), "jpeg").progressive
    stream = io.BytesIO()
    PICTURE.convert("RGB").save(stream, "JPEG")
    facts = file_facts(stream.getvalue(), "jpeg")
    assert facts.tables == 2 and not facts.progressive


def test_other_formats_have_a_size() -> None:
    assert file_facts(b"x" * 200, "dicom").size == 200


@given(st.data())
def test_broken_files_never_raise(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF"]))
    content = bytearray(encoded(kind, icc_profile=bytes(99)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(400, len(content) - 1)))] = data.draw(
            st.integers(0, 255)
        )
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    assert file_facts(cut, kind.lower()).size == len(cut)
