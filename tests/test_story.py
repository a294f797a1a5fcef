"""The whole way as a newcomer goes it, on made-up films: draw, index, train, evaluate, predict."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import hilum
from hilum.cli.app import run
from hilum.datasets import phantom
from hilum.errors import UsageError
from hilum.evaluation.metrics import auroc

CHANGES = ("training.epochs=6", "training.batch=24", "training.precision=float32")
SMALL = [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with films, a manifest, a run and an evaluation, made by the commands."""
    here = tmp_path_factory.mktemp("story")
    phantom.make(here / "films", patients=130, size=(96, 112), seed=3)
    films, out = str(here / "films"), str(here / "run")
    assert run(["index", films, "-o", str(here / "films.csv"), "-q"]) == 0
    code = run(["train", str(here / "films.csv"), "--on", "cpu:1", "--out", out, "-q", *SMALL])
    assert code == 0
    judged = str(here / "judged")
    assert run(["evaluate", str(here / "films.csv"), "--model", out, "-o", judged, "-q"]) == 0
    return here


def test_the_run_folder_is_whole(story: Path) -> None:
    names = {entry.name for entry in (story / "run").iterdir()}
    assert names == {
        "recipe.toml", "films.csv", "films.json", "environment.json", "epochs.csv",
        "checkpoint.pt", "scores.csv", "model.hilum", "lock", "curves.png", "augmented.png",
    }  # fmt: skip


def test_the_evaluation_says_what_it_judged(story: Path) -> None:
    metrics = json.loads((story / "judged" / "metrics.json").read_text())
    measured = metrics["parts"]["test"]["fast"]
    assert metrics["flow"]["judged"] == metrics["flow"]["found"] > 20
    assert 0.5 < measured["ranking"]["auroc"]["value"] <= 1
    report = (story / "judged" / "report.html").read_text()
    assert "Not a medical device" in report and "made up" in report


def test_what_was_scored_is_what_predict_answers(story: Path) -> None:
    with (story / "judged" / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    model = hilum.load(story / "run")
    answers = model.predict([story / "films" / row["film"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert answer.probability == pytest.approx(float(row["probability"]), abs=2e-6)
    labels, logits = zip(*((int(r["label"]), float(r["logit"])) for r in rows), strict=True)
    measured = json.loads((story / "judged" / "metrics.json").read_text())
    value = measured["parts"]["test"]["fast"]["ranking"]["auroc"]["value"]
    assert auroc(labels, logits) == pytest.approx(value)


def test_predict_by_the_command(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = story / "films" / "test"
    assert run(["predict", str(films), "--model", str(story / "run"), "--json", "-q"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == sum(1 for path in films.rglob("*.jpeg"))
    assert {record["decision"] for record in records} <= {"positive", "negative", "refer"}


def test_a_part_that_is_absent_is_refused_with_those_there_are(story: Path) -> None:
    manifest = hilum.Manifest.read(story / "films.csv")
    with pytest.raises(UsageError, match="train, validation, test"):
        manifest.of_part("holdout")


def test_the_demo_goes_the_whole_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hilum.experiments import demo

    monkeypatch.setattr(demo, "DEMO_CHANGES", ("training.batch=24", "training.epochs=2"))
    assert run(["demo", "--patients", "90", "--out", str(tmp_path / "demo"), "--json"]) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["made_up"] is True and len(told["answers"]) == 8
    assert Path(told["report"]).is_file() and Path(told["picture"]).is_file()
    assert "made up" in shown.err
