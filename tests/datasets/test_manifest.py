from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.datasets.manifest import PARTS, Manifest, is_manifest
from hilum.errors import UsageError


def manifest(root: Path = Path("/films"), n: int = 6) -> Manifest:
    return Manifest(
        root=root,
        path=tuple(f"a/{i}.png" for i in range(n)),
        label=np.array([(0, 1, -1)[i % 3] for i in range(n)], np.int8),
        patient=tuple(f"p{i // 2}" for i in range(n)),
        part=tuple(("train", "test")[i // 4] for i in range(n)),
        extra={"view": tuple(("PA", "")[i % 2] for i in range(n))},
        task="effusion",
        classes=("none", "effusion"),
        notes={"drawn": {"shares": {"test": 0.15}}},
    )


def same(a: Manifest, b: Manifest) -> bool:
    return (
        (a.root, a.path, a.patient, a.part, a.extra, a.task, a.classes, a.notes)
        == (b.root, b.path, b.patient, b.part, b.extra, b.task, b.classes, b.notes)
        and a.label.tolist() == b.label.tolist()
        and b.label.dtype == np.int8
    )


def test_comes_back_as_it_was_written(tmp_path):
    made = manifest()
    made.write(tmp_path / "films.csv")
    assert is_manifest(tmp_path / "films.csv")
    assert same(made, Manifest.read(tmp_path / "films.csv"))


# Anything that a file system or a table may hold, without the surrogates that UTF-8 has no way for.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.lists(st.tuples(text, st.sampled_from([-1, 0, 1]), text, st.sampled_from(("", *PARTS)))))
def test_any_text_comes_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    path, label, patient, part = zip(*rows, strict=True) if rows else ((), (), (), ())
    made = Manifest(Path("/r"), path, np.array(label, np.int8), patient, part)
    made.write(folder / "films.csv")
    assert same(made, Manifest.read(folder / "films.csv"))


def test_json_says_what_is_in_it(tmp_path):
    manifest().write(tmp_path / "films.csv")
    about = json.loads((tmp_path / "films.json").read_text())
    assert about["format"] == 1
    assert about["positive"] == "effusion"
    assert about["counts"] == {
        "train": {"none": 2, "effusion": 1, "patients": 2},
        "test": {"none": 0, "effusion": 1, "patients": 1},
    }
    assert about["digest"] == manifest().digest


def test_digest_follows_rows_and_nothing_else():
    first = manifest()
    assert first.digest == manifest(Path("/elsewhere")).digest
    assert first.digest != first.select(np.arange(5)).digest
    assert first.digest != first.select(np.arange(6)[::-1]).digest


def test_an_edited_table_is_read_as_it_is_now_and_says_so(tmp_path):
    manifest().write(tmp_path / "films.csv")
    table = (tmp_path / "films.csv").read_text().replace("a/0.png,0,", "a/0.png,1,")
    (tmp_path / "films.csv").write_text(table)
    read = Manifest.read(tmp_path / "films.csv")
    assert read.label[0] == 1
    assert any("edited" in line for line in read.remarks())


def test_a_film_that_was_written_in_twice_is_refused(tmp_path):
    manifest().write(tmp_path / "films.csv")
    head, first, *rest = (tmp_path / "films.csv").read_text().splitlines()
    (tmp_path / "films.csv").write_text("\n".join([head, first, *rest, first]))
    with pytest.raises(UsageError, match=r"a film stands twice: a/0\.png"):
        Manifest.read(tmp_path / "films.csv")


def test_a_patient_that_was_taken_out_is_no_patient_of_others(tmp_path):
    manifest().write(tmp_path / "films.csv")
    table = (tmp_path / "films.csv").read_text().replace(",p0,", ",,").replace(",p2,", ",,")
    (tmp_path / "films.csv").write_text(table)
    read = Manifest.read(tmp_path / "films.csv")
    assert read.patient == ("a/0.png", "a/1.png", "p1", "p1", "a/4.png", "a/5.png")
    assert any("no patient is known for 4 films" in line for line in read.remarks())


def test_select_takes_masks_and_indices():
    made = manifest()
    assert made.select(np.array([4, 1])).path == ("a/4.png", "a/1.png")
    masked = made.select(made.label == 1)
    assert masked.path == ("a/1.png", "a/4.png")
    assert masked.extra["view"] == ("", "PA")
    assert masked.task == made.task


def test_of_part():
    assert manifest().of_part("test").path == ("a/4.png", "a/5.png")
    with pytest.raises(UsageError, match=r"no such part in these films: validation.*train, test"):
        manifest().of_part("validation")


def test_counts_by_part():
    assert manifest().counts() == [("train", 2, 1, 4, 2), ("test", 0, 1, 2, 1)]


def test_columns_of_other_lengths_are_a_defect():
    with pytest.raises(ValueError, match="patient"):
        Manifest(Path("/"), ("a",), np.zeros(1, np.int8), (), ("train",))


def test_a_part_that_is_none_is_a_defect():
    with pytest.raises(ValueError, match="no such part: holdout"):
        Manifest(Path("/"), ("a",), np.zeros(1, np.int8), ("p",), ("holdout",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(format=2), "newer hilum"),
        (lambda about: about.pop("root"), "missing or broken"),
        (lambda about: about.update(classes=["one"]), "lacks its keys"),
    ],
)
def test_a_broken_description_is_refused_in_a_line(tmp_path, change, message):
    manifest().write(tmp_path / "films.csv")
    about = json.loads((tmp_path / "films.json").read_text())
    change(about)
    (tmp_path / "films.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match=message) as caught:
        Manifest.read(tmp_path / "films.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path,label", "file,label", "begins with file"),
        ("a/0.png,0,", "a/0.png,7,", "not 0, 1 or empty"),
        (",train,", ",trian,", "no such part: trian"),
        ("a/1.png,1,p0,train,", "a/1.png,1", "row 3"),
    ],
)
def test_a_broken_table_is_refused_in_a_line(tmp_path, old, new, message):
    manifest().write(tmp_path / "films.csv")
    table = (tmp_path / "films.csv").read_text()
    assert old in table
    (tmp_path / "films.csv").write_text(table.replace(old, new))
    with pytest.raises(UsageError, match=message):
        Manifest.read(tmp_path / "films.csv")


