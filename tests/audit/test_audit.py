"""The command as a whole: what it writes, says and returns."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hilum.audit.audit import audit
from hilum.audit.findings import SEVERITIES
from hilum.cli.app import run
from hilum.datasets import phantom
from hilum.datasets.index import open_data

FILES = {"audit.json", "duplicates.csv", "facts.csv", "report.html", "figures"}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with everything wrong with it that a folder can show."""
    folder = phantom.make(
        tmp_path_factory.mktemp("audit") / "wrong", films=200, seed=5, size=(64, 80),
        shortcut="profile",
    )  # fmt: skip
    films = sorted((folder / "train/PNEUMONIA").glob("*.jpeg"))
    number = films[-1].stem.split("_")
    # Another film of a child that is in train already, and a copy of another child's.
    phantom_film = phantom.draw(99, positive=True, size=(64, 80))
    leak = folder / "test/PNEUMONIA" / f"{number[0]}_{number[1]}_99999.jpeg"
    Image.fromarray(phantom_film).save(leak)
    shutil.copy(films[0], folder / "test/PNEUMONIA/person901_virus_1.jpeg")
    shutil.copy(films[1], folder / "train/NORMAL/IM-9001-0001.jpeg")
    (folder / "train/NORMAL/IM-9002-0001.jpeg").write_bytes(films[2].read_bytes()[:700])
    (folder / "train/NORMAL/IM-9003-0001.jpeg").write_bytes(b"<html>no film</html>")
    return folder


