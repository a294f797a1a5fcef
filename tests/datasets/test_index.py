from __future__ import annotations

import os

import pytest

from hilum.datasets.index import index, open_data
from hilum.datasets.manifest import Manifest
from hilum.errors import HilumError, LeakError, Refused, UsageError
from hilum.progress import Progress


def kermany(patients: int, part: str = "") -> list[str]:
    """Paths as published, two films for every other child."""
    prefix = f"{part}/" if part else ""
    offset = {"": 0, "train": 0, "val": 1000, "test": 2000}[part]
    paths = []
    for i in range(offset, offset + patients):
        paths.append(f"{prefix}NORMAL/IM-{i:04d}-0001.jpeg")
        paths.append(f"{prefix}PNEUMONIA/person{i}_bacteria_{2 * i}.jpeg")
        if i % 2:
            paths.append(f"{prefix}PNEUMONIA/person{i}_bacteria_{2 * i + 1}.jpeg")
    return paths


def test_two_plain_folders(write, root):
    write(*kermany(40))
    manifest = index(root)
    assert len(manifest) == 100
    assert len(set(manifest.patient)) == 80
    assert manifest.classes == ("NORMAL", "PNEUMONIA")
    assert manifest.task == "pneumonia"
    assert manifest.parts() == ["train", "validation", "test"]
    assert (manifest.label == 1).sum() == 60
    assert manifest.path == tuple(sorted(manifest.path))
    assert all(file.is_file() for file in manifest.files())
    assert set(manifest.extra["subtype"]) == {"", "bacteria"}
    assert manifest.notes["drawn"]["shares"] == {"validation": 0.15, "test": 0.15}


def test_published_parts_are_kept_and_a_tiny_validation_part_is_merged(write, root):
    write(*kermany(40, "train"), *kermany(4, "val"), *kermany(20, "test"))
    manifest = index(root)
    in_test = [path.startswith("test/") for path in manifest.path]
    assert [part == "test" for part in manifest.part] == in_test
    assert manifest.notes["merged"]["films"] == 10
    assert list(manifest.notes["drawn"]["shares"]) == ["validation"]
    drawn = {path.split("/")[0] for path in manifest.of_part("validation").path}
    assert "train" in drawn
    assert any("merged" in line for line in manifest.remarks())


def test_a_published_validation_part_of_100_films_is_kept(write, root):
    write(*kermany(40, "train"), *kermany(40, "val"), *kermany(20, "test"))
    manifest = index(root)
    assert [p == "validation" for p in manifest.part] == [
        path.startswith("val/") for path in manifest.path
    ]
    assert "drawn" not in manifest.notes


def test_nothing_is_drawn_where_it_is_not_wanted(write, root):
    write(*kermany(10))
    assert index(root, draw=False).parts() == []
    assert index(root, validation=0, test=0).parts() == []


def test_breviglieris_names_and_archives_within_archives(write, root):
    write(
        *(
            f"a/b/{p.replace('NORMAL', 'normal').replace('PNEUMONIA', 'opacity')}"
            for p in (*kermany(40, "train"), *kermany(20, "test"))
        )
    )
    manifest = index(root)
    assert manifest.classes == ("normal", "opacity")
    assert manifest.part.count("test") == 50


def test_class_folders_or_parts_named_one_by_one(write, root):
    write(*kermany(40, "train"), *kermany(20, "test"))
    whole = index(root, draw=False)
    parts = index(root / "train", root / "test", draw=False)
    assert (parts.path, parts.part, parts.patient) == (whole.path, whole.part, whole.patient)
    classes = index(root / "train/NORMAL", root / "train/PNEUMONIA", draw=False)
    assert len(classes) == 100
    assert classes.patient == whole.of_part("train").patient


def test_other_classes_need_to_be_told_which_is_positive(write, root):
    write(*(f"covid/{i}.png" for i in range(20)), *(f"pnuemonia/{i}.png" for i in range(20)))
    with pytest.raises(UsageError, match=r"unknown class: covid.*--positive"):
        index(root)
    manifest = index(root, positive="COVID")
    assert (manifest.task, manifest.classes) == ("covid", ("pnuemonia", "covid"))
    with pytest.raises(UsageError, match="Did you mean 'covid'"):
        index(root, positive="covd")


def test_a_misspelt_class_is_told_its_nearest(write, root):
    write("NORMAL/a.png", "PNUEMONIA/b.png")
    with pytest.raises(UsageError, match=r"PNUEMONIA.*Did you mean 'pneumonia'"):
        index(root)


