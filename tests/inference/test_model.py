from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

import hilum
from hilum.bundle import Bundle
from hilum.errors import BundleRefused, UsageError
from hilum.films.preprocess import Preprocessing
from hilum.inference.model import Model, prepare


@pytest.mark.parametrize(
    ("age", "youngest", "answered"),
    [
        (5.0, 5.5, True),  # 005Y, by a model that learnt from 066M
        (4.99, 5.5, False),
        (2.0, 2.25, True),
        (1.0, 1.5, False),  # under two, months count
        (1.5, 1.5, True),
    ],
)
def test_the_youngest_is_counted_as_people_do(
    bundle: Bundle, age: float, youngest: float, answered: bool
) -> None:
    model = Model(replace(bundle, intended_use={"ages": [youngest, 90]}))
    pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    film = replace(prepare(pixels, Preprocessing(32)), age=age)
    refusals, _ = model._refusals(film, False)
    assert [reason.code for reason in refusals] == ([] if answered else ["age"])


def test_a_film_gets_the_same_answer_by_every_way(bundle: Bundle, grey_films: Path) -> None:
    model = Model(bundle, threads=1)
    path = grey_films / "bright.png"
    data = path.read_bytes()
    array = np.asarray(Image.open(io.BytesIO(data)))
    answers = model.predict([path, str(path), data, hilum.read(path), array])
    assert {a.probability for a in answers} == {answers[0].probability}
    assert {a.decision for a in answers} == {"positive"}
    assert {a.sha256 for a in answers[:4]} == {answers[0].sha256}
    assert model.predict(path)[0].film == str(path)


def test_one_bad_film_costs_one_record(bundle: Bundle, grey_films: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((grey_films / "dark.png").read_bytes()[:60])
    order = [grey_films / "dark.png", broken, grey_films / "bright.png"] * 20
    answers = Model(bundle, threads=1).predict(order)
    assert [a.film for a in answers] == [str(p) for p in order]
    for a, b, c in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
        assert (a.decision, b.decision, c.decision) == ("negative", None, "positive")
        assert b.error is not None and b.error.code and b.error.text and b.probability is None
        assert b.words == "could not be read"


def test_the_record_has_the_keys_of_the_docs(bundle: Bundle, grey_films: Path) -> None:
    record = Model(bundle).predict(grey_films / "bright.png")[0].as_dict()
    assert list(record) == [
        "film", "sha256", "target", "decision", "probability", "operating_point", "reasons",
        "steps", "findings", "model", "milliseconds", "error",
    ]  # fmt: skip
    assert json.loads(json.dumps(record)) == record
    assert record["operating_point"] == {"name": "balanced", "threshold": 0.5}


def test_the_operating_point_decides(bundle: Bundle) -> None:
    model = Model(bundle)
    film = np.tile(np.linspace(90, 130, 40).astype(np.uint8), (40, 1))
    assert model.predict(film)[0].decision == "negative"
    assert model.predict(film, operating_point="screening")[0].decision == "positive"
    with pytest.raises(UsageError, match="no such operating point"):
        model.predict(film, operating_point="other")


def test_heat_maps_and_pictures(bundle: Bundle, grey_films: Path) -> None:
    plain, shown = (
        Model(bundle).predict(grey_films / "bright.png", heatmaps=heat)[0] for heat in (False, True)
    )
    assert shown.heat is not None and shown.heat_kind == "class activation"
    assert Image.open(io.BytesIO(shown.picture())).size[0] >= 32
    assert "suspected" in shown._repr_html_() and "base64" in shown._repr_html_()
    with pytest.raises(ValueError, match="heatmaps=True"):
        plain.picture()


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused):
        hilum.load(tmp_path)


def test_a_model_refers_what_it_was_not_made_for(bundle: Bundle, tmp_path: Path) -> None:
    from hilum.datasets import phantom
    from hilum.films.read import find

    use = {"ages": [20, 90], "views": ["PA"]}
    model = Model(replace(bundle, intended_use=use), threads=1)
    made = phantom.make(tmp_path / "d", patients=4, size=(64, 80), layout="dicom")  # aged 1 to 5
    answers = model.predict(find([made]))
    assert {a.decision for a in answers} == {"refer"}
    assert {a.probability for a in answers} == {None}
    assert "age" in {reason.code for reason in answers[0].reasons}
    beyond = model.predict(find([made]), beyond_intended_use=True)
    assert all(a.probability is not None for a in beyond)
    assert "age" in {reason.code for reason in beyond[0].reasons}


@pytest.mark.films
def test_what_the_header_refuses_is_referred_with_or_without_pixels(
    bundle: Bundle, films_folder: Path
) -> None:
    chest = films_folder / "dicom" / "chest"
    lateral, empty = Model(bundle, threads=1).predict(
        [chest / "ImagingDataCommons_dx_image.dcm", chest / "pydicom_chrJapMulti.dcm"]
    )
    assert (lateral.decision, empty.decision) == ("refer", "refer")
    assert {"lateral", "animal"} <= {reason.code for reason in lateral.reasons}
    assert {reason.code for reason in empty.reasons} == {"no-pixels"}


def test_what_a_header_writes_for_a_modality_is_not_quoted(bundle: Bundle) -> None:
    ds = Dataset()
    ds.Modality, ds.Rows, ds.Columns = "DOE^JANE", 1, 1
    header = io.BytesIO()
    ds.save_as(header, implicit_vr=False, little_endian=True)
    model = Model(replace(bundle, intended_use={"modalities": ["DX"]}), threads=1)
    (answer,) = model.predict([header.getvalue()], workers=0)
    assert [reason.code for reason in answer.reasons][-1] == "modality"
    assert "DOE" not in str(answer.reasons)


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (0.5, "6 months old"),
        (0.99, "11 months old"),
        (1.0, None),
        (1.5, None),
        (5.0, None),
        (5.5, None),  # 066M is a child of five
        (6.0, "6 years old"),
        (64.48, "64 years old"),
    ],
)
def test_ages_are_held_against_the_models_as_people_count_them(
    bundle: Bundle, age: float, said: str | None
) -> None:
    model = Model(replace(bundle, intended_use={"ages": [1, 5]}))
    film = replace(
        prepare(np.tile(np.arange(64, dtype=np.uint8), (64, 1)), Preprocessing(32)), age=age
    )
    refusals, _ = model._refusals(film, False)
    assert [reason.code for reason in refusals] == ([] if said is None else ["age"])
    assert said is None or said in refusals[0].text
