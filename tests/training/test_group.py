from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hilum.datasets.manifest import Manifest
from hilum.errors import Interrupted, NonFiniteLoss, WorkerLost
from hilum.progress import Progress
from hilum.training import group, leader
from hilum.training.recipe import Recipe
from hilum.training.run import Run
from hilum.training.train import resume, train

from .conftest import film, recipe_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """33 films for training: an odd number, so that shares differ."""
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    count = 44
    labels = (np.arange(count) % 2).astype(np.int8)
    for number in range(count):
        Image.fromarray(film(rng, 100, 96, int(labels[number]))).save(root / f"{number:02}.png")
    names = tuple(f"{number:02}.png" for number in range(count))
    parts = tuple("validation" if number % 4 == 3 or number % 12 == 0 else "train"
                  for number in range(count))  # fmt: skip
    return Manifest(root, names, labels, names, parts)


def paper(epochs: int, batch: int, **tables: Any) -> Recipe:
    """The paper's network, small, with the paper's settings."""
    small = {"options": {"filters": [4, 4, 4, 4, 4], "units": [8, 4]}}
    base = Recipe.load("paper2021").as_dict()
    content = {name: base[name] for name in ("optimiser", "schedule", "augmentation", "training")}
    content["training"] = {**content["training"], "epochs": epochs, "batch": batch}
    return recipe_of("paper2021", 94, **{**content, "network": small, "finish": {"shifts": []},
                                         **tables})  # fmt: skip


def test_two_processes_go_the_way_of_one(data: Manifest, tmp_path: Path) -> None:
    # One batch an epoch: the losses of the epochs are those of the first 20 steps.
    recipe = paper(20, 64)
    one = train(data, recipe, on="cpu:1", out=tmp_path / "one", workers=0)
    two = train(data, recipe, on="cpu:2x1", out=tmp_path / "two", workers=0)
    assert two.environment["place"] == "cpu:2x1@float32"
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert abs(a.loss - b.loss) < 1e-4
        assert a.val_loss is not None and b.val_loss is not None
        assert abs(a.val_loss - b.val_loss) < 1e-4
    first, second = one.bundle.metrics["validation"], two.bundle.metrics["validation"]
    assert first["auroc"]["n"] == second["auroc"]["n"]


class Kill(Progress):
    """Ends one worker, or interrupts the leader, when the first epoch has been told of."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def row(self, table: str, values: dict[str, object]) -> None:
        if self.number == signal.SIGINT:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif values["epoch"] == 1:
            os.kill(workers_here()[-1], self.number)


def workers_here() -> list[int]:
    """Processes of groups that this process leads."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and b"hilum.training.worker" in line:
            found.append(int(folder.name))
    return sorted(found)


def test_a_worker_that_dies_ends_the_run_cleanly(data: Manifest, tmp_path: Path) -> None:
    recipe = paper(40, 8)
    with pytest.raises(WorkerLost, match=r"number 2 of 2 \(signal 9\).*--resume"):
        train(data, recipe, on="cpu:2x1", out=tmp_path / "run", workers=0,
              progress=Kill(signal.SIGKILL))  # fmt: skip
    assert workers_here() == []
    run = Run(tmp_path / "run")
    assert 1 <= len(run.epochs) < 40
    with pytest.raises(Interrupted, match="--resume"):
        resume(run.folder, workers=0, progress=Kill(signal.SIGINT))
    assert workers_here() == []


def test_a_defect_of_the_run_is_told_once(data: Manifest, tmp_path: Path) -> None:
    recipe = paper(1, 8, network={"options": {}}, optimiser={"name": "sgd", "lr": 900.0})
    with pytest.raises(NonFiniteLoss, match="epoch 1, step"):
        train(data, recipe, on="cpu:2x1", out=tmp_path / "run", workers=0)


def test_workers_end_with_their_leader(tmp_path: Path) -> None:
    run = Run(tmp_path)
    worker = leader._start(run.folder, 0, 2, 1)
    assert worker.stdin is not None
    worker.stdin.close()  # what the kernel does when the leader is killed
    until = time.monotonic() + 30
    while worker.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert worker.poll() is not None
    assert worker.stdout is not None
    worker.stdout.close()


def test_shares_cover_a_batch_once() -> None:
    import torch

    batch = np.arange(100, 117)
    shares = [group.Group(rank, 3, torch.device("cpu")).share(batch) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.slow
def test_under_torchrun(data: Manifest, tmp_path: Path) -> None:
    """Two processes of torchrun's on this machine; the first is killed once, and both come back."""
    data.write(tmp_path / "films.csv")
    (tmp_path / "own.toml").write_text(paper(30, 8).toml())
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = "-m torch.distributed.run --nproc-per-node=2 --max-restarts=1 --master-port=0"
    meet = "--rdzv-backend=c10d --rdzv-endpoint=localhost:0"
    command = [sys.executable, *launch.split(), *meet.split(), str(tmp_path / "script.py")]
    command.append(str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    run = Run(tmp_path / "run")
    assert run.finished and len(run.epochs) == 30
    assert (tmp_path / "killed").exists()
    assert run.environment["processes"] == 2
    one = train(data, paper(30, 8), on="cpu:1", out=tmp_path / "one", workers=0)
    for a, b in zip(one.epochs, run.epochs, strict=True):
        assert abs(a.loss - b.loss) < 1e-4


SCRIPT = """
import os, signal, sys
from pathlib import Path
from hilum.progress import Progress
from hilum.training.run import Run
from hilum.training.train import train
folder = Path(sys.argv[1])
class Die(Progress):
    def row(self, table, values):
        if values["epoch"] == 3 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
train(folder / "films.csv", folder / "own.toml", on="cpu:1", out=folder / "run", workers=0,
      progress=Die())
"""
