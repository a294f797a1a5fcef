"""Names, numbers and dates of DICOM headers, planted and looked for in all that hilum puts out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom import dcmread

from hilum.bundle import Bundle
from hilum.cli.app import run
from hilum.datasets import phantom

PLANTED = {
    "PatientName": "Vesalius^Andreas",
    "PatientID": "MRN-5551234",
    "PatientBirthDate": "15141231",
    "OtherPatientIDs": "OLD-8889123",
    "PatientAddress": "Brusselstraat 45",
    "AccessionNumber": "ACC-777123",
    "StudyID": "ST-424242",
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
    "DeviceSerialNumber": "SN-31415926",
}
#: What must be found nowhere, whatever the case.
SECRETS = (
    *("vesalius", "5551234", "15141231", "8889123", "brusselstraat", "777123", "424242"),
    *("2001020", "131415", "segreto", "falloppio", "eustachi", "7777700", "31415926"),
)


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
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"films.json", "again.csv", "index.bin", "reasons.jsonl", "audit.json", "facts.csv",
            "duplicates.csv", "report.html", "metrics.json", "scores.csv"} <= names  # fmt: skip
    assert any(path.parent.name == "maps" for path in files)
    for path in files:
        content = path.read_bytes().lower()
        found = [secret for secret in SECRETS if secret.encode() in content]
        found += [secret for secret in SECRETS if secret in path.name.lower()]
        assert not found, f"{path.relative_to(out)}: {found}"


def test_a_search_would_find_them(films: Path) -> None:
    content = b"".join(path.read_bytes() for path in films.rglob("*.dcm")).lower()
    assert not [secret for secret in SECRETS if secret.encode() not in content]
