"""Published sets in the shape that they are published in, made small."""

from __future__ import annotations

import gzip
import re
import shutil
import zipfile

import numpy as np
import pytest
from pydicom import dcmread

from hilum.datasets import archive, phantom
from hilum.datasets.cache import Cache
from hilum.datasets.index import index
from hilum.datasets.manifest import Manifest
from hilum.errors import Refused, UnreadableFilm, UsageError
from hilum.films.preprocess import Preprocessing
from hilum.films.read import read
from hilum.names import hashed

NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@pytest.fixture
def nih(root, write):
    labels = ["No Finding", "Pneumonia", "Effusion|Pneumonia", "Mass"]
    rows = [
        f"{i:08d}_00{k}.png,{labels[(i + k) % 4]},{k},{i},{'058Y' if k else 40 + i},M,PA,1,2,3,4"
        for i in range(20)
        for k in range(2)
    ]
    (root / "Data_Entry_2017.csv").write_text("\n".join([NIH, *rows]) + "\n")
    write(*(f"images_001/images/{row.split('.')[0]}.jpg" for row in rows[:20]))
    write(*(f"images_002/images/{row.split('.')[0]}.jpg" for row in rows[20:36]))
    return root


def test_nih_by_the_papers_task(nih):
    manifest = index(nih)
    assert manifest.task == "pneumonia"
    assert manifest.classes == ("No Finding", "Pneumonia")
    assert len(manifest) == 28  # 36 films, 8 of them with a mass alone
    assert set(manifest.extra["Effusion"]) == {"0", "1"}
    assert manifest.extra["age"].count("58") == 14
    assert set(manifest.extra["view"]) == {"PA"}
    assert manifest.patient[0] == "nih-00000000"
    assert [left["films"] for left in manifest.notes["left_out"]] == [4, 8]


def test_nih_against_all_and_other_findings(nih):
    manifest = index(nih, task="pneumonia-vs-all", draw=False)
    assert (len(manifest), manifest.classes) == (36, ("no Pneumonia", "Pneumonia"))
    mass = index(nih, task="mass", draw=False)
    assert (mass.task, mass.classes, len(mass)) == ("mass", ("No Finding", "Mass"), 17)
    with pytest.raises(UsageError, match="Did you mean 'pneumonia'"):
        index(nih, task="pnuemonia")


def test_nih_official_lists(nih):
    (nih / "train_val_list.txt").write_text(
        "".join(f"{i:08d}_00{k}.png\n" for i in range(12) for k in range(2))
    )
    manifest = index(nih, draw=False)
    for part, path in zip(manifest.part, manifest.path, strict=True):
        assert part == ("train" if int(path.split("/")[-1][:8]) < 12 else "test")


def test_ages_of_nihs_that_nobody_has_are_unknown(nih):
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(",058Y,", ",0411Y,"))
    ages = set(index(nih, draw=False).extra["age"])
    assert "" in ages and "40" in ages and "411" not in ages


def test_nih_films_in_neither_list_are_told(nih):
    for name, patients in (("train_val_list", range(10)), ("test_list", range(10, 16))):
        lines = "".join(f"{i:08d}_00{k}.png\n" for i in patients for k in range(2))
        (nih / f"{name}.txt").write_text(lines)
    remarks = index(nih, task="pneumonia-vs-all").remarks()
    assert any("the source puts 4 films in no part: drawn too" in line for line in remarks)
    (nih / "test_list.txt").unlink()  # all else is test then
    assert not any("in no part" in line for line in index(nih).remarks())


def test_lines_of_the_lists_without_an_ending_or_a_film(nih):
    """What a list names counts by its stem; what it names in vain is told."""
    stems = [f"{i:08d}_00{k}" for i in range(20) for k in range(2)]
    (nih / "train_val_list.txt").write_text("\n".join(stems[:24]) + "\n99999999_000\n")
    (nih / "test_list.txt").write_text("\r\n".join(f"images/{stem}.png" for stem in stems[24:]))
    manifest = index(nih, draw=False)
    for part, path in zip(manifest.part, manifest.path, strict=True):
        assert part == ("train" if int(path.split("/")[-1][:8]) < 12 else "test")
    assert (
        "left out: 1 line of train_val_list.txt, the table has no such film (99999999_000)."
        in manifest.remarks()
    )


def test_another_positive_class_than_the_question_asks_for_is_refused(nih):
    assert index(nih, positive="pneumonia", draw=False).classes[1] == "Pneumonia"
    with pytest.raises(UsageError, match=r"not the positive class: No Finding.*--task"):
        index(nih, positive="No Finding")