def test_a_manifest_is_called_csv(tmp_path):
    with pytest.raises(UsageError, match=r"films\.csv"):
        manifest().write(tmp_path / "films.json")


def test_a_relative_root_lies_beside_the_table(tmp_path):
    manifest().write(tmp_path / "films.csv")
    about = json.loads((tmp_path / "films.json").read_text())
    about["root"] = "films"
    (tmp_path / "films.json").write_text(json.dumps(about))
    assert Manifest.read(tmp_path / "films.csv").files()[0] == tmp_path / "films/a/0.png"


@pytest.mark.parametrize("films_a_patient", [1, 4])
def test_a_film_takes_less_than_a_tenth_of_a_kilobyte(tmp_path, films_a_patient):
    n = 20_000
    whole = Manifest(
        root=tmp_path,
        path=tuple(f"PNEUMONIA/VIRUS-{10**7 + row}-0001.jpeg" for row in range(n)),
        label=np.arange(n, dtype=np.int8) % 2,
        patient=tuple(f"mendeley-{10**7 + row // films_a_patient}" for row in range(n)),
        part=tuple(PARTS[row % 3] for row in range(n)),
        extra={"view": tuple(("PA", "AP")[row % 2] for row in range(n))},
    )
    whole.write(tmp_path / "films.csv")
    tracemalloc.start()
    try:
        read = Manifest.read(tmp_path / "films.csv")
        kept, most = (number / n for number in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert same(read, whole)
    assert kept < 80, f"{kept:.0f} bytes a film"
    assert most < 100, f"{most:.0f} bytes a film while it is read and its digest made"