@pytest.fixture(scope="module")
def audited(wrong: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    out = tmp_path_factory.mktemp("out") / "audit"
    return run(["audit", str(wrong), "-o", str(out), "--workers", "2", "--quiet"]), out


@pytest.fixture(scope="module")
def content(audited: tuple[int, Path]) -> dict[str, Any]:
    return json.loads((audited[1] / "audit.json").read_text("utf-8"))


def by_code(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["code"]: finding for finding in content["findings"]}


def test_unreadable_films_give_exit_code_4(audited: tuple[int, Path]) -> None:
    code, out = audited
    assert code == 4
    assert {entry.name for entry in out.iterdir()} == FILES


def test_everything_that_is_wrong_is_found(content: dict[str, Any]) -> None:
    found = by_code(content)
    serious = {code for code, finding in found.items() if finding["severity"] == "serious"}
    assert serious == {
        "patients-in-two-parts", "copies-across-classes", "copies-across-parts", "file-tells-class",
    }  # fmt: skip
    assert found["patients-in-two-parts"]["counts"] == {
        "patients": 1,
        "films": found["patients-in-two-parts"]["counts"]["films"],
    }
    assert found["copies-across-parts"]["counts"]["file"] == 1
    assert found["copies-across-classes"]["counts"]["groups"] == 1
    assert found["unreadable"]["counts"] == {"truncated": 1, "not-a-film": 1}
    assert re.search(
        r"By class: 2 of \d+ NORMAL, 0 of \d+ PNEUMONIA\.", found["unreadable"]["meaning"]
    )
    assert "ICC profile" in found["file-tells-class"]["title"]
    assert "fails on test" in found["file-tells-class"]["meaning"]


def test_findings_come_by_severity_and_in_plain_words(content: dict[str, Any]) -> None:
    order = [SEVERITIES.index(finding["severity"]) for finding in content["findings"]]
    assert order == sorted(order)
    for finding in content["findings"]:
        for key in ("meaning", "advice"):
            assert re.fullmatch(r"[A-Z].*[.]", finding[key]), finding
            assert "{" not in finding[key] and "nan" not in finding[key]


def test_facts_name_every_film(wrong: Path, audited: tuple[int, Path]) -> None:
    with (audited[1] / "facts.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    files = list(wrong.rglob("*.jpeg"))
    assert set(rows) == {p.relative_to(wrong).as_posix() for p in files}
    broken = rows["train/NORMAL/IM-9003-0001.jpeg"]
    assert broken["unreadable"].startswith("not-a-film: ") and broken["sha256"] == ""
    for path, row in list(rows.items())[:40]:
        if not row["unreadable"]:
            with Image.open(wrong / path) as film:
                assert (int(row["width"]), int(row["height"])) == film.size
            assert int(row["bytes"]) == (wrong / path).stat().st_size
            has_profile = path.startswith("train/NORMAL/") and path != (
                "train/NORMAL/IM-9001-0001.jpeg"
            )
            assert (int(row["profile_bytes"]) > 0) == has_profile


def test_duplicates_are_listed(audited: tuple[int, Path]) -> None:
    with (audited[1] / "duplicates.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 and {row["kind"] for row in rows} == {"file"}
    assert "train/NORMAL/IM-9001-0001.jpeg" in {row["path"] for row in rows}


def test_the_report_is_one_file_that_fetches_nothing(audited: tuple[int, Path]) -> None:
    html = (audited[1] / "report.html").read_text("utf-8")
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", html) and "http" not in html
    for words in ("Films a patient", "with different labels", "Shortcuts", "Average films"):
        assert words in html
    assert html.count("data:image/png") >= 5  # two pairs and the average films
    assert len(html) < 600_000


def test_an_audit_is_never_written_over(
    wrong: Path, audited: tuple[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", str(wrong), "-o", str(audited[1])]) == 3
    assert "holds another result" in capsys.readouterr().err


def test_one_process_or_two_find_the_same(tmp_path: Path) -> None:
    phantom.make(tmp_path / "films", films=50, size=(64, 80))
    contents = []
    for workers in (0, 2):
        manifest = open_data(tmp_path / "films", draw=False)
        found = audit(manifest, out=tmp_path / f"out{workers}", workers=workers)
        contents.append({**found.as_dict(), "seconds": None})
        assert (found.folder / "facts.csv").read_bytes() == (
            tmp_path / "out0" / "facts.csv"
        ).read_bytes()
    assert contents[0] == contents[1]


def test_nothing_of_a_patient_reaches_the_outputs(tmp_path: Path) -> None:
    folder = phantom.make(
        tmp_path / "films", patients=25, size=(64, 80), layout="dicom",
        parts={"train": 0.7, "test": 0.3},
    )  # fmt: skip
    broken = next((folder / "films").iterdir())
    broken.write_bytes(broken.read_bytes()[:-900])
    manifest = open_data(folder / "labels.csv", draw=False)
    found = audit(manifest, out=tmp_path / "out", workers=1)
    assert len(found.unreadable) == 1
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"Phantom" not in data and b"20000101" not in data, file
            assert not re.search(rb"\bP00\d\d\b", data), file
            assert str(tmp_path).encode() not in data, file


def test_arrays_in_an_archive_have_no_file_to_probe(tmp_path: Path) -> None:
    films = np.stack([phantom.draw(k, positive=k % 2 == 0, size=(32, 32)) for k in range(12)])
    np.savez(tmp_path / "films.npz", images=films)
    from hilum.datasets.manifest import Manifest

    manifest = Manifest(
        root=tmp_path,
        path=tuple(f"films.npz#{k}" for k in range(12)),
        label=np.array([1 - k % 2 for k in range(12)], np.int8),
        patient=tuple(map(str, range(12))),
        part=("",) * 12,
    )
    found = audit(manifest, out=tmp_path / "out", workers=0)
    assert found.seen.readable.all() and np.isnan(found.seen.numbers["bytes"]).all()
    assert set(found.seen.words["format"]) == {"array"}


@pytest.mark.films
def test_kermanys_originals_give_their_class_away(films_folder: Path, tmp_path: Path) -> None:
    manifest = open_data(films_folder / "kermany_original", draw=False, allow_leak=True)
    found = audit(manifest, out=tmp_path / "out")
    flagged = {r.probe.name: r.areas["cross-validated"].value for r in found.probing.flagged}
    assert flagged["ICC profile"] == 1.0  # every normal film has one, no pneumonia
    assert {"bits a pixel", "JPEG quantiser", "shape", "all of the file"} <= set(flagged)
    assert found.groups == []