def test_three_folders_of_two_meanings(write, root):
    write(*(f"{name}/{i}.png" for name in ("normal", "bacteria", "virus") for i in range(20)))
    manifest = index(root)
    assert manifest.classes == ("normal", "pneumonia")
    assert (manifest.label == 1).sum() == 40


def test_stray_files_are_counted_and_broken_films_are_not_stray(write, root):
    write(*kermany(10))
    write("NORMAL/.DS_Store", "NORMAL/Thumbs.db", "notes.txt", "PNEUMONIA/list.csv", data=b"x")
    write("NORMAL/broken.jpeg", "PNEUMONIA/empty.dcm", "PNEUMONIA/nothing", data=b"")
    manifest = index(root, draw=False)
    assert manifest.notes["passed_over"]["files"] == 4
    assert {"NORMAL/broken.jpeg", "PNEUMONIA/empty.dcm", "PNEUMONIA/nothing"} <= set(manifest.path)
    assert any("4 files that are no films" in line for line in manifest.remarks())


def test_films_of_unknown_names_are_patients_of_their_own(write, root):
    write(
        *(
            f"{part}/{name}/{i}.png"
            for part in ("train", "test")
            for name in ("normal", "pneumonia")
            for i in range(30)
        )
    )
    manifest = index(root)  # the same names in train and test are no leak
    assert len(set(manifest.patient)) == 120
    assert any("no patient is known for 120 films" in line for line in manifest.remarks())


def test_a_patient_in_two_parts_is_refused_and_named(write, root):
    write(*kermany(40, "train"), *kermany(20, "test"), "test/PNEUMONIA/person7_bacteria_99.jpeg")
    with pytest.raises(LeakError) as caught:
        index(root)
    message = str(caught.value)
    assert "bacteria-7" in message
    assert "train/PNEUMONIA/person7_bacteria_14.jpeg (train)" in message
    assert "test/PNEUMONIA/person7_bacteria_99.jpeg (test)" in message
    assert "\n" not in message
    manifest = index(root, allow_leak=True)
    assert (manifest.notes["leak"], manifest.notes["leak_films"]) == (1, 3)
    assert manifest.remarks()[0].startswith("LEAK")


def test_a_leak_stays_written_in_the_manifest(write, root, tmp_path):
    write(*kermany(40, "train"), *kermany(20, "test"), "test/PNEUMONIA/person7_bacteria_99.jpeg")
    index(root, allow_leak=True).write(tmp_path / "films.csv")
    said = []

    class Listening(Progress):
        def say(self, text):
            said.append(text)

    assert open_data(tmp_path / "films.csv", progress=Listening()).notes["leak"] == 1
    assert any("LEAK" in line for line in said)


def test_a_leak_that_merging_and_drawing_mends_is_not_told(write, root):
    torn = ["val/PNEUMONIA/person7_bacteria_99.jpeg", "val/PNEUMONIA/person9_bacteria_98.jpeg"]
    write(*kermany(40, "train"), *kermany(10, "val"), *kermany(20, "test"), *torn)
    with pytest.raises(LeakError):
        index(root)
    manifest = index(root, allow_leak=True)
    assert manifest.notes["merged"]["films"] == 27
    assert not {"leak", "leak_films"} & set(manifest.notes)
    assert not any("LEAK" in line for line in manifest.remarks())
    assert index(root, allow_leak=True, draw=False).notes["leak"] == 2


def test_a_leak_that_is_mended_by_hand_is_not_told(write, root, tmp_path):
    write(*kermany(40, "train"), *kermany(20, "test"), "test/PNEUMONIA/person7_bacteria_99.jpeg")
    index(root, allow_leak=True, validation=0).write(tmp_path / "films.csv")
    text = (tmp_path / "films.csv").read_text()
    leaking = next(line for line in text.splitlines() if "person7_bacteria_99" in line)
    mended = text.replace(leaking, leaking.replace(",test,", ",train,"))
    (tmp_path / "films.csv").write_text(mended)
    manifest = open_data(tmp_path / "films.csv")
    assert not {"leak", "leak_films"} & set(manifest.notes)


