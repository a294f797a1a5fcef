"""``cuda:2`` from the command to the sealed run, on two GPUs that are none (``two_gpus``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hilum.datasets.manifest import Manifest
from hilum.training.recipe import Recipe
from hilum.training.run import Run

from .test_group import LONG, data, paper  # noqa: F401


class Hilum:
    """The command where torch sees two GPUs; its films are at ``films``."""

    def __init__(self, folder: Path, films: Manifest) -> None:
        self.folder, self.films = folder, str(folder / "films.csv")
        films.write(folder / "films.csv")
        (folder / "site").mkdir()
        stand_in = Path(__file__).with_name("two_gpus.py")
        shutil.copy(stand_in, folder / "site" / "sitecustomize.py")

    def __call__(self, *arguments: str, **own: str) -> subprocess.CompletedProcess[str]:
        path = [str(self.folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        given = {"PYTHONPATH": os.pathsep.join(path), "GLOO_SOCKET_IFNAME": "lo", **own}
        return subprocess.run(
            [sys.executable, "-m", "hilum", *arguments],
            cwd=self.folder, env={**os.environ, "TAKEN": str(self.folder / "taken"), **given},
            capture_output=True, text=True, timeout=LONG,
        )  # fmt: skip

    def train(self, place: str, recipe: Recipe, out: str, **own: str) -> Run:
        (self.folder / "own.toml").write_text(recipe.toml())
        done = self("train", self.films, "--recipe", "own.toml", "--on", place, "-o", out, **own)
        assert done.returncode == 0, done.stderr
        return Run(self.folder / out)

    @property
    def taken(self) -> list[str]:
        return sorted((self.folder / "taken").read_text().splitlines())


@pytest.fixture
def hilum(tmp_path: Path, data: Manifest) -> Hilum:  # noqa: F811
    return Hilum(tmp_path, data)


@pytest.mark.parametrize("room", [{}, {"STREAMED": "1"}], ids=["resident", "streamed"])
def test_two_of_them_go_the_way_of_one(hilum: Hilum, room: dict[str, str]) -> None:
    # Of 29 films the last batch of an epoch leaves one of them without any. SGD's steps are as long
    # as its gradients, which Adam's are not.
    recipe = paper(7, 14, optimiser={"name": "sgd", "lr": 0.02, "momentum": 0.9})
    one = hilum.train("cuda@float32", recipe, "one", **room)
    assert not (hilum.folder / "taken").exists()
    # What a launcher of this process says is not for the workers.
    two = hilum.train("cuda:2@float32", recipe, "two", LOCAL_RANK="1", **room)
    assert hilum.taken == ["0 cuda:0", "1 cuda:1"]
    assert two.environment["place"] == "cuda:2@float32"
    assert two.environment["gpu"] == "a GPU that is none"
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert abs(a.loss - b.loss) < 1e-4
        assert a.val_loss is not None and b.val_loss is not None
        assert abs(a.val_loss - b.val_loss) < 1e-4
    first, second = (run.bundle.metrics["validation"]["auroc"] for run in (one, two))
    assert first["n"] == second["n"]  # no film twice


def test_one_that_is_lost_ends_the_run_and_it_goes_on(hilum: Hilum) -> None:
    recipe = paper(6, 16)
    whole = hilum.train("cuda:2@float32", recipe, "whole")
    cut = hilum("train", hilum.films, "--recipe", "own.toml", "--on", "cuda:2@float32",
                "-o", "cut", LOST="1")  # fmt: skip
    assert cut.returncode == 3
    (line,) = [line for line in cut.stderr.splitlines() if line.startswith("hilum: ")]
    assert "number 2 of 2 (signal 9)" in line and "--resume cut" in line
    assert len(Run(hilum.folder / "cut").epochs) in (1, 2)  # the second may be being written
    assert hilum("train", "--resume", "cut").returncode == 0
    ended = Run(hilum.folder / "cut")
    assert [epoch.loss for epoch in ended.epochs] == [epoch.loss for epoch in whole.epochs]


def test_a_defect_of_one_is_told_with_its_traceback(hilum: Hilum) -> None:
    (hilum.folder / "own.toml").write_text(paper(4, 16).toml())
    done = hilum("train", hilum.films, "--recipe", "own.toml", "--on", "cuda:2@float32", BROKEN="1")
    assert done.returncode == 1
    assert "KeyError: 'planted'" in done.stderr


def test_a_third_is_not_there(hilum: Hilum) -> None:
    done = hilum("train", hilum.films, "--on", "cuda:3", "-o", "three")
    assert done.returncode == 3
    assert "no such place here: cuda:3, 2 GPUs are seen" in done.stderr
    assert not (hilum.folder / "three").exists()


@pytest.mark.slow
def test_a_comparison_of_one_and_two(hilum: Hilum) -> None:
    (hilum.folder / "own.toml").write_text(paper(2, 8).toml())
    done = hilum("compare", hilum.films, "--recipe", "own.toml", "--on", "cuda@float32",
                 "--on", "cuda:2@float32", "-o", "both")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((hilum.folder / "both" / "comparison.json").read_text())
    one, two = found["places"]
    assert [place["status"] for place in (one, two)] == ["done", "done"]
    assert two["environment"]["processes"] == 2
    assert (one["breakdown"]["exchange"], one["breakdown"]["parts"]["exchange"]) == (None, 0)
    assert two["breakdown"]["exchange"] is not None
    # Nobody asks the workers what their GPUs held.
    assert two["runs"][0]["peak_memory_mib"] is None
    assert "cuda:2@float32" in (hilum.folder / "both" / "report.html").read_text()
