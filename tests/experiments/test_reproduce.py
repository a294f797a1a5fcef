from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hilum import report
from hilum.datasets import phantom
from hilum.datasets.index import index
from hilum.datasets.manifest import Manifest
from hilum.decision import Estimate, OperatingPoint
from hilum.errors import FolderTaken, Refused, UsageError
from hilum.evaluation import intervals
from hilum.evaluation.scores import Scores
from hilum.experiments import paper
from hilum.experiments.compare import tables
from hilum.experiments.compare.jobs import Job, Outcome
from hilum.experiments.reproduce import (
    closing,
    document,
    figures,
    matrix,
    reproduce,
    reread,
    shortened,
    wishes,
)
from hilum.experiments.reproduce.reproduce import Settings
from hilum.progress import SILENT
from hilum.training.recipe import Recipe

SMALL = Settings(
    on=("cpu:1", "cpu:1@bfloat16"),
    films=100,
    epochs=1,
    changes=("preprocessing.size=94", "training.batch=8"),
    sequential_films=30,
    wish_epochs=1,
    wish_size=94,
    wish_shares=(0.5, 1.0),
    wish_sizes=(94,),
    wish_widths=(1.0,),
)


def test_the_papers_figures_fit_each_other() -> None:
    assert reread.possible_validation_films() == [1040]
    assert sum(paper.MATRIX.values()) == 624
    for name, estimate in matrix.paper_metrics().items():
        if name in paper.METRICS:
            assert estimate.value is not None
            assert abs(estimate.value - paper.METRICS[name]) < 0.005
    accuracy = matrix.paper_metrics()["accuracy"]
    assert (round(accuracy.low or 0, 3), round(accuracy.high or 0, 3)) == (0.903, 0.944)
    means = [sum(e.seconds for e in epochs) / 10 for epochs in (paper.GPU, paper.CPU)]
    assert means == [91.3, 559.6]
    assert "<td>20 of 20</td>" in reread._calculated()  # all losses are lower on its CPU


def test_the_papers_tables_are_shown_as_they_were_printed() -> None:
    made = tables.paper_tables()
    first = {name: made[name].rows[0] for name in ("paper-3", "paper-4", "paper-5")}
    assert first["paper-3"] == [1, 0.5762, 0.2825, 0.4927, 0.2566]
    assert first["paper-4"] == [1, 0.7623, 0.9308, 0.7721, 0.9058]
    assert first["paper-5"] == [1, 91, 0.34, 578, 2]
    assert paper.GPU[0].val_loss == 0.2828  # in table 1


def test_a_model_of_one_answer_decides_no_wish() -> None:
    few, many = (
        wishes.Point(wishes.Setting(), 10, 20, 1, 1.0, Estimate(v, v - 0.05, v + 0.05, 90, ""))
        for v in (0.6, 0.9)
    )
    assert reread._verdict(few, many) == "held" and reread._verdict(many, few) == "refuted"
    near = replace(many, accuracy=Estimate(0.64, 0.59, 0.69, 90, ""))  # the intervals meet
    assert reread._verdict(few, near) == reread._verdict(near, few) == "open"
    dull = replace(few, one_answer=True)
    assert reread._verdict(dull, many) == reread._verdict(many, dull) == "open"
    assert dull.remark == "answers every film alike" and many.remark == ""
    assert replace(dull, reason="it broke").remark == "it broke"


def test_the_judged_part_is_named_for_what_it_is(films: Manifest) -> None:
    assert matrix.part_of(films) == ("test", "the published test part")
    drawn = replace(films, notes={"drawn": {"shares": {"test": 0.15}}})
    assert "drawn by patient" in matrix.part_of(drawn)[1]
    without = films.select(np.array([part != "test" for part in films.part]))
    assert matrix.part_of(without)[0] == "validation"