@pytest.mark.parametrize("name", ["train_val_list", "test_list"])
def test_a_list_of_nihs_that_is_broken(nih, name):
    packed = gzip.compress(b"00000001_000.png\n" * 99)
    for suffix, data in (
        (".txt.gz", packed[:30]),
        (".txt.gz", packed[:15] + b"\xff" * 9 + packed[24:]),
        (".txt", b"\xff\xfe\x00abc"),
    ):
        (nih / f"{name}{suffix}").write_bytes(data)
        with pytest.raises(UsageError, match=f"not a list of films: .*{name}{suffix} .*UTF-8"):
            index(nih)


def test_nih_patients_as_floats_or_no_numbers(nih):
    table = nih / "Data_Entry_2017.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]

    def write_patients(form):
        rows = [[*row[:3], form(row[3]), *row[4:]] for row in lines[1:]]
        table.write_text("\n".join(",".join(row) for row in [lines[0], *rows]) + "\n")

    whole = index(nih, draw=False).patient
    write_patients(lambda number: f"{number}.0")
    assert index(nih, draw=False).patient == whole
    write_patients(lambda number: "")
    assert index(nih, draw=False).patient == whole  # the names of the films tell them
    for wrong in ("abc", "1.5", "-1", "nan"):
        write_patients(lambda number, wrong=wrong: wrong)
        with pytest.raises(UsageError, match=f"not a patient's number: '{wrong}' in row 2"):
            index(nih)


def test_nih_in_named_folders(nih):
    table, folder, empty = nih / "Data_Entry_2017.csv", nih / "images_002", nih / "empty"
    empty.mkdir()
    manifest = index(table, images=[folder], draw=False)
    assert manifest.root == folder
    assert len(index(table, images=[folder, nih / "images_001"], draw=False)) == 28
    with pytest.raises(Refused, match="--images"):
        index(table, images=[empty])


def test_nih_twice_the_same_stem(nih, write):
    write("images_001/images/copy/00000000_000.png")
    with pytest.raises(UsageError, match="two films of one name"):
        index(nih)


@pytest.mark.films
def test_nih_as_published(films_folder):
    manifest = index(films_folder / "nih", images=[films_folder / "nih/images_256"])
    assert len(manifest) == 586
    assert (manifest.label == 1).sum() == 260
    assert manifest.parts() == ["train", "validation", "test"]
    assert {left["films"] for left in manifest.notes["left_out"]} == {112120 - 857, 271}
    everything = index(
        films_folder / "nih",
        images=[films_folder / "nih/images_256"],
        task="pneumonia-vs-all",
        draw=False,
    )
    assert len(everything) == 857


@pytest.fixture
def rsna(root, write):
    targets = [
        "film-a,,,,,0",
        "film-b,1,2,3,4,1",
        "film-b,5,6,7,8,1",
        "film-c,,,,,0",
        "film-d,,,,,0",
    ]
    (root / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\n" + "\n".join(targets) + "\n"
    )
    write(*(f"stage_2_train_images/film-{letter}.dcm" for letter in "abc"))
    return root


def test_rsna(rsna):
    manifest = index(rsna, draw=False)
    assert manifest.task == "pneumonia-vs-all"
    assert (manifest.label.tolist(), len(manifest)) == ([0, 1, 0], 3)
    with pytest.raises(UsageError, match="no table of classes"):
        index(rsna, task="pneumonia")
    (rsna / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\nfilm-a,Normal\nfilm-b,Lung Opacity\nfilm-b,Lung Opacity\n"
        "film-c,No Lung Opacity / Not Normal\nfilm-d,Normal\n"
    )
    manifest = index(rsna, draw=False)
    assert (manifest.task, manifest.classes) == ("pneumonia", ("Normal", "Lung Opacity"))
    assert manifest.label.tolist() == [0, 1]
    assert index(rsna / "stage_2_train_labels.csv", draw=False).digest == manifest.digest


@pytest.mark.parametrize("target", ["-1", "", "0.5"])
def test_a_target_of_rsnas_that_is_none(rsna, target):
    table = rsna / "stage_2_train_labels.csv"
    table.write_text(table.read_text().replace("film-c,,,,,0", f"film-c,,,,,{target}"))
    with pytest.raises(UsageError, match=f"no such target: '{target}' in row 5"):
        index(rsna, draw=False)


def test_targets_of_rsnas_as_floats(rsna):
    table = rsna / "stage_2_train_labels.csv"
    table.write_text(table.read_text().replace(",1\n", ",1.0\n").replace(",0\n", ",0.0\n"))
    assert index(rsna, draw=False).label.tolist() == [0, 1, 0]


