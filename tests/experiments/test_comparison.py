"""A comparison of planted runs, nothing trained: what it says, against values by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.datasets.manifest import Manifest
from hilum.errors import UsageError
from hilum.evaluation.scores import Scores
from hilum.experiments.compare import claims, document
from hilum.experiments.compare.compare import compare
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.jobs import Outcome
from hilum.experiments.compare.runs import At
from hilum.experiments.compare.tables import places_table
from hilum.machine import Place
from hilum.training.recipe import Recipe

# Of each place: seconds of its epochs and seconds of set-up, by seed.
TIMES: dict[str, tuple[list[list[float]], list[float]]] = {
    "cpu:1": ([[14, 28, 63], [14, 28, 63]], [2, 4]),
    "cpu:4": ([[2, 4, 9], [2, 4, 9]], [10, 30]),  # seven times as fast
    "cpu:2": ([[7, 14, 31.5], [7, 14, 31.5]], [73, 73]),  # twice; a set-up of four epochs' gain
    "cpu:2x2": ([[7, 14, 63], [7, 28, 35]], [5, 5]),
}
# The epochs of cpu:1 with seed 0; those of seed 1 are all 0.02 more.
USUAL: dict[str, list[float]] = {
    "loss": [0.6, 0.5, 0.4],
    "accuracy": [0.7, 0.8, 0.9],
    "val_loss": [0.6, 0.5, 0.4],
    "val_accuracy": [0.7, 0.8, 0.9],
    "val_auroc": [0.75, 0.85, 0.95],
}
# How far off a place is with seed 0; with seed 1 it is 1.1 times as far. All begin alike.
OFF: dict[str, dict[str, list[float]]] = {
    "cpu:1": {},
    "cpu:4": {"val_loss": [0, 0, 1e-4]},
    "cpu:2": {"loss": [0, 0.01, 0.02], "val_loss": [0, 0.02, 0.04],
              "val_accuracy": [0, 0, 0.01], "val_auroc": [0, 0, 0.005]},
    "cpu:2x2": {"loss": [0, 0.03, 0.06], "val_loss": [0, 0.15, 0.3],
                "val_accuracy": [0, 0, -0.06], "val_auroc": [0, 0, -0.03]},
}  # fmt: skip


def run_of(name: str, seed: int) -> Outcome:
    times, setups = TIMES[name]
    off = {key: np.array(OFF[name].get(key, [0.0] * 3)) * (1 + 0.1 * seed) for key in USUAL}
    epochs = [
        {"epoch": k + 1, "seconds": seconds, "ms_per_step": 10 * seconds, "lr": 1e-3}
        | {key: USUAL[key][k] + 0.02 * seed + off[key][k] for key in USUAL}
        for k, seconds in enumerate(times[seed])
    ]
    place = Place.parse(name)
    environment = {
        "place": name, "precision": "float32", "cores": 4, "processes": place.processes,
        "threads": place.threads,
    }  # fmt: skip
    found = {
        "environment": environment, "epochs": epochs, "films": 64, "steps": 4,
        "setup_seconds": setups[seed], "peak_memory_mib": [300.0, 500.0][seed],
    }  # fmt: skip
    return Outcome("done", found=found)


@pytest.fixture
def planted(films: Manifest, tmp_path: Path) -> Comparison:
    """Two seeds of three epochs in four places, on a machine of four cores."""
    places = {}
    for name in TIMES:
        at = places[name] = At(name, tmp_path, {seed: run_of(name, seed) for seed in (0, 1)})
        for seed in at.found:
            at.run_folder(seed).mkdir()
            logit, none = np.array([-1.0, 1.0]), ("", "")
            of_two = (none, none, ("validation",) * 2, np.array([0, 1], np.int8))
            scores = Scores(*of_two, logit, 1 / (1 + np.exp(-logit)), none, none)
            scores.write(at.run_folder(seed) / "scores.csv")
    recipe = Recipe.load("paper2021", ["training.epochs=3"])
    margins = {
        "val_accuracy": 0.02, "val_auroc": 0.01, "val_loss": 0.05, "curve_loss": 0.05,
        "curve_val_loss": 0.05,
    }  # fmt: skip
    return Comparison(tmp_path, films, recipe, (0, 1), None, margins, places)


def only(done: Comparison, *names: str) -> Comparison:
    return replace(done, places={name: done.places[name] for name in names})


def verdict(done: Comparison, claim: str) -> str:
    (found,) = [row[1] for row in claims.rows_of(done) if row[0].startswith(claim)]
    return found


def test_all_is_told_against_the_baseline_that_was_asked_for(planted: Comparison) -> None:
    assert planted.baseline == "cpu:1"
    asked = replace(planted, asked="cpu:2")
    assert asked.baseline == "cpu:2" and asked.baselines == ["cpu:2", "cpu:1", "cpu:4"]
    assert {row["over"] for row in asked.break_even()} == {"cpu:2"}
    assert "cpu:2" not in asked.equivalences


def test_a_parallel_baseline_leaves_the_others_to_tell_a_speed_up(planted: Comparison) -> None:
    both = replace(only(planted, "cpu:1", "cpu:2"), asked="cpu:2")
    assert verdict(both, "The parallel") == verdict(replace(both, asked=None), "The parallel")


def test_films_without_pixels_are_told_first(planted: Comparison) -> None:
    told = "1 film unreadable (1: cut short)"
    assert told in document.warnings(replace(planted, without_pixels=told))[0]
    assert planted.as_dict()["data"]["without_pixels"] is None


def test_a_speed_up_is_of_the_means_and_its_interval_of_the_means_of_the_runs(
    planted: Comparison,
) -> None:
    found = planted.speed_up("cpu:2x2", over="cpu:1")
    assert found is not None
    assert found["ratio"] == pytest.approx(210 / 154, abs=1e-4)
    # The runs' ratios are 105 / 84 = 1.25 and 105 / 70 = 1.5, 1.2 times as much: their logarithms
    # lie half of log 1.2 about the middle, and t(.975, 1) = 12.7062.
    middle, wide = (1.25 * 1.5) ** 0.5, 1.2 ** (12.7062 / 2)
    assert found["low"] == pytest.approx(middle / wide, abs=1e-3)
    assert found["high"] == pytest.approx(middle * wide, abs=1e-3)
    assert (found["least"], found["most"]) == (1.0, 2.0)


def test_the_table_of_places_says_what_was_planted(planted: Comparison) -> None:
    table = places_table(planted)
    rows: dict[Any, dict[str, Any]] = {
        row[0]: dict(zip(table.heads, row, strict=True)) for row in table.rows
    }
    # The mean epoch is of 35, 5 and 77 / 3 s, and its steps of 16 films ten times as many ms.
    for name, threads, epoch, setup, ratio in (
        ("cpu:1", 1, 35, 3, 1.0), ("cpu:4", 4, 5, 20, 7.0), ("cpu:2x2", 4, 77 / 3, 5, 1.3636)
    ):  # fmt: skip
        row = rows[name]
        assert row["threads"] == threads and row["memory MiB"] == 500
        assert row["s an epoch"] == pytest.approx(epoch) and row["set-up s"] == setup
        assert row["films/s"] == pytest.approx(16 / (epoch / 100)) and row["× cpu:1"] == ratio
    assert planted.places["cpu:4"].as_dict()["films_a_second"] == 320


def test_places_are_compared_at_their_last_epoch_and_over_all_of_them(planted: Comparison) -> None:
    """Seeds that differ by d and 1.1 d do so by 1.05 d on average, with a 90 % interval of 0.734 d
    to 1.366 d, since t(.95, 1) = 6.314."""
    found = {
        name: {key: (round(e.difference, 6), e.verdict) for key, e in by_measure.items()}
        for name, by_measure in planted.equivalences.items()
    }
    assert found == {
        "cpu:2": {
            "val_accuracy": (0.0105, "alike"), "val_auroc": (0.00525, "alike"),
            "val_loss": (0.042, "open"), "curve_loss": (0.0105, "alike"),
            "curve_val_loss": (0.021, "alike"),
        },
        "cpu:2x2": {
            "val_accuracy": (-0.063, "different"), "val_auroc": (-0.0315, "different"),
            "val_loss": (0.315, "different"), "curve_loss": (0.0315, "alike"),
            "curve_val_loss": (0.1575, "different"),
        },
        # The losses differ, if by little: accuracies that do not may be equal by chance.
        "cpu:4": {
            "val_accuracy": (0, "not tested"), "val_auroc": (0, "not tested"),
            "val_loss": (0.000105, "alike"), "curve_loss": (0, "alike"),
            "curve_val_loss": (0.000035, "alike"),
        },
    }  # fmt: skip


def test_what_a_seed_changes_is_the_standard_deviation_of_a_sample(planted: Comparison) -> None:
    spread = planted.places["cpu:1"].as_dict()["spread_over_seeds"]
    assert spread == pytest.approx(dict.fromkeys(planted.margins, 0.02 / 2**0.5))


def test_the_papers_claim_of_speed_is_held_by_the_best_place(planted: Comparison) -> None:
    assert verdict(planted, "The parallel") == "held"
    assert verdict(only(planted, "cpu:1", "cpu:2"), "The parallel") == "faster, by less"


def test_one_place_that_differs_refutes_and_an_open_one_leaves_it_open(planted: Comparison) -> None:
    assert verdict(planted, "Losses") == "refuted"
    assert verdict(only(planted, "cpu:1", "cpu:2"), "Losses") == "open"


def test_a_set_up_that_pays_after_the_last_epoch_does_not_pay(planted: Comparison) -> None:
    for place, epochs, said in (("cpu:4", 1, "held"), ("cpu:2", 4, "in part")):
        two = only(planted, "cpu:1", place)
        (row,) = two.break_even()
        assert (row["epochs"], row["known"]) == (epochs, True)
        assert verdict(two, "Setting up") == said


def test_set_ups_are_of_the_seeds_that_were_run_in_both(planted: Comparison) -> None:
    runs = planted.places["cpu:4"].outcomes
    planted.places["cpu:4"].outcomes = {1: runs[1], 2: runs[0]}  # and seed 0 at cpu:1 alone
    row = planted.break_even()[0]
    assert (row["place"], row["setup_seconds"], row["setup_more"]) == ("cpu:4", 30, 30 - 4)


def test_places_are_not_compared_under_a_launcher(
    films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="Leave torchrun out"):
        compare(films, ["cpu:1", "cpu:2"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
