"""What `hilum train` says, and in which order."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("torch")

from hilum.cli.app import run
from hilum.cli.display import Terminal
from hilum.datasets import phantom


@pytest.mark.parametrize(
    "options", [["--recipe", "nope"], ["--set", "training.epoch=1"], ["--on", "tpu"]]
)
def test_a_wrong_option_is_told_before_a_film_is_looked_at(tmp_path, capsys, options):
    phantom.make(tmp_path / "films", films=8)
    assert run(["train", str(tmp_path / "films"), "--out", str(tmp_path / "run"), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hilum: ") and "drawn by patient" not in said
    assert not (tmp_path / "run").exists()


def test_a_second_place_is_refused(tmp_path, capsys):
    assert run(["train", str(tmp_path), "--on", "cpu:1", "--on", "cpu:2"]) == 2
    said = capsys.readouterr().err
    assert "--on is given 2 times" in said and "hilum compare" in said


def test_what_is_said_beside_a_bar_goes_above_it(capsys):
    from rich.console import Console

    screen = io.StringIO()
    terminal = Terminal()
    terminal._live = True
    terminal._console = Console(file=screen, force_terminal=True, highlight=False, width=60)
    with terminal.stage("finishing", 2) as advance:
        advance(1)
        terminal.warn(f"[bold]{'long ' * 20}end")
        advance(1)
    seen = screen.getvalue()
    line = next(one for one in seen.splitlines() if "warning:" in one)
    # The bar was erased before the line, which is whole and as it was given, and drawn behind it.
    assert line.index("\x1b[2K") < line.index("warning:") and line.endswith("end")
    assert "[bold]long" in line and "finishing" in seen.split("long end")[1]
    terminal.warn("afterwards")
    assert capsys.readouterr().err.endswith("afterwards\n")


def test_numbers_of_a_training_that_runs_away_do_not_run_together(capsys):
    values = {"epoch": 1, "seconds": 0.9, "ms_per_step": 69.8, "loss": 6.5e36, "accuracy": 0.5}
    Terminal().row("training", {**values, "val_loss": 2.5e35, "val_accuracy": None, "lr": 0.1})
    cells = capsys.readouterr().err.splitlines()[-1].split()
    assert cells == ["1", "0.9", "69.8", "6.5e+36", "0.5000", "2.5e+35", "–", "–", "0.1"]