def test_openi(root, write):
    (root / "indiana_reports.csv").write_text(
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
        '1,normal,normal,"PA, lateral",x,,,\n'
        "2,Pneumonia/lingula,Pneumonia;Opacity,,,,,\n"
        "3,Cardiomegaly,Cardiomegaly,,,,,\n"
    )
    rows = [
        f"{uid},{uid}_IM-000{uid}-{k}001.dcm.png,{p}"
        for uid in (1, 2, 3, 4)
        for k, p in ((1, "Frontal"), (2, "Lateral"))
    ]
    (root / "indiana_projections.csv").write_text("uid,filename,projection\n" + "\n".join(rows))
    write(*(f"images/{row.split(',')[1]}" for row in rows))
    manifest = index(root, draw=False)
    assert (manifest.label.tolist(), manifest.patient) == ([0, 1], ("openi-1", "openi-2"))
    assert any("4 films, laterals" in line for line in manifest.remarks())
    assert len(index(root / "indiana_reports.csv", task="pneumonia-vs-all", draw=False)) == 3
    (root / "indiana_reports.csv").unlink()
    with pytest.raises(UsageError, match=r"no table indiana_reports\.csv"):
        index(root, draw=False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_medmnist(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 150), ("val", 110), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 128, (n, 28, 28), np.uint8)
        arrays[f"{part}_images"][:, :, 10:18] += 128  # a bright middle, as a chest film has
        arrays[f"{part}_labels"] = (np.arange(n) % 2)[:, None].astype(np.uint8)
    save(tmp_path / "pneumoniamnist.npz", **arrays)
    manifest = index(tmp_path / "pneumoniamnist.npz")
    assert [manifest.part.count(p) for p in ("train", "validation", "test")] == [150, 110, 20]
    row = manifest.path.index("pneumoniamnist.npz#152")
    assert manifest.part[row] == "validation"
    pixels = manifest.read_film(row).pixels
    assert (pixels == arrays["val_images"][2]).all()
    cache = Cache.fill(manifest, Preprocessing(size=28), workers=0)
    everything = np.concatenate([arrays[f"{p}_images"] for p in ("train", "val", "test")])
    order = [int(path.split("#")[1]) for path in manifest.path]
    assert (cache.of(np.arange(280)) == everything[order]).all()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_in_any_order(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 256, (60, 28, 28), np.uint8) for name in archive.MEMBERS}
    save(tmp_path / "films.npz", **arrays)
    opened = archive.images(tmp_path / "films.npz")
    for member, row in rng.integers(0, (len(opened), 60), (300, 2)):
        assert (opened[member].film(row) == arrays[opened[member].name][row]).all()


def test_chestmnist(tmp_path):
    labels = np.zeros((30, 14), np.uint8)
    labels[10:20, 6] = 1
    labels[20:, 0] = 1
    images = np.zeros((30, 28, 28), np.uint8)
    np.savez(tmp_path / "chestmnist.npz", train_images=images, train_labels=labels)
    manifest = index(tmp_path / "chestmnist.npz", draw=False)
    assert (len(manifest), manifest.classes) == (20, ("no finding", "pneumonia"))
    assert len(index(tmp_path / "chestmnist.npz", task="pneumonia-vs-all", draw=False)) == 30


def _archive(folder, labels, name="x.npz"):
    images = np.zeros((30, 28, 28), np.uint8)
    np.savez_compressed(folder / name, train_images=images, train_labels=labels)
    return folder / name


def test_an_archive_of_other_classes_asks_for_these(tmp_path):
    """BreastMNIST and others have one column too; only 1 against 0 is taken for pneumonia."""
    path = _archive(tmp_path, np.arange(30)[:, None] % 3)
    manifest = index(path, positive="2", draw=False)
    assert (manifest.task, manifest.classes[1]) == ("2", "2")
    assert manifest.counts()[0][1:3] == (20, 10)
    path = _archive(tmp_path, np.arange(30)[:, None] % 2)
    assert index(path, draw=False).task == index(path, task="pneumonia", draw=False).task
    with pytest.raises(UsageError, match="no such task here: pneumonia-vs-all"):
        index(path, task="pneumonia-vs-all", draw=False)


