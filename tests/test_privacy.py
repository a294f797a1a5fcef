"""Names, numbers and dates of DICOM headers, planted and looked for in all that hilum puts out."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from hilum import names
from hilum.bundle import Bundle
from hilum.cli.app import run
from hilum.datasets import phantom
from hilum.datasets.manifest import Manifest

PLANTED = {
    "PatientName": "Vesalius^Andreas",
    "PatientID": "MRN-555QX1234",
    "PatientBirthDate": "15141231",
    "OtherPatientIDs": "OLD-888QX9123",
    "PatientAddress": "Brusselstraat 45",
    "AccessionNumber": "ACC-777QX123",
    "StudyID": "ST-Q4242Q",
    "StudyDate": "20010203",
    "SeriesDate": "20010204",
    "ContentDate": "20010205",
    "AcquisitionDateTime": "20010206101112",
    "StudyTime": "131415.926",
    "InstitutionName": "Ospedale Segreto",
    "ReferringPhysicianName": "Falloppio^Gabriele",
    "OperatorsName": "Eustachi^Bartolomeo",
    "StudyDescription": "THORAX VESALIUS",
    "StudyInstanceUID": "1.2.826.0.1.3680043.77777001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.77777002",
    "SOPInstanceUID": "1.2.826.0.1.3680043.77777003",
    "DeviceSerialNumber": "SN-3141QX5926",
    "VOILUTFunction": "DOE^JANE",
    "AcquisitionDeviceProcessingDescription": "DOE^JANE",
    "DerivationDescription": "DOE^JANE",
}
#: What must be found nowhere, whatever the case; no text that a score or a digest has by chance.
SECRETS = (
    *("vesalius", "555qx1234", "888qx9123", "brusselstraat", "777qx123", "st-q4242q", "segreto"),
    *("falloppio", "eustachi", "3680043.7777700", "3141qx5926", "doe^jane"),
)
#: Dates and times, which are digits alone: as numbers of their own, not inside a longer one.
MOMENTS = re.compile(
    rb"(?<![0-9a-z.])(15141231|1514-12-31|2001020[3-6x]|2001-02-0[3-6]|131415)(?![0-9a-z])|20010206101112"
)


def secrets_in(content: bytes) -> list[str]:
    """What a content tells of the planted headers."""
    content = content.lower()
    texts = [secret for secret in SECRETS if secret.encode() in content]
    return texts + [found.group().decode() for found in MOMENTS.finditer(content)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and DICOM films, two of each patient; one is cut short, one is a lateral, and one's
    values do not fit their representations, which makes pydicom warn and quote them."""
    root = tmp_path_factory.mktemp("ward") / "films"
    phantom.make(root, films=140, size=(48, 60), layout="dicom", seed=5)
    with (root / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        film = dcmread(root / row["path"])
        for keyword, value in PLANTED.items():
            own = f"-{number // 2}" if keyword == "PatientID" else ""
            own = f".{number}" if keyword == "SOPInstanceUID" else own
            setattr(film, keyword, value + own)
        if number == 1:
            film.ViewPosition, film.PatientOrientation = "LL", ["A", "F"]
            film.BodyPartExamined = film.PresentationLUTShape = "DOE^JANE"
            film.ImageType = ["ORIGINAL", "PRIMARY", "DOE^JANE"]
        film.save_as(root / row["path"])
        if number == 2:
            whole = (root / row["path"]).read_bytes()
            (root / row["path"]).write_bytes(whole[:-500])
        if number == 3:
            whole = (root / row["path"]).read_bytes()
            (root / row["path"]).write_bytes(whole.replace(b"20010203", b"2001020X"))
    with (root / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label"])
        table.writerows((row["path"], row["label"]) for row in rows)
    return root


def test_what_headers_say_of_people_is_in_no_output(
    films: Path, bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    monkeypatch.setenv("HILUM_CACHE", str(out / "cache"))
    model = str(bundle.write(tmp_path / "m.hilum"))
    table, scans = str(films / "labels.csv"), str(films / "films")
    told = ""
    for number, (command, code) in enumerate(
        [
            (["index", table, "-o", "films.csv"], 0),
            (["index", table, "-o", "again.csv", "--json"], 0),
            (["audit", table, "-o", "audited"], 4),
            (["audit", "films.csv", "-o", "audited-again", "--json"], 4),
            (["evaluate", table, "--model", model, "-o", "judged"], 4),
            (["predict", scans, "--model", model, "--heatmaps", "maps"], 4),
            (["predict", scans, "--model", model, "--json"], 4),
            (["predict", scans, "--model", model, "--format", "csv"], 4),
            (["doctor"], 0),
        ]
    ):
        assert run(command) == code, command
        shown = capfd.readouterr()
        told += shown.out + shown.err
        (out / f"{number}.log").write_text(shown.out + shown.err)
    assert "lateral" in told and "could not be read" in told  # the odd films were met
    assert "its function unknown" in told
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"films.json", "again.csv", "index.bin", "reasons.jsonl", "audit.json", "facts.csv",
            "duplicates.csv", "report.html", "metrics.json", "scores.csv"} <= names  # fmt: skip
    assert any(path.parent.name == "maps" for path in files)
    for path in files:
        found = secrets_in(path.read_bytes()) + secrets_in(path.name.encode())
        assert not found, f"{path.relative_to(out)}: {found}"


#: A training of one epoch: what it says of people takes no longer to show.
TINY = [text for change in ("network.options.width=8", "network.options.blocks=[1]",
        "preprocessing.size=32", "training.epochs=1", "training.batch=16",
        "finish.shifts=['crop']") for text in ("--set", change)]  # fmt: skip


def test_nor_is_it_in_a_run_and_its_evaluation(
    films: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    table = films / "labels.csv"
    kept = tmp_path / "kept.csv"  # training stops at 2 % unreadable films: the broken ones are out
    rows = table.read_text().splitlines()
    kept.write_text("\n".join([rows[0], *rows[5:]]) + "\n")
    commands = (
        ["train", str(kept), "--images", str(films), "--on", "cpu:1@float32", "-o", "run", *TINY],
        ["evaluate", "run/films.csv", "--model", "run", "-o", "judged"],
        ["evaluate", "run/films.csv", "--model", "run", "--part", "train", "--json"],
    )
    for number, command in enumerate(commands):
        assert run(command) == 0, command
        shown = capfd.readouterr()
        Path(f"{number}.log").write_text(shown.out + shown.err)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != kept]
    names = {path.name for path in files}
    assert {"films.csv", "environment.json", "recipe.toml", "epochs.csv", "checkpoint.pt",
            "augmented.png", "curves.png", "model.onnx", "bundle.json", "MODEL_CARD.md",
            "scores.csv", "metrics.json", "report.html", "2.log"} <= names  # fmt: skip
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".png":  # texts may be packed
            content += repr(Image.open(path).info).encode()
        found = secrets_in(content)
        assert not found, f"{path.relative_to(tmp_path)}: {found}"


def test_a_search_would_find_them(films: Path) -> None:
    content = b" ".join(
        re.sub(rb"[^ -~]+", b" ", path.read_bytes()) for path in films.rglob("*.dcm")
    )
    found = set(secrets_in(content))
    assert set(SECRETS) <= found
    assert {"15141231", "20010203", "20010204", "20010205", "2001020x", "131415"} <= found


def test_digits_of_a_score_or_a_digest_are_no_date() -> None:
    for chance in (b"0.8115141231", b"0.15141231", b"9e131415", b"20010203ab", b"131415926535"):
        assert not secrets_in(chance)
    for told in (b"on 20010203", b'"2001-02-03"', b"131415.926", b"t_15141231."):
        assert secrets_in(told)


#: What names of folders and files tell of people, whatever the case.
NAMED = ("vesalius", "mrn5551234", "segreto", "falloppio", "brusselstraat")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders whose every name tells something; one film is cut short, one is there twice
    under two classes, one file is no film, one folder is no part."""
    root = tmp_path_factory.mktemp("home") / "Ospedale_Segreto"
    phantom.make(root, films=140, size=(48, 60), layout="kermany", seed=5)
    for number, film in enumerate(sorted(root.rglob("*.jpeg"))):
        film.rename(film.with_name(f"{film.stem}_Vesalius_MRN5551234_{number}.jpeg"))
    negative, positive = sorted(root.glob("test/NORMAL/*")), sorted(root.glob("test/PNEUMONIA/*"))
    negative[0].write_bytes(negative[0].read_bytes()[:-300])
    (negative[1].with_name("Falloppio.jpeg")).write_bytes(positive[0].read_bytes())
    (root / "train" / "Falloppio.txt").write_text("no film")
    (root / "Brusselstraat_45").mkdir()
    (root / "Brusselstraat_45" / "film.jpeg").write_bytes(positive[0].read_bytes())
    return root


def _told(folder: Path) -> list[str]:
    """Files of results below a folder that name somebody; films.csv and films.json hold paths."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file() and p.stem != "films"):
        where = str(path.relative_to(folder)).lower()
        content = path.read_bytes().lower() + where.encode()
        found += [f"{where}: {name}" for name in NAMED if name.encode() in content]
    return found


def _results(
    named: Path, model: str, out: Path, capfd: pytest.CaptureFixture[str], *option: str
) -> None:
    data = str(named)
    for number, (command, code) in enumerate(
        [
            (["index", data, "-o", str(out / "films.csv")], 0),
            (["index", data, "-o", str(out / "more" / "films.csv"), "--json"], 0),
            (["audit", data, "-o", str(out / "audited")], 4),
            (["audit", data, "-o", str(out / "audited-again"), "--json"], 4),
            (["evaluate", data, "--model", model, "-o", str(out / "judged")], 4),
            (["evaluate", data, "--model", model, "-o", str(out / "judged-again"), "--json"], 4),
            (["predict", data, "--model", model, "--heatmaps", str(out / "maps")], 4),
            (["predict", data, "--model", model, "--json"], 4),
            (["predict", data, "--model", model, "--format", "csv"], 4),
        ]
    ):  # fmt: skip
        assert run([*command, *option]) == code, command
        shown = capfd.readouterr()
        (out / f"{number}.log").write_text(shown.out + shown.err)


def test_names_of_files_are_hidden_where_that_is_asked_for(
    named: Path, bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = str(bundle.write(tmp_path / "m.hilum"))
    for folder, option in (("plain", ()), ("hidden", ("--hide-names",))):
        (tmp_path / folder).mkdir()
        _results(named, model, tmp_path / folder, capfd, *option)
    told = "\n".join(_told(tmp_path / "plain"))
    assert all(name in told for name in NAMED)  # without the option each can be found
    for result in ("audit.json", "duplicates.csv", "facts.csv", "report.html", "scores.csv",
                   "metrics.json", "maps/", "0.log", "1.log", "2.log", "8.log"):  # fmt: skip
        assert result in told
    assert not _told(tmp_path / "hidden")

    def column(table: Path, name: str) -> list[str]:
        with table.open(newline="") as stream:
            return [row[name] for row in csv.DictReader(stream)]

    hidden = tmp_path / "hidden"
    audited = column(hidden / "audited" / "facts.csv", "path")
    judged = column(hidden / "judged" / "scores.csv", "film")
    answers = column_of((hidden / "8.log").read_text(), "film")
    assert len(set(audited)) == len(audited) and set(judged) < set(audited) < set(answers)
    assert {path.stem for path in (hidden / "maps").glob("*.png")} < set(answers)
    # Hiding changes names and nothing else: the manifest finds its films, figures are the same.
    made = [Manifest.read(tmp_path / f / "films.csv") for f in ("plain", "hidden")]
    assert made[0].digest == made[1].digest and made[1].files()[0].is_file()
    metrics = [json.loads((tmp_path / f / "judged" / "metrics.json").read_text())["parts"]
               for f in ("plain", "hidden")]  # fmt: skip
    assert metrics[0] == metrics[1]


def test_a_run_hides_names_but_in_the_manifest_that_it_reads(
    named: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "Ospedale_Segreto"
    shutil.copytree(named, data, ignore=shutil.ignore_patterns("Falloppio.jpeg", "IM-0001*"))
    out = tmp_path / "out"
    runs = str(out / "run")
    for command in (
        ["train", str(data), "--on", "cpu:1@float32", "-o", runs, *TINY],
        ["evaluate", f"{runs}/films.csv", "--model", runs, "-o", str(out / "judged")],
    ):
        assert run([*command, "--hide-names"]) in (0, 4), command
        (out / f"{command[0]}.log").write_text("".join(capfd.readouterr()))
    assert not _told(out)
    assert "vesalius" in (out / "run" / "films.csv").read_text().lower()  # as the docs say
    with (out / "run" / "scores.csv").open(newline="") as stream:
        assert all(row["film"].startswith("film-") for row in csv.DictReader(stream))


def column_of(text: str, name: str) -> list[str]:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("film,"))
    return [row[name] for row in csv.DictReader(lines[start:]) if row["sha256"] or row["error"]]


@pytest.mark.parametrize("hide", [False, True])
def test_errors_name_files_only_where_they_may(
    hide: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "films"
    phantom.make(films, films=12, size=(48, 60), layout="kermany", seed=1)
    film = next(films.glob("train/PNEUMONIA/*"))
    leaking = film.with_name("person5_virus_1_Vesalius.jpeg")
    film.rename(leaking)
    (films / "test/PNEUMONIA/person5_virus_2_Vesalius.jpeg").write_bytes(leaking.read_bytes())
    table = tmp_path / "labels.csv"
    for case in ("leak", "twice", "absent", "outside"):
        source = str(films if case in ("leak", "outside") else table)
        if case == "twice":
            table.write_text("path,label\nVesalius.png,0\nVesalius.png,1\n")
        if case == "absent":
            table.write_text("path,label\nVesalius.png,0\n")
        if case == "outside":
            (films / "train" / "Vesalius.jpeg").write_bytes(leaking.read_bytes())
        code = run(["index", source, "-o", str(tmp_path / f"{case}.csv"),
                    *(["--hide-names"] if hide else [])])  # fmt: skip
        assert code in (2, 3), case
        assert ("vesalius" in capfd.readouterr().err.lower()) is not hide, case


def test_a_setting_of_the_environment_hides_names_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "Vesalius.png"
    assert names.shown(path) == str(path)
    monkeypatch.setenv(names.VARIABLE, "1")
    hidden = names.shown(path)
    assert re.fullmatch("film-[0-9a-f]{16}", hidden)
    assert hidden == names.shown("Vesalius.png", tmp_path) != names.shown("vesalius.png", tmp_path)
    monkeypatch.setenv("HILUM_CONFIG", str(tmp_path / "another-user"))
    assert names.shown(path) != hidden
    monkeypatch.setenv(names.VARIABLE, "0")
    assert names.shown(path) == str(path)
