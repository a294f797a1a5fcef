from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hilum.bundle import Bundle
from hilum.cli.app import run
from hilum.decision import Estimate


@pytest.fixture
def model(bundle: Bundle, tmp_path: Path) -> str:
    return str(bundle.write(tmp_path / "m.hilum"))


def test_a_table_for_people(
    grey_films: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(grey_films), "--model", model]) == 0
    shown = capsys.readouterr()
    assert "pneumonia suspected" in shown.out and "pneumonia not suspected" in shown.out
    assert "normal" not in shown.out
    assert "Not a medical device" in shown.err


def test_json_lines_and_csv(
    grey_films: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(grey_films), "--model", model, "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["decision"] for r in records] == ["positive", "negative"]
    assert run(["predict", str(grey_films), "--model", model, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [r["decision"] for r in rows] == ["positive", "negative"]
    assert [float(r["probability"]) for r in rows] == [r["probability"] for r in records]
    both = ["predict", str(grey_films), "--model", model, "--format", "csv", "--json"]
    assert run(both) == 2
    assert "two formats" in capsys.readouterr().err


def test_a_bad_film_is_exit_code_4_and_one_record(
    grey_films: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (grey_films / "page.jpg").write_text("<html>not found</html>")
    assert run(["predict", str(grey_films), "--model", model, "--json"]) == 4
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [bool(r["error"]) for r in records] == [False, False, True]
    assert records[2]["decision"] is None


def test_a_path_that_is_not_there_costs_one_record_and_nothing_else(
    grey_films: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["gone.png", str(grey_films), f"{grey_films}/*.gif"]
    assert run(["predict", *named, "--model", model, "--json"]) == 4
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["error"] or {}).get("code") for r in records] == ["missing", None, None, "missing"]
    assert records[0]["film"] == "gone.png"
    assert run(["predict", "gone.png", "gone-too.png", "--model", model, "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_heat_maps_are_written_and_names_do_not_collide(
    grey_films: Path, model: str, tmp_path: Path
) -> None:
    (grey_films / "more").mkdir()
    for name in ("bright.png", "bright-2.png", "1.2.840.113", "1.2.840.114"):
        (grey_films / "more" / name).write_bytes((grey_films / "bright.png").read_bytes())
    maps = tmp_path / "maps"
    assert run(["predict", str(grey_films), "--model", model, "--heatmaps", str(maps), "-q"]) == 0
    with (maps / "heatmaps.csv").open(newline="") as stream:
        listed = {
            row["heatmap"]: Path(row["film"]).relative_to(grey_films).as_posix()
            for row in csv.DictReader(stream)
        }
    assert listed == {
        "bright.png": "bright.png",
        "bright-2.png": "more/bright-2.png",
        "bright-3.png": "more/bright.png",
        "dark.png": "dark.png",
        "1.2.840.113.png": "more/1.2.840.113",
        "1.2.840.114.png": "more/1.2.840.114",
    }
    assert {p.name for p in maps.iterdir()} == {*listed, "heatmaps.csv"}


def test_a_long_name_costs_no_heat_map(grey_films: Path, model: str, tmp_path: Path) -> None:
    for end in "jpg", "png":  # 254 bytes, and 255 are allowed
        (grey_films / f"{'胸' * 83}a.{end}").write_bytes((grey_films / "dark.png").read_bytes())
    maps = tmp_path / "maps"
    assert run(["predict", str(grey_films), "--model", model, "--heatmaps", str(maps), "-q"]) == 0
    assert len(list(maps.glob("*.png"))) == 4


def test_heat_maps_are_no_films_for_the_next_command(
    grey_films: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = str(grey_films / "maps")
    assert run(["predict", str(grey_films), "--model", model, "--heatmaps", maps]) == 0
    before = capsys.readouterr().out
    assert run(["predict", str(grey_films), "--model", model]) == 0
    assert capsys.readouterr().out == before
    assert run(["predict", maps, "--model", model]) == 3
    assert "results of hilum's own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict"], 2, "FILMS"),
        (["predict", "nowhere.png"], 2, "nowhere.png"),
        (["predict", ""], 2, "empty path"),
        (["predict", "{films}", ""], 2, "empty path"),
        (["predict", "{films}", "--model", ""], 3, "no model"),
        (["predict", "{films}", "--operating-point", ""], 2, "no such operating point"),
        (["evaluate", ""], 2, "no such file or folder: ''"),
        (["predict", "{films}", "--model", "nowhere.hilum"], 3, "no such model"),
        (["predict", "{films}", "--model", "{model}", "--operating-point", "x"], 2, "balanced"),
        (["predict", "{films}", "--modl", "{model}"], 2, "--model"),
        (["predikt"], 2, "predict"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    grey_films: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [a.format(films=grey_films, model=model) for a in arguments]
    assert run(filled) == code
    error = capsys.readouterr().err
    assert error.startswith("hilum: ") and error.count("\n") == 1 and words in error


def test_a_defect_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("hilum.films.read.find", broken)
    assert run(["predict", "x"]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error and "defect of hilum's" in error


def test_heat_maps_never_go_over_what_is_there(
    grey_films: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (grey_films / "dark.png").read_bytes()
    call = ["predict", str(grey_films), "--model", model, "--heatmaps"]
    assert run([*call, str(grey_films)]) == 3
    assert (grey_films / "dark.png").read_bytes() == before
    (tmp_path / "file").write_text("x")
    assert run([*call, str(tmp_path / "file")]) == 3
    assert run([*call, str(tmp_path / "file" / "below")]) == 3
    errors = capsys.readouterr().err
    assert errors.count("hilum: ") == 3 and "Traceback" not in errors
    assert "another with --heatmaps" in errors and "--out" not in errors


def test_a_folder_without_films_is_refused(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["predict", str(tmp_path / "empty"), "--model", model]) == 3
    assert "no films" in capsys.readouterr().err


def test_a_name_with_control_characters_stays_in_its_line(
    grey_films: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = next(path for path in grey_films.rglob("*") if path.is_file())
    odd = tmp_path / "two\nlines\x1b[31m.png"
    odd.write_bytes(film.read_bytes())
    assert run(["predict", str(odd), "--model", model]) == 0
    assert r"two\nlines\x1b[31m.png  pneumonia" in capsys.readouterr().out
    assert run(["predict", str(tmp_path / "no\nfilm.png"), "--model", model]) in (2, 4)
    assert r"no\nfilm.png" in "".join(capsys.readouterr())


def test_a_model_that_only_guesses_is_warned_of(
    grey_films: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auroc = Estimate(0.51, 0.4, 0.6, 90, "any").as_dict()
    guesses = replace(bundle, metrics={"validation": {"auroc": auroc}})
    folder = str(guesses.write(tmp_path / "guesses.hilum"))
    assert run(["predict", str(grey_films), "--model", folder, "--quiet"]) == 0
    assert "warning: this model is not shown to be better than chance" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_a_name_that_is_no_text_costs_nothing(form: str, grey_films: Path, model: str) -> None:
    try:
        (grey_films / "dark.png").rename(grey_films / os.fsdecode(b"d\xfcster.png"))
    except OSError:
        pytest.skip("this file system takes no such names")
    call = [sys.executable, "-m", "hilum", "predict", str(grey_films), "--model", model]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*call, "--format", form], capture_output=True, env=strict, check=False)
    assert done.returncode == 0, done.stderr
    assert "udcfcster.png" in done.stdout.decode("utf-8") and b"bright.png" in done.stdout
