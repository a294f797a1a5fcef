"""What every real DICOM file and every stranger's picture at hand must give.

``expected.csv``: ``outcome`` is ``answer``, ``refused:<codes>`` or ``unreadable:<code>``; a refused
film is read all the same, and ``pixels`` is the digest of its 64 × 64 pixels, the code of why
there are none, or ``lossy`` for JPEG 2000's irreversible transform, which is computed in floats.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from hilum.errors import UnreadableFilm
from hilum.films.preprocess import Preprocessing, described, preprocess
from hilum.films.read import read

TABLE = Path(__file__).parent / "expected.csv"
SMALL = Preprocessing(64)

pytestmark = pytest.mark.films


def outcome(path: Path) -> tuple[str, str]:
    try:
        film = read(path)
    except UnreadableFilm as error:
        return f"unreadable:{error.code}", error.code
    codes = [reason.code for reason in film.refusals]
    try:
        pixels, _, reasons = described(film, SMALL)
    except UnreadableFilm as error:
        return (f"refused:{'+'.join(codes)}" if codes else f"unreadable:{error.code}"), error.code
    codes += [reason.code for reason in reasons if reason.refers]
    irreversible = (film.header.compression or "").endswith("JPEG 2000 Image Compression")
    digest = "lossy" if irreversible else hashlib.sha256(pixels.tobytes()).hexdigest()[:12]
    return (f"refused:{'+'.join(codes)}" if codes else "answer"), digest


def rows() -> list[dict[str, str]]:
    with TABLE.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_is_complete(films_folder: Path) -> None:
    there = {
        str(path.relative_to(films_folder))
        for part in ("dicom", "ood")
        for path in (films_folder / part).glob("*/*")
    }
    assert {row["file"] for row in rows()} == there


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["file"])
def test_each_file_gives_what_it_must(films_folder: Path, row: dict[str, str]) -> None:
    assert outcome(films_folder / row["file"]) == (row["outcome"], row["pixels"])


# Lossless copies that the same source film was made into; the rest of the header is the same.
TWINS = [
    ("robyoung_MR4_RLE.dcm", "robyoung_MR4_J2KR.dcm"),
    ("robyoung_MR4_RLE.dcm", "robyoung_MR4_JPLL.dcm"),
    ("robyoung_MR3_JLSL.dcm", "robyoung_MR3_JPLL.dcm"),
    ("robyoung_VL1_RLE.dcm", "robyoung_VL1_J2KR.dcm"),
    ("robyoung_MR_small_RLE.dcm", "robyoung_MR_small_expb.dcm"),
    ("robyoung_MR_small_RLE.dcm", "robyoung_MR_small_implicit.dcm"),
    ("robyoung_emri_small.dcm", "robyoung_emri_small_jpeg_2k_lossless.dcm"),
    ("robyoung_emri_small.dcm", "robyoung_emri_small_jpeg_ls_lossless.dcm"),
    ("robyoung_emri_small.dcm", "robyoung_emri_small_big_endian.dcm"),
    ("robyoung_emri_small.dcm", "robyoung_emri_small_RLE.dcm"),
    ("robyoung_liver_expb_1frame.dcm", "robyoung_liver.dcm"),
    ("robyoung_rtdose_1frame.dcm", "robyoung_rtdose_expb_1frame.dcm"),
    ("robyoung_SC_rgb_16bit.dcm", "robyoung_SC_rgb_rle_16bit.dcm"),
    ("robyoung_SC_rgb_32bit.dcm", "robyoung_SC_rgb_expb_32bit.dcm"),
]

# Lossy copies: mean difference in grey levels of 255 after the window, which for the MR and XA
# images is narrow and enlarges it.
LOSSY = [
    ("robyoung_MR4_RLE.dcm", "robyoung_MR4_J2KI.dcm", 4.0),
    ("robyoung_MR4_RLE.dcm", "robyoung_MR4_JLSN.dcm", 2.0),
    ("robyoung_MR4_RLE.dcm", "robyoung_MR4_JPLY.dcm", 4.0),
    ("robyoung_MR3_JLSL.dcm", "robyoung_MR3_JLSN.dcm", 4.0),
    ("robyoung_RG3_JLSN.dcm", "robyoung_RG3_JPLY.dcm", 1.0),
    ("robyoung_RG3_JLSN.dcm", "robyoung_RG3_J2KI.dcm", 1.0),
    ("robyoung_XA1_J2KI.dcm", "robyoung_XA1_JPLY.dcm", 2.0),
    ("robyoung_XA1_J2KI.dcm", "robyoung_XA1_JLSN.dcm", 2.0),
    ("robyoung_VL1_RLE.dcm", "robyoung_VL1_J2KI.dcm", 3.0),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_lossless_twins(films_folder: Path, one: str, other: str) -> None:
    folder = films_folder / "dicom/other"
    np.testing.assert_array_equal(read(folder / one).pixels, read(folder / other).pixels)


@pytest.mark.parametrize(("one", "other", "bound"), LOSSY)
def test_lossy_twins(films_folder: Path, one: str, other: str, bound: float) -> None:
    folder = films_folder / "dicom/other"
    difference = read(folder / one).pixels.astype(float) - read(folder / other).pixels
    assert 0 < np.abs(difference).mean() < bound


@pytest.mark.parametrize(
    "name",
    ["chest/pydicom_966_fixed.dcm", "chest/robyoung_RG1_JLSN.dcm", "other/robyoung_MR3_JLSL.dcm"],
)
def test_a_second_decoder_agrees(
    films_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDCM instead of OpenJPEG and CharLS: lossless and near-lossless values are exact."""
    from hilum.films import codecs

    path = films_folder / "dicom" / name
    ours = read(path).pixels
    monkeypatch.setattr(codecs, "DECODERS", dict.fromkeys(codecs.DECODERS, "gdcm"))
    np.testing.assert_array_equal(read(path).pixels, ours)


def test_the_relabelled_film_is_the_other_ones_negative_and_is_noticed(films_folder: Path) -> None:
    folder = films_folder / "dicom/chest"
    film = read(next(folder.glob("mlmed_1.2.276*")))
    fake = read(folder / "mlmed_Fake_MONOHR1.dcm")
    np.testing.assert_array_equal(255 - fake.pixels, film.pixels)
    assert [reason.code for reason in described(fake, SMALL)[2]] == ["negative"]
    assert described(film, SMALL)[2] == ()


def test_real_films_give_the_same_pixels_from_path_and_bytes(films_folder: Path) -> None:
    for path in sorted((films_folder / "kermany_original").rglob("*.jpeg"))[::40]:
        np.testing.assert_array_equal(
            preprocess(read(path), SMALL), preprocess(read(path.read_bytes()), SMALL)
        )