def test_a_leak_made_by_hand_is_refused_too(write, root, tmp_path):
    write(*kermany(40))
    index(root).write(tmp_path / "films.csv")
    text = (tmp_path / "films.csv").read_text()
    old = next(line for line in text.splitlines() if "person7_bacteria_14" in line)
    part = old.split(",")[3]
    other = "test" if part != "test" else "train"
    (tmp_path / "films.csv").write_text(text.replace(old, old.replace(part, other)))
    with pytest.raises(LeakError):
        open_data([tmp_path / "films.csv"])


def test_a_manifest_is_read_as_it_is(write, root, tmp_path):
    write(*kermany(40))
    made = index(root)
    made.write(tmp_path / "films.csv")
    assert open_data(tmp_path / "films.csv", draw=False).digest == made.digest
    root.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="the films' folder is not there"):
        open_data(tmp_path / "films.csv")


@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        ([], Refused, "no films"),
        (["NORMAL/a.png"], Refused, "only one class: 1 film of NORMAL.*the other class, by"),
        (["virus/a.png", "bacteria/b.png"], Refused, "of bacteria and virus.*is positive"),
        (["NORMAL/a.png", "b.png"], UsageError, "outside any class folder"),
        (["train/a.png", "train/NORMAL/b.png"], UsageError, "outside any class folder"),
    ],
)
def test_what_cannot_be_a_data_set(write, root, paths, error, message):
    write(*paths)
    with pytest.raises(error, match=message) as caught:
        index(root)
    assert "\n" not in str(caught.value)


def test_wrong_names(root, tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        index(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="Did you mean 'folders'"):
        index(root, kind="folder")
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="cannot tell what this is"):
        index(tmp_path / "x.bin")


def test_the_same_source_twice(write, root):
    write(*kermany(10))
    with pytest.raises(HilumError, match="twice"):
        index(root, root)


def test_a_task_that_folders_do_not_ask_is_refused(write, root):
    write(*(f"{name}/{i}.png" for name in ("NORMAL", "PNEUMONIA") for i in range(3)))
    assert index(root, draw=False, task="pneumonia").task == "pneumonia"
    with pytest.raises(UsageError, match="no such task here: foo"):
        index(root, draw=False, task="foo")


def test_options_that_would_change_nothing_are_refused(write, root, tmp_path):
    write(*kermany(20))
    with pytest.raises(UsageError, match="--images is for the films that a table names"):
        index(root, images=[tmp_path])
    index(root).write(tmp_path / "films.csv")
    for option in (
        {"kind": "table"},
        {"positive": "NORMAL"},
        {"task": "effusion"},
        {"validation": 0.3},
        {"test": 0.0},
        {"images": (str(tmp_path),)},
    ):
        for given in (tmp_path / "films.csv", Manifest.read(tmp_path / "films.csv")):
            with pytest.raises(UsageError, match=f"--{next(iter(option))} changes nothing"):
                open_data(given, **option)
            with pytest.raises(TypeError, match="recipes"):
                open_data(given, recipes="paper2021")  # as for a folder, not passed over
    same = {"kind": "folders", "positive": "PNEUMONIA", "task": "pneumonia", "images": ()}
    assert len(open_data(tmp_path / "films.csv", **same, validation=0.15, test=0.15)) == 50


def test_one_class_of_several_names_asks_for_the_positive_one(write, root):
    write("bacteria/a.png", "virus/b.png")
    with pytest.raises(Refused, match=r"2 films of bacteria and virus.*--positive"):
        index(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a matter of Unix")
def test_a_pipe_among_films_is_not_waited_for(write, root):
    write(*(f"{name}/{i}.png" for name in ("NORMAL", "PNEUMONIA") for i in range(3)))
    os.mkfifo(root / "NORMAL" / "pipe.png")
    assert len(index(root, draw=False)) == 7


def test_a_name_that_is_no_text_is_refused_in_one_line(write, root):
    write("NORMAL/a.png", "PNEUMONIA/b.png")
    try:
        (root / "NORMAL/a.png").rename(root / "NORMAL" / os.fsdecode(b"M\xfcller.png"))
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(Refused, match=r"not valid UTF-8: .*M.udcfcller.png \(1 such") as caught:
        index(root)
    str(caught.value).encode()


def test_a_manifest_without_films_is_refused_in_a_line(write, root, tmp_path):
    write(*kermany(40))
    index(root).write(tmp_path / "films.csv")
    heads = (tmp_path / "films.csv").read_text().splitlines()[0]
    (tmp_path / "films.csv").write_text(f"{heads}\n")
    with pytest.raises(Refused, match="lists none"):
        open_data(tmp_path / "films.csv")
