"""The folder of an evaluation, what its report says, and what it warns of."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hilum.bundle import Bundle
from hilum.datasets.manifest import Manifest
from hilum.decision import OperatingPoint
from hilum.errors import FolderTaken, Refused, UsageError
from hilum.evaluation.caveats import _beyond
from hilum.evaluation.document.wording import holds_for
from hilum.evaluation.evaluate import Evaluation, evaluate
from hilum.inference.model import Model
from hilum.storage import digest

from .conftest import bright_films

pytest.importorskip("matplotlib")


def judge(manifest: Manifest, *bundles: Bundle, out: Path, **options: object) -> Evaluation:
    models = [Model(bundle.sealed(), 1) for bundle in bundles]
    return evaluate(manifest, models, out=out, draws=60, workers=0, **options)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the judgement alone: nothing is drawn."""
    monkeypatch.setattr("hilum.evaluation.evaluate._write", lambda *_: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models judged; one film is unreadable, one is a CT slice, three were learnt."""
    from tests.conftest import brightness_bundle

    base = tmp_path_factory.mktemp("evaluation")
    manifest = bright_films(base / "bright", 30)
    from pydicom.data import get_testdata_file

    ct = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    (manifest.root / "ct.dcm").write_bytes(ct)
    manifest = replace(manifest, path=(manifest.path[0], "ct.dcm", *manifest.path[2:]))
    manifest.files()[0].write_bytes(b"\x89PNG\r\n\x1a\n broken")
    learnt = [digest(file)[:16] for file in manifest.files()[2:5]]
    first = brightness_bundle(trained_on={"films": learnt, "train": {"films": 3, "patients": 2}})
    second = replace(
        brightness_bundle(cam=False),
        name="other <model>",
        operating_points={"balanced": OperatingPoint("balanced", 0.4)},
    )
    judge(manifest, first, second, out=base / "out")
    return base / "out"


def test_the_folder_holds_what_the_docs_say(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.json", "scores.csv", "scores-2.csv", "figures", "report.html"}
    figures = {path.name for path in (folder / "figures").iterdir()}
    for name in ("confusion-balanced", "confusion-screening", "confusion-balanced-2", "roc",
                 "precision-recall", "reliability", "scores", "predictive-values",
                 "decision-curve", "abstention", "subgroups"):  # fmt: skip
        assert {f"{name}.png", f"{name}.svg"} <= figures
    assert {"films.png", "errors.png"} <= figures


def test_metrics_json_has_estimates_by_part_and_point(folder: Path) -> None:
    content = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert content["format"] == 1
    assert content["flow"] == {"found": 60, "unreadable": 1, "without_label": 0, "judged": 59,
                               "refused": 1, "answered": 58}  # fmt: skip
    one = content["parts"]["all"]["brightness"]
    recall = one["operating_points"]["screening"]["strict"]["recall"]
    assert set(recall) == {"value", "low", "high", "n", "method"}
    assert one["operating_points"]["balanced"]["predictive_values"]["0.05"]["ppv"]["n"] == 58
    assert one["ranking"]["auroc"]["value"] > 0.7
    assert content["differences"]["points"]["balanced"]["accuracy"]["method"]
    assert content["unreadable"][0]["film"] == "child00_0.png"


def test_scores_csv_has_a_row_a_film_and_the_decisions(folder: Path) -> None:
    with (folder / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 60
    assert rows[0]["error"] and rows[0]["balanced"] == "" and rows[0]["probability"] == ""
    assert rows[1]["refused"] and rows[1]["balanced"] == "refer"
    for row in rows[2:]:
        expected = "positive" if float(row["probability"]) >= 0.5 else "negative"
        assert row["balanced"] == expected


class Page(HTMLParser):
    """What a browser would fetch, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        for name in ("src", "href", "xlink:href", "poster", "srcset", "data"):
            value = known.get(name) or ""
            if value.startswith("#"):
                self.anchors.append(value[1:])
            elif value and not value.startswith("data:"):
                self.fetched.append(value)
        if known.get("id"):
            self.ids.append(str(known["id"]))
        if tag not in ("meta", "img", "br", "path", "use", "rect", "link", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(folder: Path) -> tuple[str, Page]:
    html = (folder / "report.html").read_text("utf-8")
    page = Page()
    page.feed(html)
    return html, page


def test_the_report_is_one_file_that_fetches_nothing(folder: Path) -> None:
    html, page = parsed(folder)
    assert page.fetched == []
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert "<script" not in html and page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.anchors) <= set(page.ids)


def test_the_report_says_what_it_must(folder: Path) -> None:
    html, page = parsed(folder)
    for words in ("Not a medical device", "Reference standard:", "it embeds films",
                  "pneumonia suspected", "pneumonia not suspected", "Flow of films",
                  "Population and reference standard", "Confusion matrix at each operating point",
                  "Metrics with intervals", "The two models compared", "DeLong",
                  "Predictive values where illness is rarer", "Calibration", "Subgroups",
                  "Shortcut controls", "All errors at balanced", "Checklist", "CLAIM",
                  "the paper's (2021), other films"):  # fmt: skip
        assert words in page.text, words
    assert re.findall(r'<section id="([^"]+)"', html) == [
        "flow", "population", "points", "figures", "differences", "prevalence", "curves",
        "calibration", "use", "subgroups", "controls", "films", "films-2", "model", "method",
        "checklist",
    ]  # fmt: skip
    assert "other <model>" in page.text and "<model>" not in html


def test_every_missed_film_is_shown_first_with_its_heat_map(folder: Path) -> None:
    html, _ = parsed(folder)
    with (folder / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    missed = [r["film"] for r in rows if r["label"] == "1" and r["balanced"] == "negative"]
    alarms = [r["film"] for r in rows if r["label"] == "0" and r["balanced"] == "positive"]
    assert missed and alarms
    part = html[html.index('<section id="films"') : html.index('<section id="films-2"')]
    shown = re.findall(r'alt="heat map of ([^"]+)"', part)
    assert sorted(shown[: len(missed)]) == sorted(missed)
    assert sorted(shown[len(missed) :]) == sorted(alarms)


def test_learnt_films_are_told(folder: Path) -> None:
    _, page = parsed(folder)
    assert "3 of these 60 films were learnt by it (brightness)" in page.text
    content = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert any("were learnt" in w for w in content["warnings"])
    assert not any("other <model>" in w and "learnt" in w for w in content["warnings"])


def test_unreadable_and_refused_films_are_told(folder: Path) -> None:
    _, page = parsed(folder)
    for words in ("Films that could not be read", "child00_0.png", "Refused by brightness",
                  "referred to a reader", "refused 1 of 59 films; the strict figures",
                  "1 of 60 films could not be read"):  # fmt: skip
        assert words in page.text, words


def test_unreadable_films_are_returned_for_the_exit_code(
    films: Manifest, bundle: Bundle, tmp_path: Path, no_report: None
) -> None:
    films.files()[1].write_bytes(b"not a film")
    found = judge(films, bundle, out=tmp_path / "out")
    assert [name for name, _ in found.unreadable] == [films.path[1]]
    assert found.flow["unreadable"] == 1 and found.flow["judged"] == len(films) - 1


def test_warnings_say_what_makes_figures_worth_less(
    films: Manifest, bundle: Bundle, tmp_path: Path, no_report: None
) -> None:
    parts = replace(
        films,
        part=("test",) * len(films),
        notes={"leak": 4, "drawn": {"shares": {"test": 0.15}}},
    )
    made_for = replace(bundle, target="effusion", intended_use={"ages": [1, 5], "views": ["PA"]})
    found = judge(parts, made_for, out=tmp_path / "out")
    told = "\n".join(found.warnings)
    for words in ("A leak was allowed: 4", "test part was drawn", "Few films: 24 normal",
                  "brightness answers effusion", "outside 1 to 5 years",
                  "have other views than PA"):  # fmt: skip
        assert words in told, words
    assert "were learnt" not in told and found.part == "test"


def test_films_that_were_refused_are_not_said_to_be_scored(films: Manifest) -> None:
    answered = np.zeros(len(films), bool)
    answered[:8] = True  # aged 1 to 8; four PA, four AP
    told = "\n".join(_beyond("m", {"ages": [1, 5], "views": ["PA"]}, films, answered))
    assert told.startswith("3 films are of patients outside") and "4 films have other views" in told
    assert not _beyond("m", {"ages": [1, 5], "views": ["PA"]}, films, ~answered & answered)


def test_a_model_that_only_guesses_is_told_first(
    films: Manifest, bundle: Bundle, tmp_path: Path, no_report: None
) -> None:
    turned = replace(films, label=np.random.default_rng(0).permutation(films.label))
    found = judge(turned, bundle, out=tmp_path / "out")
    assert "better than chance on these 48 films of this set" in found.warnings[0]
    assert not any("chance" in w for w in judge(films, bundle, out=tmp_path / "2").warnings)


def test_one_class_only_is_told_and_still_reported(tmp_path: Path, bundle: Bundle) -> None:
    manifest = bright_films(tmp_path / "healthy", 10, classes=1)
    found = judge(manifest, bundle, out=tmp_path / "out")
    assert any(w.startswith("Only one class") for w in found.warnings)
    _, page = parsed(tmp_path / "out")
    assert "Not measured: one class only." in page.text
    assert not (tmp_path / "out" / "figures" / "roc.png").exists()
    assert found.table()[1][0] == ["auroc", "–"]


def test_refused_films_are_errors_in_the_strict_figures(folder: Path) -> None:
    content = json.loads((folder / "metrics.json").read_text("utf-8"))
    at = content["parts"]["all"]["brightness"]["operating_points"]["balanced"]
    assert at["confusion"]["referred_negative"] == 1
    assert at["strict"]["specificity"]["n"] == at["answered"]["specificity"]["n"] + 1
    assert at["strict"]["specificity"]["value"] < at["answered"]["specificity"]["value"]
    assert at["strict"]["recall"] == at["answered"]["recall"]


def test_what_cannot_be_judged_is_refused(films: Manifest, bundle: Bundle, tmp_path: Path) -> None:
    parts = replace(films, part=("train",) * len(films))
    with pytest.raises(UsageError, match="train"):
        judge(parts, bundle, out=tmp_path / "a")
    unlabelled = replace(films, label=np.full(len(films), -1, np.int8))
    with pytest.raises(Refused, match="no film has a label"):
        judge(unlabelled, bundle, out=tmp_path / "b")
    with pytest.raises(UsageError, match="one model or two"):
        judge(films, bundle, bundle, bundle, out=tmp_path / "c")
    with pytest.raises(UsageError, match="given twice"):
        judge(films, bundle, bundle, out=tmp_path / "d")
    assert not any((tmp_path / name).exists() for name in "abcd")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "mine.txt").write_text("kept")
    with pytest.raises(FolderTaken):
        judge(films, bundle, out=tmp_path / "e")


def test_no_readable_film_at_all(films: Manifest, bundle: Bundle, tmp_path: Path) -> None:
    for file in films.files():
        file.write_bytes(b"nothing")
    with pytest.raises(Refused, match="no labelled film can be read"):
        judge(films, bundle, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_runs_give_the_same_figures(
    films: Manifest, bundle: Bundle, tmp_path: Path, no_report: None
) -> None:
    one = judge(films, bundle, out=tmp_path / "one")
    assert one.as_dict() == judge(films, bundle, out=tmp_path / "two").as_dict()


def test_a_manifest_can_name_its_standard_and_population(
    films: Manifest, bundle: Bundle, tmp_path: Path, no_report: None
) -> None:
    told = replace(films, notes={"population": "Bright squares.", "reference_standard": "a <dice>"})
    text = holds_for(judge(told, bundle, out=tmp_path / "out"))
    assert "Bright squares." in text and "a &lt;dice&gt;." in text
    plain = holds_for(judge(films, bundle, out=tmp_path / "two"))
    assert "normal or pneumonia" in plain and "the source has to say" in plain


def test_the_roc_of_one_score_for_all_films_is_the_diagonal(bundle: Bundle) -> None:
    from hilum.evaluation import figures
    from hilum.evaluation.measure import measure

    from .conftest import made_scores

    scores = made_scores(30)
    alike = replace(scores, probability=np.full(len(scores), 0.5))
    axes = figures.roc({"m": measure(alike, bundle.operating_points, draws=20)}).axes[0]
    (curve,) = (line for line in axes.lines if str(line.get_label()).startswith("m: AUROC"))
    assert curve.get_drawstyle() == "default"
    assert curve.get_xydata().tolist() == [[0, 0], [1, 1]]


def test_the_legend_of_the_scores_is_clear_of_the_thresholds(bundle: Bundle) -> None:
    from hilum.evaluation import figures
    from hilum.evaluation.measure import measure

    from .conftest import made_scores

    measured = measure(made_scores(30), bundle.operating_points, draws=20)
    figure = figures.scores({"m": measured}, ("normal", "ill"))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1 - 1
    assert all(tick == round(tick) for tick in axes.get_yticks())  # films are whole


def test_films_and_models_are_taken_as_the_command_takes_them(
    films: Manifest, bundle: Bundle, tmp_path: Path, no_report: None
) -> None:
    table, model = tmp_path / "films.csv", bundle.write(tmp_path / "m.hilum")
    films.write(table)
    found = evaluate(str(table), model=model, out=tmp_path / "out", draws=20, workers=0)
    assert found.as_dict()["models"]["brightness"]["digest"] == bundle.sealed().digest
    assert found.manifest.digest == films.digest
    assert len(repr(found)) < 1000  # what a notebook shows of it
    with pytest.raises(UsageError, match="one model or two"):
        evaluate(films, [model] * 3, out=tmp_path / "no")
    with pytest.raises(UsageError, match="no such file or folder"):
        evaluate(tmp_path / "nowhere", model)