@pytest.mark.parametrize(
    ("right", "found", "said"),
    [
        ((9, 10), (10, 10), "open"),  # so few films show nothing
        ((618, 624), (389, 390), "held"),  # better than the paper
        ((578, 624), (386, 390), "open"),  # the paper's own matrix, whose intervals are wider
        ((5780, 6240), (3860, 3900), "held"),
        ((618, 624), (360, 390), "not here"),
        ((540, 624), (389, 390), "not here"),
    ],
)
def test_a_claim_of_quality_needs_an_interval_above_the_papers_value(
    right: tuple[int, int], found: tuple[int, int], said: str
) -> None:
    ours = [Estimate(k / n, *intervals.wilson(k, n), n, "") for k, n in (right, found)]
    assert reread._as_good(*ours, margin=0.02) == said
    assert reread._as_good(Estimate(1.0, None, None, 9, ""), ours[1], 0.02) != "held"


def test_table_6_at_one_half_is_of_the_networks_own_output(films: Manifest, tmp_path: Path) -> None:
    """The sealed model's calibration moves what is positive at one half; the paper has none."""
    judged = films.of_part("test")
    n = len(judged)
    # Half of the films are positive by their logit, none by the calibrated probability.
    logit, none = np.where(np.arange(n) % 2, 1.0, -1.0), ("",) * n
    scores = Scores(
        judged.path, judged.patient, judged.part, judged.label, logit, np.full(n, 0.3), none, none
    )
    scores.write(tmp_path / "scores.csv")
    balanced = OperatingPoint("balanced", 0.4, rule="planted")
    bundle = SimpleNamespace(operating_points={"balanced": balanced})
    run: Any = SimpleNamespace(folder=tmp_path, bundle=bundle)
    found = matrix.judge(films, run, "cpu:1")
    called = {"half": found.half.counts, "balanced": found.balanced.counts}
    positive = {name: counts["tp"] + counts["fp"] for name, counts in called.items()}
    assert positive == {"half": n // 2, "balanced": 0}


def test_the_fastest_places_first_seed_is_judged_and_the_wishes_train_as_it_was_settled(
    films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {seed: {"environment": {"place": "cpu:2@bfloat16"}} for seed in (1, 2)}
    at = SimpleNamespace(
        found=found, environment=found[1]["environment"], run_folder=lambda seed: Path(f"run{seed}")
    )
    comparison = SimpleNamespace(fastest="cpu:2", places={"cpu:2": at})
    asked: list[Any] = []

    def judge(manifest: Manifest, run: Any, place: str) -> None:
        asked.append((run.folder, place))

    def grant(folder: Path, data: Manifest, place: str, *given: Any, **named: Any) -> None:
        asked.append(place)

    monkeypatch.setattr(reproduce.comparing, "compare", lambda *given, **named: comparison)
    monkeypatch.setattr(reproduce, "judge", judge)
    monkeypatch.setattr(wishes, "grant", grant)
    monkeypatch.setattr(document, "write", lambda done, progress: None)
    reproduce.reproduce(films, replace(SMALL, sequential_films=0), out=tmp_path / "r")
    assert asked == [(Path("run1"), "cpu:2"), "cpu:2@bfloat16"]


@pytest.mark.parametrize(
    ("epochs", "size", "said"),
    [
        (10, 500, []),
        (10, 94, ["10 epochs and 94 × 94 pixels"]),
        (2, 500, ["2 epochs and 500 × 500 pixels"]),
    ],
)
def test_fewer_epochs_or_pixels_than_the_papers_are_told(
    epochs: int, size: int, said: list[str], films: Manifest
) -> None:
    changes = [f"training.epochs={epochs}", f"preprocessing.size={size}"]
    comparison = SimpleNamespace(recipe=Recipe.load("paper2021", changes))
    done: Any = SimpleNamespace(
        manifest=films, comparison=comparison, sequential=None, wishes=None, settings=Settings()
    )
    shorter = [line for line in shortened.sentences(done) if line.startswith("shortened: ")]
    assert shorter == [f"shortened: {words}; the paper has 10 and 500 × 500." for words in said]


def test_a_film_that_cannot_be_read_is_not_drawn(tmp_path: Path) -> None:
    manifest = index(phantom.make(tmp_path / "films", patients=20, size=(100, 120)))
    first = np.random.default_rng(0).permutation(np.flatnonzero(manifest.label == 0))[0]
    film = manifest.root / manifest.path[first]
    film.write_bytes(film.read_bytes()[:60])
    recipe = Recipe.load("paper2021", ["preprocessing.size=94"])
    done: Any = SimpleNamespace(manifest=manifest, comparison=SimpleNamespace(recipe=recipe))
    assert "two chest films" in document._two_films(done, tmp_path)
    assert (tmp_path / "figure-1.png").stat().st_size > 1000


def test_a_wish_changes_one_thing_at_a_time() -> None:
    rows = wishes.settings(128, wishes.SHARES, wishes.SIZES, wishes.WIDTHS)
    middle = wishes.Setting()
    for row in rows.values():
        assert middle in row
        assert all(
            sum(getattr(s, k) != getattr(middle, k) for k in ("share", "size", "width")) <= 1
            for s in row
        )
    assert wishes.Setting(size=500).parameters == 1_467_137


def test_a_wish_counts_the_films_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = index(phantom.make(tmp_path / "films", patients=12, size=(100, 120), seed=2))
    row = manifest.part.index("train")
    (manifest.root / manifest.path[row]).write_bytes(b"no film")
    monkeypatch.setattr(wishes, "perform", lambda job, progress: Outcome("failed", "not tried"))
    setting = wishes.Setting(size=94)
    point = wishes._point(tmp_path, manifest, setting, "cpu:1", "test", 2, (), SILENT)
    assert point.reason == "not tried" and point.epochs == 2
    assert point.films == manifest.part.count("train") - 1
    assert point.patients <= len(set(manifest.of_part("train").patient))


def test_the_paper_from_start_to_end(films: Manifest, inside: list[Job], tmp_path: Path) -> None:
    out = tmp_path / "r"
    done = reproduce.reproduce(films, SMALL, out=out)
    for number in range(1, 7):
        assert (out / "tables" / f"table-{number}.csv").is_file()
    for number in range(1, 10):
        assert (out / "figures" / f"figure-{number}.png").stat().st_size > 1000
    content = json.loads((out / "reproduction.json").read_text())
    counts = content["table_6"]["half"]["confusion"]
    judged = done.manifest.of_part("test")
    assert sum(counts.values()) == content["table_6"]["films"] == len(judged)
    assert counts["tp"] + counts["fn"] == int((judged.label == 1).sum())

    assert done.sequential is not None and list(done.sequential.measured) == ["reference", "cpu:1"]
    assert done.sequential.speed_up("cpu:1", "reference")["ratio"] > 1  # type: ignore[index]
    share = done.sequential.part_share("reference", "convolution")
    assert share is not None and share > 0.3
    few = done.sequential.manifest
    trained = f"{few.part.count('train'):,} films for one epoch (of {len(few):,} in all parts)"

    assert done.wishes is not None
    of_all = Recipe.load(out / "wishes" / "share1-size94-width1.toml")
    assert of_all.training.batch == 8 and of_all.schedule.name == "constant"
    half, full = done.wishes.of("patients")
    assert half.patients < full.patients and half.epochs == 2 * full.epochs == 2
    assert full.accuracy is not None and full.accuracy.low is not None
    assert [job.kind for job in inside].count("train") == 2 + 2 + 2

    page, again = (out / "report.html").read_text(), (out / "paper.html").read_text()
    assert trained in page
    assert "the published test part" in page and "shortened: 1 epoch and 94" in page
    for slip in paper.SLIPS:
        assert slip[0] in again
    assert "1,040" in again and "6.13, by epoch 5.70 to 6.48" in again
    for text in (page, again):
        assert "left out: " not in text
    assert "the closing wishes, 1 epoch in place of 5, 94 pixels a side in place of 128" in page
    assert f"judged on {len(judged)} films of the published test part" in page

    bare = replace(done, sequential=None, wishes=None)
    missing = [line for line in shortened.sentences(bare) if line.startswith("left out: ")]
    assert ["--sequential-films 0" in missing[0], "--no-wishes" in missing[1]] == [True, True]
    assert missing[0] in unescape(reread.page(bare))


def made_up_wishes(auroc: Estimate) -> wishes.Wishes:
    rows = wishes.settings(128, wishes.SHARES, wishes.SIZES, wishes.WIDTHS)
    accuracy = Estimate(0.8, 0.5, 0.9, 87, "Wilson")
    points = {
        s: wishes.Point(s, int(s.share * 100), int(s.share * 200), 1, 1.0, accuracy, auroc)
        for row in rows.values()
        for s in row
    }
    return wishes.Wishes(128, "the validation part", "cpu:1", points, rows)


@pytest.mark.parametrize(
    ("auroc", "why"),
    [
        (Estimate(0.9, 0.8, 0.95, 87, "patient bootstrap"), None),
        (Estimate(0.9, None, None, 87, "patient bootstrap"), "one draw in twenty had none"),
        (Estimate(0.9, None, None, 87, "no interval: all bootstrap draws agree"), "gave the same"),
        (Estimate(None, None, None, 87, "not defined on these films"), "all of one class"),
    ],
)
def test_the_closing_wishes_say_on_what_they_are_judged(auroc: Estimate, why: str | None) -> None:
    found = made_up_wishes(auroc)
    body = closing.section(found, closing.table(found), "<svg></svg>").body
    assert "judged on 87 films of the validation part, the accuracy at one half" in body
    assert ("An AUROC has no interval (–) where" in body) == (why is not None)
    assert (why or "") in body


def test_the_legend_of_the_wishes_covers_no_interval() -> None:
    with report.plot_style():
        figure = figures.wishes(made_up_wishes(Estimate(0.9, 0.2, 1.0, 87, "patient bootstrap")))
        figure.draw_without_rendering()
        covered = figure.legends[0].get_window_extent()
        assert not any(covered.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_settings_survive_their_file_and_a_wrong_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"format": 1, **vars(SMALL)}))
    assert Settings.read(tmp_path) == SMALL
    with pytest.raises(UsageError, match="no reproduction was begun"):
        reproduce.resume(tmp_path / "none")
    (tmp_path / "plan.json").write_text(json.dumps({"format": 1, "places": ["cpu:1"]}))
    with pytest.raises(UsageError, match="goes on with hilum compare --resume"):
        reproduce.resume(tmp_path)


