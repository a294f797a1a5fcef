from __future__ import annotations

import errno
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from hilum.errors import (
    DiskFull,
    FolderTaken,
    Interrupted,
    Locked,
    MemoryFull,
    Refused,
    UsageError,
)
from hilum.training.loop import Epoch
from hilum.training.run import Run, claim, interruptible, reopen

from .conftest import recipe_of

FIRST = Epoch(1, 2.5, 10.25, 0.7, 0.5, 0.6931471805599453, 0.5, None, 1e-3)
SECOND = Epoch(2, 2.25, 9.5, 0.6, 0.75, None, None, 0.875, 3e-4)


def begun(folder: Path) -> Run:
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe_of().toml())
    (folder / "films.csv").write_text("path\n")
    (folder / "environment.json").write_text("{}")
    return Run(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", '{"place"'),
        ("epochs.csv", "epoch,seconds\n1"),
        ("epochs.csv", "a\n1\n"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    run = begun(tmp_path / "run")
    (run.folder / name).write_text(content)
    with pytest.raises(Refused, match=rf"cannot be read: .*{name}"):
        run.environment, run.epochs  # noqa: B018


def test_a_comparison_is_no_run(tmp_path: Path) -> None:
    run = begun(tmp_path / "comparison")
    (run.folder / "environment.json").unlink()
    with pytest.raises(UsageError, match=r"not a run folder: .*hilum compare"), reopen(run.folder):
        pass


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.last() is None and run.epochs == []
    run.checkpoint({"learner": {"w": torch.arange(3.0)}, "recipe": "x"}, [FIRST, SECOND])
    found = run.last()
    assert found is not None
    state, epochs = found
    assert epochs == [FIRST, SECOND] == run.epochs
    assert state["learner"]["w"].tolist() == [0, 1, 2]
    assert (
        (run.folder / "epochs.csv")
        .read_text()
        .startswith("epoch,seconds,ms_per_step,loss,accuracy,val_loss,val_accuracy,val_auroc,lr\n")
    )


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run")
    run.checkpoint({"learner": 1}, [FIRST])
    real = io.FileIO.write

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(self, bytes(data)[:64])

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode == "wb" and path.suffix == ".part":
            return io.BufferedWriter(Full(path, "w"), 16)
        return plain(path, mode, *args, **options)

    plain = Path.open
    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(DiskFull, match=r"checkpoint\.pt"):
        run.checkpoint({"learner": 2}, [FIRST, SECOND])
    monkeypatch.undo()
    found = run.last()
    assert found is not None and found[0]["learner"] == 1
    assert run.epochs == [FIRST]
    assert not list(run.folder.glob(".*"))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.checkpoint({"learner": torch.zeros(100)}, [FIRST])
    file = run.folder / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(Refused, match="cannot be read"):
        run.last()
    run.checkpoint({"learner": 0}, [FIRST])
    torch.save({"format": 99}, file)
    with pytest.raises(Refused, match="newer hilum"):
        run.last()


def test_a_checkpoint_of_another_network_compact_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.recipe.network.name == "compact"
    torch.save({"format": 1, "epochs": []}, run.folder / "checkpoint.pt")
    with pytest.raises(Refused, match=r"older hilum.*checkpoint\.pt"):
        run.last()


def test_a_folder_with_results_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderTaken), claim(tmp_path, "x"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.folder / "environment.json").write_text("{}")
    (run.folder / "films.csv").write_text("path\n")
    said = rf"which has not ended: .*hilum train --resume {run.folder}, or choose another"
    with pytest.raises(FolderTaken, match=said), claim(run.folder, "x"):
        pass
    said = rf"no room\. Go on with hilum train --resume {run.folder}"
    with pytest.raises(DiskFull, match=said), interruptible(run):
        raise DiskFull("no room.")
    said = rf"not enough memory \(std::bad_alloc\).*\. Go on with hilum train --resume {run.folder}"
    with pytest.raises(MemoryFull, match=said), interruptible(run):
        raise RuntimeError("std::bad_alloc")
    with pytest.raises(RuntimeError, match="planted"), interruptible(run):
        raise RuntimeError("planted")
    run.model_folder.mkdir()
    (run.model_folder / "bundle.json").write_text("{}")
    with pytest.raises(FolderTaken, match="holds another result: "), claim(run.folder, "x"):
        pass


def test_the_default_folder_is_named_and_dated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with claim(None, "fast") as run:
        assert run.folder.name.startswith("hilum-train-fast-20")


def test_a_folder_where_nothing_was_begun_goes_away(tmp_path: Path) -> None:
    with pytest.raises(Refused), claim(tmp_path / "run", "x"):
        raise Refused("leak")
    assert not (tmp_path / "run").exists()
    with pytest.raises(Refused), claim(tmp_path / "run", "x") as run:
        (run.folder / "recipe.toml").write_text("")
        raise Refused("later")
    assert (tmp_path / "run" / "recipe.toml").exists()


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:  # the other run, which holds the folder until it is killed
        with claim(tmp_path / "run", "x"):
            os.write(writer, b"held")
            signal.pause()
    try:
        assert os.read(reader, 4) == b"held"
        with pytest.raises(Locked, match=str(process)), claim(tmp_path / "run", "x"):
            pass
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    with claim(tmp_path / "run", "x"):
        pass  # the lock died with its process


def test_what_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"), reopen(tmp_path):
        pass


def test_reopening_clears_what_was_half_written(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.folder / ".checkpoint.pt.123.part").write_bytes(b"half")
    run.model_folder.mkdir()
    (run.model_folder / "model.onnx").write_bytes(b"half")
    with reopen(run.folder):
        assert not run.model_folder.exists()
        assert not list(run.folder.glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    run = begun(tmp_path / "run")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="before its first epoch") as error, interruptible(run):
        os.kill(os.getpid(), number)
        signal.pause()
    assert f"hilum train --resume {run.folder}" in str(error.value)
    assert error.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    run.checkpoint({}, [FIRST])
    with pytest.raises(Interrupted, match="after epoch 1"), interruptible(run):
        raise KeyboardInterrupt