def test_minus_one_in_an_archive_is_unknown(tmp_path):
    manifest = index(_archive(tmp_path, np.arange(30)[:, None] % 3 - 1), draw=False)
    assert manifest.label.tolist().count(0) == manifest.label.tolist().count(1) == 10
    assert "left out: 10 films, their label is -1 (unknown)." in manifest.remarks()
    labels = np.zeros((30, 14))
    labels[:10, 6] = 1
    labels[10:15, 6] = -1
    labels[15:20, 0] = -1
    path = _archive(tmp_path, labels)
    manifest = index(path, draw=False)  # against no finding, so the last five are not sure either
    assert [n["films"] for n in manifest.notes["left_out"]] == [5, 5]
    assert manifest.counts()[0][1:3] == (10, 10)
    manifest = index(path, task="pneumonia-vs-all", draw=False)
    assert manifest.counts()[0][1:3] == (15, 10)
    assert manifest.extra["atelectasis"].count("") == 5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(30)[:, None] % 2 + 0.5, "not a label: 0.5 for film 0 in train_labels of"),
        (np.where(np.arange(30) == 7, np.nan, 1), "not a label: nan for film 7"),
        (np.full(30, np.inf), "not a label: inf"),
        (np.arange(30) - 2, "not a label: -2"),
        (np.full((30, 14), 2), "not a label: 2"),
        (np.array([["a"]] * 30), "not a label: a"),
        (np.array(3), "labels do not fit the films"),
        (np.zeros((30, 0)), "labels of 0 columns"),
        (np.zeros((30, 3)), "labels of 3 columns"),
    ],
)
def test_labels_in_an_archive_that_are_none(tmp_path, labels, message):
    with pytest.raises(UsageError, match=message) as caught:
        index(_archive(tmp_path, labels), positive="1")
    assert "\n" not in str(caught.value)


def _damaged(path, member):
    """The archive with a few bytes in the middle of a member's data turned over."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    data = bytearray(path.read_bytes())
    middle = info.header_offset + 30 + len(member) + info.compress_size // 2
    data[middle : middle + 8] = bytes(255 - byte for byte in data[middle : middle + 8])
    path.write_bytes(data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_broken_archive_is_refused_or_its_films_are_unreadable(tmp_path, save):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    labels = np.arange(30) % 2
    for number, member in enumerate(("train_labels", "train_images")):
        path = tmp_path / f"{number}.npz"
        save(path, train_images=images, train_labels=labels)
        _damaged(path, f"{member}.npy")
        if member == "train_labels":
            with pytest.raises(UsageError, match="not an archive of films"):
                index(path)
            continue
        manifest = index(path, draw=False)
        with pytest.raises(UnreadableFilm, match="the archive is broken"):
            for row in range(len(manifest)):
                archive.source(manifest.root / f"1.npz#{row}")


def test_an_archive_that_is_none(tmp_path):
    np.savez(tmp_path / "o.npz", train_images=np.zeros((2, 9, 9), np.uint8), train_labels=[{}, 1])
    with pytest.raises(UsageError, match=r"not an archive of films: .*Object arrays"):
        index(tmp_path / "o.npz")
    (tmp_path / "x.npz").write_bytes(b"PK not really")
    with pytest.raises(UsageError, match="not an archive of films"):
        index(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", pixels=np.zeros(3))
    with pytest.raises(UsageError, match="no films in this archive"):
        index(tmp_path / "y.npz")


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom") / "set"
    return phantom.make(folder, films=40, layout="dicom", size=(48, 60))


def _labels(dicom):
    rows = [line.split(",") for line in (dicom / "labels.csv").read_text().splitlines()[1:]]
    return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize("by", ["SOPInstanceUID", "StudyInstanceUID"])
def test_dicom_by_uid(dicom, tmp_path, by):
    labels = _labels(dicom)
    lines = set()
    for path, label in labels.items():
        header = read(dicom / path).header
        lines.add(f"{header.instance if by.startswith('SOP') else header.study},{label}")
    table = tmp_path / "by_uid.csv"
    table.write_text("\n".join([f"{by},label", *sorted(lines), "1.2.3,1"]) + "\n")
    manifest = index(table, images=[dicom / "films"], draw=False)
    assert dict(zip(manifest.path, map(str, manifest.label), strict=True)) == {
        path.removeprefix("films/"): label for path, label in labels.items()
    }
    assert manifest.notes["left_out"][0]["films"] == 1
    assert manifest.notes["patients"]["own"] == 0


def test_dicom_in_class_folders_and_no_identifier_anywhere(dicom, tmp_path, capsys):
    """Patients are grouped by their headers; what the headers say goes nowhere."""
    secrets = {
        "PatientName": "Vesalius^Andreas",
        "PatientID": "MRN-5551234",
        "PatientBirthDate": "15141231",
        "AccessionNumber": "ACC-777",
        "StudyDate": "20010203",
    }
    root = tmp_path / "classes"
    for i, (path, label) in enumerate(_labels(dicom).items()):
        target = root / ("PNEUMONIA" if label == "1" else "NORMAL") / f"{i}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        data = dcmread(dicom / path)
        for name, value in secrets.items():
            setattr(data, name, value + (f"-{i // 2}" if name == "PatientID" else ""))
        data.save_as(target)
    (root / "NORMAL/broken.dcm").write_bytes(
        (root / "NORMAL").glob("*.dcm").__next__().read_bytes()[:300]
    )
    manifest = index(root, draw=False)
    assert len(set(manifest.patient)) == 21  # twenty pairs, and the broken one on its own
    assert hashed("MRN-5551234-3") in manifest.patient
    assert set(manifest.extra["sex"]) >= {"F", "M"}
    manifest.write(tmp_path / "films.csv")
    cache = Cache.fill(manifest, Preprocessing(size=16), workers=0, limit=0.5)
    assert [path for path, _ in cache.unreadable] == ["NORMAL/broken.dcm"]
    told = [str(manifest.notes), repr(manifest), str(cache.unreadable), *capsys.readouterr()]
    told += [(tmp_path / name).read_text() for name in ("films.csv", "films.json")]
    from hilum.machine import cache_folder

    told += [f.read_text() for f in cache_folder().rglob("*.json*")]
    for secret in ("Vesalius", "5551234", "15141231", "ACC-777", "20010203"):
        assert not any(secret in text for text in told), secret


def test_films_called_by_uids_without_an_ending(dicom, tmp_path):
    """What an archive exports: the last number of a UID is no ending, and no film is another's."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "ended").mkdir()
    rows = []
    for i, (path, label) in enumerate(_labels(dicom).items()):
        data = dcmread(dicom / path)
        del data.PatientID
        data.save_as(tmp_path / f"plain/1.2.840.{i}")
        data.save_as(tmp_path / f"ended/1.2.840.{i}.dcm")
        rows.append((f"1.2.840.{i}", data.SOPInstanceUID, label, ("train", "test")[i % 2]))
    for heads, column in (("image", 0), ("SOPInstanceUID", 1)):
        lines = [f"{heads},label,part", *(f"{row[column]},{row[2]},{row[3]}" for row in rows)]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        for folder in ("plain", "ended"):
            manifest = index(tmp_path / "t.csv", images=[tmp_path / folder], draw=False)
            assert len(manifest) == len(set(manifest.patient)) == 40
            assert manifest.notes["patients"]["own"] == 40
    for name, _, label, _ in rows:
        target = tmp_path / "classes" / label / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "plain" / name).read_bytes())
    manifest = index(tmp_path / "classes", draw=False)
    assert len(set(manifest.patient)) == 40