@pytest.mark.parametrize(
    "content", ["", '{"format": 1, "seeds"', "[]", "7", '{"format": 1, "x": 2}']
)
def test_a_damaged_plan_is_told_as_one(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(Refused, match=r"cannot be read: .*plan\.json \(damaged\)\. Put back"):
        reproduce.resume(tmp_path)


def test_a_plan_that_cannot_be_opened_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(Refused, match=r"plan\.json \(Is a directory\)"):
        reproduce.resume(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('network.name="compact"', "of the paper's network: network.name=compact"),
        ("network.options.filters=[]", "figure 3 shows a kernel"),
    ],
)
def test_what_could_not_be_drawn_is_told_before_a_film_is_read(
    change: str, why: str, tmp_path: Path
) -> None:
    settings, out = replace(SMALL, changes=(change,)), tmp_path / "r"
    with pytest.raises(UsageError, match=re.escape(why)):
        reproduce.reproduce(tmp_path / "none", settings, out=out)
    assert not out.exists()
    (tmp_path / "plan.json").write_text(json.dumps({"format": 1, **vars(settings)}))
    with pytest.raises(UsageError, match=re.escape(why)):
        reproduce.resume(tmp_path)


def test_one_that_has_not_ended_says_how_to_go_on(films: Manifest, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    way_on = f"Go on with hilum reproduce --resume {tmp_path}, or choose another"
    with pytest.raises(FolderTaken, match=re.escape(way_on)):
        reproduce.reproduce(films, SMALL, out=tmp_path)
