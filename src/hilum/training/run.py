"""The run folder: what a training was, how far it is, and what came out."""

from __future__ import annotations

import csv
import io
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from hilum.bundle import SUFFIX, Bundle
from hilum.errors import DiskFull, Interrupted, MemoryFull, Refused, UsageError, memory_full
from hilum.storage import atomic_write, begun, dated_folder, lock, resume_command, write_json
from hilum.training.loop import Epoch
from hilum.training.recipe import Recipe

FORMAT = 1
CHECKPOINT = 2  # 1: before a block of ``compact`` halved its map by a mean


@dataclass(frozen=True)
class Run:
    """A run folder.

    ``recipe.toml`` (resolved), ``films.csv`` and ``films.json``, ``environment.json``,
    ``epochs.csv``, ``checkpoint.pt``, ``curves.png``, ``augmented.png``, ``scores.csv``,
    ``model.hilum/``, ``lock``.
    """

    folder: Path

    @property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.toml")

    @property
    def environment(self) -> dict[str, Any]:
        """What it ran on; empty before the training began."""
        path = self.folder / "environment.json"
        if not path.is_file():
            return {}
        with _undamaged(path):
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return content

    @property
    def epochs(self) -> list[Epoch]:
        """The finished epochs, from ``epochs.csv``."""
        path = self.folder / "epochs.csv"
        if not path.is_file():
            return []
        with _undamaged(path), path.open(encoding="utf-8", newline="") as stream:
            return [
                Epoch(**{k: None if v == "" else int(v) if k == "epoch" else float(v)
                         for k, v in row.items()})  # type: ignore[arg-type]
                for row in csv.DictReader(stream)
            ]  # fmt: skip

    @property
    def bundle(self) -> Bundle:
        """The sealed model; raises ``BundleRefused`` before there is one."""
        return Bundle.read(self.folder)

    @property
    def model_folder(self) -> Path:
        return self.folder / f"model{SUFFIX}"

    @property
    def finished(self) -> bool:
        return (self.model_folder / "bundle.json").is_file()

    @property
    def unfinished(self) -> bool:
        """Whether a run was begun here that can be resumed: ``train.begin`` has written it all."""
        needed = ("environment.json", "films.csv", "recipe.toml")
        return all((self.folder / name).is_file() for name in needed) and not self.finished

    @property
    def resume_line(self) -> str:
        return f"Go on with {resume_command('train', self.folder)}"

    def checkpoint(self, state: dict[str, Any], epochs: list[Epoch]) -> None:
        """Keep the state after an epoch; a crash or a full disk leaves the one before.

        Raises
        ------
        DiskFull
        """
        stream = io.BytesIO()
        rows = [epoch.as_dict() for epoch in epochs]
        torch.save({"format": CHECKPOINT, "epochs": rows, **state}, stream)
        with atomic_write(self.folder / "checkpoint.pt") as file:
            file.write(stream.getbuffer())
        self.write_epochs(epochs)

    def last(self) -> tuple[dict[str, Any], list[Epoch]] | None:
        """The last checkpoint's state and epochs, or None."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises what zipfile, pickle and its reader raise
            raise Refused(
                f"the checkpoint cannot be read: {path} ({type(error).__name__}). It was changed "
                "or damaged after it was written: take it from a copy, or train anew."
            ) from error
        if state["format"] > CHECKPOINT:
            raise Refused(f"the checkpoint was written by a newer hilum: {path}. Upgrade hilum.")
        if state["format"] < 2 and self.recipe.network.name == "compact":
            raise Refused(
                f"the checkpoint is of an older hilum, whose network compact was another: {path}. "
                "Train anew, or go on with the hilum that began the run."
            )
        return state, [Epoch(**row) for row in state["epochs"]]

    def write_epochs(self, epochs: list[Epoch]) -> None:
        with atomic_write(self.folder / "epochs.csv", "w") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(item.name for item in fields(Epoch))
            for epoch in epochs:
                table.writerow("" if v is None else v for v in epoch.as_dict().values())

    def write_environment(self, content: dict[str, Any]) -> None:
        write_json(self.folder / "environment.json", {"format": FORMAT, **content})

    def tidy(self) -> None:
        """Remove what a killed process left half written."""
        for part in self.folder.glob(".*.part"):
            part.unlink()
        if self.model_folder.is_dir() and not self.finished:
            for file in self.model_folder.iterdir():
                file.unlink()
            self.model_folder.rmdir()


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """A file of a run folder that cannot be understood is refused."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(
            f"a file of the run cannot be read: {path} ({type(error).__name__}). It was changed "
            "or damaged after it was written: take it from a copy, or train anew."
        ) from error


@contextmanager
def claim(folder: Path | None, name: str) -> Iterator[Run]:
    """A new run folder, locked while the context lives.

    Parameters
    ----------
    folder : where; None for a dated folder here
    name : of the recipe, for the dated folder

    Raises
    ------
    Locked, FolderTaken
    """
    run = Run(dated_folder(f"train-{name}") if folder is None else folder)
    with begun(run.folder, way_on=lambda: run.resume_line if run.unfinished else ""):
        yield run


@contextmanager
def reopen(folder: Path) -> Iterator[Run]:
    """A run folder that was begun, locked while the context lives.

    Raises
    ------
    UsageError
        It is not one.
    Locked
        The run is still going on.
    """
    needed = ("recipe.toml", "films.csv", "environment.json")
    if not all((folder / name).is_file() for name in needed):
        raise UsageError(
            f"not a run folder: {folder}. Give the folder that hilum train named; what hilum "
            "compare or hilum reproduce began goes on with that command's --resume."
        )
    with lock(folder / "lock", what="run"):
        run = Run(folder)
        run.tidy()
        yield run


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, by which schedulers of clusters end a job, is ``KeyboardInterrupt`` as Ctrl-C is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible(run: Run) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into ``Interrupted`` with the line that goes on, as a full disk and
    memory that ran out are told with it."""
    try:
        with stoppable():
            yield
    except DiskFull as error:
        raise DiskFull(f"{error} {run.resume_line}." if run.unfinished else str(error)) from error
    except Exception as error:
        full = error if isinstance(error, MemoryFull) else memory_full(error)
        if full is None or not run.unfinished:
            raise
        raise MemoryFull(f"{full} {run.resume_line}.") from error
    except KeyboardInterrupt:
        if not (run.folder / "recipe.toml").is_file():
            raise Interrupted("interrupted before the run began: nothing is lost.") from None
        done = len(run.epochs)
        when = f"after epoch {done}" if done else "before its first epoch ended"
        raise Interrupted(f"interrupted: {run.folder}, {when}. {run.resume_line}.") from None