def test_what_a_table_by_uid_does_not_know_is_left_out(dicom, tmp_path):
    rows = [
        f"{read(dicom / path).header.instance},{('', '-1', '0', '1')[i % 4]}"
        for i, path in enumerate(sorted(_labels(dicom)))
    ]
    (tmp_path / "t.csv").write_text("\n".join(["SOPInstanceUID,label", *rows]) + "\n")
    manifest = index(tmp_path / "t.csv", images=[dicom / "films"], draw=False)
    assert manifest.label.tolist().count(0) == manifest.label.tolist().count(1) == 10
    assert [(note["films"], note["why"]) for note in manifest.notes["left_out"]] == [
        (10, "the table has no label for them"),
        (10, "their label is -1 (unknown)"),
    ]


def test_two_labels_for_one_uid(dicom, tmp_path):
    (tmp_path / "t.csv").write_text("SOPInstanceUID,label\n1.2,0\n1.2,1\n")
    with pytest.raises(
        UsageError, match=r"two answers for one UID: row 3 .* another label than row 2"
    ):
        index(tmp_path / "t.csv", images=[dicom])
    (tmp_path / "t.csv").write_text("StudyUID,label,patient\n1.2,0,Meier\n1.2,0,Huber\n")
    with pytest.raises(UsageError, match="another patient than row 2") as caught:
        index(tmp_path / "t.csv", images=[dicom])
    assert not {"Meier", "Huber"} & set(re.findall(r"\w+", str(caught.value)))


def test_a_dicom_folder_without_labels(dicom):
    with pytest.raises(UsageError, match="need their labels"):
        index(dicom / "films", kind="dicom")


def test_a_copied_manifest_reads_its_films(dicom, tmp_path):
    shutil.copytree(dicom, tmp_path / "set")
    made = index(tmp_path / "set/labels.csv", draw=False)
    assert isinstance(made, Manifest)
    assert made.read_film(0).format == "dicom"
