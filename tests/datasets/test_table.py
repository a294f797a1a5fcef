from __future__ import annotations

import gzip

import pytest

from hilum.datasets.index import index
from hilum.datasets.sources.table import years
from hilum.errors import Refused, UsageError
from hilum.names import hashed


@pytest.fixture
def films(write):
    return write(*(f"films/{i}.png" for i in range(20)))


def table(root, *rows: str, name: str = "labels.csv") -> object:
    path = root / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "heads",
    ["path,label", "Image Path,Class", "FILE_NAME,target", "filename;Finding", "image\tlabel"],
)
def test_columns_by_their_usual_names(films, root, heads):
    mark = next(c for c in ",;\t" if c in heads)
    path = table(root, heads, *(f"films/{i}.png{mark}{i % 2}" for i in range(20)))
    manifest = index(path, draw=False)
    assert manifest.label.tolist() == [int(p.split("/")[-1][:-4]) % 2 for p in manifest.path]
    assert manifest.classes == ("no pneumonia", "pneumonia")
    assert all(file.is_file() for file in manifest.files())


def test_patients_parts_and_more(films, root):
    rows = [
        f"films/{i}.png,{'Normal' if i < 10 else 'Pneumonia'},Meier {i // 2},{p},PA"
        for i, p in enumerate(["train"] * 5 + ["val"] * 3 + ["test"] * 2 + ["train"] * 10)
    ]
    path = table(root, "path,label,patient_id,split,view position", *rows)
    with pytest.raises(Exception, match="two parts"):
        index(path)
    manifest = index(path, allow_leak=True, draw=False)
    assert manifest.parts() == ["train", "validation", "test"]
    assert hashed("Meier 3") in manifest.patient
    assert not any("Meier" in patient for patient in manifest.patient)
    assert set(manifest.extra["view"]) == {"PA"}
    assert manifest.classes == ("Normal", "Pneumonia")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        *(("58", "58"), ("058Y", "58"), ("4.5", "4.5"), ("3 years", "3"), ("2 yrs.", "2")),
        *(("018M", "1.5"), ("18 months", "1.5"), ("6mo", "0.5"), ("26 w", "0.498275")),
        *(("", ""), ("adult", ""), ("-3", ""), ("414Y", ""), ("1e2", ""), ("5 mice", "")),
    ],
)
def test_an_age_as_tables_write_it(text, known):
    assert years(text) == known


def test_ages_are_kept_in_years(films, root):
    rows = [f"films/{i}.png,{i % 2},{i + 1} months" for i in range(20)]
    manifest = index(table(root, "path,label,age", *rows), draw=False)
    assert sorted(map(float, manifest.extra["age"])) == pytest.approx(
        [month / 12 for month in range(1, 21)], rel=1e-4
    )


def test_films_elsewhere_by_path_or_stem(films, root, tmp_path):
    (tmp_path / "tables").mkdir()
    path = table(tmp_path / "tables", "path,label", *(f"{i}.jpg,{i % 2}" for i in range(20)))
    with pytest.raises(Refused, match=r"none of the films is there.*--images"):
        index(path)
    manifest = index(path, images=[root / "films"], draw=False)
    assert len(manifest) == 20
    assert manifest.root == root / "films"


def test_rows_without_a_film_or_a_label_are_left_out_and_counted(films, root):
    rows = [*(f"films/{i}.png,{i % 2}" for i in range(18)), "films/99.png,1", "films/18.png,"]
    manifest = index(table(root, "path,label", *rows), draw=False)
    assert len(manifest) == 18
    assert [left["films"] for left in manifest.notes["left_out"]] == [1, 1]
    assert "films/99.png" in " ".join(manifest.remarks())


