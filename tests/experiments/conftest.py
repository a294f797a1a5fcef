"""A small data set, and jobs done in this process instead of one each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hilum.datasets import phantom
from hilum.datasets.index import index
from hilum.datasets.manifest import Manifest
from hilum.errors import HilumError
from hilum.experiments.compare import compare as comparing
from hilum.experiments.compare import worker
from hilum.experiments.compare.jobs import Job, Outcome
from hilum.experiments.reproduce import wishes


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """118 made-up films of 60 patients in three parts."""
    folder = phantom.make(
        tmp_path_factory.mktemp("phantom") / "films", patients=60, size=(100, 120), seed=0
    )
    return index(folder)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs run in this process; returns those that were done, in order."""
    done: list[Job] = []

    def perform(job: Job, progress: Any) -> Outcome:
        done.append(job)
        try:
            found = worker._train(job, 0.0) if job.kind == "train" else worker._breakdown(job)
        except HilumError as error:
            return Outcome("failed", str(error))
        return Outcome("done", found=found)

    monkeypatch.setattr(comparing, "perform", perform)
    monkeypatch.setattr(wishes, "perform", perform)
    return done


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()