def test_minus_one_is_unknown_and_no_negative_number_is_a_class(films, root):
    rows = [f"films/{i}.png,{('0', '1', '-1', '-1.0')[i % 4]}" for i in range(20)]
    manifest = index(table(root, "path,label", *rows), draw=False)
    assert manifest.label.tolist().count(1) == manifest.label.tolist().count(0) == 5
    assert "left out: 10 rows, their label is -1 (unknown)." in manifest.remarks()
    manifest = index(table(root, "path,label", *rows), positive="1", draw=False)
    assert len(manifest) == 10
    with pytest.raises(Refused, match=r"no films: .*labels\.csv\. 20 rows left out, their label"):
        index(table(root, "path,label", *(f"films/{i}.png,-1" for i in range(20))))
    with pytest.raises(Refused, match=r"only one class: 10 films of 1 .*\(10 rows left out, their"):
        index(table(root, "path,label", *(f"films/{i}.png,{(1, -1)[i % 2]}" for i in range(20))))
    for label in ("-2", "- 0.5", "\u22122", "nan"):
        path = table(root, "path,label", *rows[:-1], f"films/19.png,{label}")
        for positive in (None, "1"):
            with pytest.raises(UsageError, match=f"not a class: {label} .1 films"):
                index(path, positive=positive)


def test_gzip_and_byte_order_mark(films, root):
    text = "\ufeffpath,label\n" + "".join(f"films/{i}.png,{i % 2}\n" for i in range(20))
    (root / "labels.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert len(index(root / "labels.csv.gz", draw=False)) == 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["name,label", "films/0.png,1"], "no column of paths.*name, label.*path, filepath"),
        (["path,truth", "films/0.png,1"], "no column of labels"),
        (["path,label", "films/0.png,0", "films/1.png,1", "films/0.png,1"], "rows 2 and 4"),
        (["path,label", "films/0.png,0", "films/1.png,2"], "unknown class: 2"),
        (["path,label", "films/0.png,normal", "films/1.png,pnuemonia"], "Did you mean 'pneumonia'"),
        (["path,label,part", "films/0.png,0,train", "films/1.png,1,tst"], "no such part: 'tst'"),
        (
            ["path,label,Label", "films/0.png,0,1", "films/1.png,1,0"],
            "two columns.*label and Label",
        ),
        ([""], "no heads"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(films, root, rows, message):
    with pytest.raises(UsageError, match=message) as caught:
        index(table(root, *rows))
    assert "\n" not in str(caught.value)


def test_no_text(root):
    (root / "labels.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UsageError, match="not a table"):
        index(root / "labels.csv")


def test_a_packed_table_that_is_broken(root):
    packed = gzip.compress(b"path,label\n" + bytes(range(32, 127)) * 99)
    for data in (packed[:60], packed[:30] + b"\xff" * 20 + packed[50:], b"path,label\n"):
        (root / "labels.csv.gz").write_bytes(data)
        with pytest.raises(UsageError, match=r"not a table: .*UTF-8") as caught:
            index(root / "labels.csv.gz")
        assert "\n" not in str(caught.value)


def test_a_label_changed_in_the_table_changes_no_patient_and_no_part(films, root, monkeypatch):
    # Under some keys so few films leave a class out of a part, and another salt is drawn.
    monkeypatch.setattr("hilum.names._key", lambda folder: bytes(32))
    rows = [f"films/{i}.png,{i % 2},p{i}" for i in range(20)]
    before = index(table(root, "path,label,patient", *rows))
    rows[3] = "films/3.png,0,p3"
    after = index(table(root, "path,label,patient", *rows))
    assert after.patient == before.patient
    assert sum(a != b for a, b in zip(before.part, after.part, strict=True)) == 0


def test_only_stems_that_rows_need_must_be_told_apart(films, root, write):
    write("films/a/other.png", "films/b/other.png", "films/deep/20.png", "films/deep/20.jpg")
    rows = [f"{i}.jpeg,{i % 2}" for i in range(20)]
    path = table(root, "path,label", *rows)
    assert len(index(path, draw=False)) == 20  # "other" is twice, and no row asks for it
    path = table(root, "path,label", *rows, "20.jpeg,1")
    with pytest.raises(UsageError, match="two films of one name"):
        index(path, draw=False)
