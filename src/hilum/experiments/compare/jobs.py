"""Trainings one after another, each in a process of its own.

A process has its own threads, allocator and torch, so no place inherits a setting of another's;
one that fails is a line with its reason and costs the others nothing. What a process finds is kept
beside its run folder at once, and is not computed again when the work is taken up later.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from hilum import machine
from hilum.experiments.compare import conditions
from hilum.progress import Progress, Retelling, heard
from hilum.storage import resume_command, write_json

Kind = Literal["train", "breakdown"]
WORKER = "hilum.experiments.compare.worker"
PARTS = ("comparison", "sequential")  # of a reproduction, each a comparison in a folder of its own
PATIENCE = 20.0  # seconds that an interrupted process has to end by itself


@dataclass(frozen=True)
class Job:
    """One training, or one measuring of where its time goes.

    Attributes
    ----------
    folder : the run folder; what comes out is kept beside it as ``NAME.json``
    place : as ``--on`` takes it
    recipe : a TOML file; overrides and seed come on top
    manifest : a ``films.csv``
    """

    kind: Kind
    folder: Path
    place: str
    recipe: Path
    manifest: Path
    seed: int = 0
    overrides: tuple[str, ...] = ()

    @property
    def kept(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def setup(self) -> Path:
        """Seconds to the first step, kept when it begins: the run may end in a later process."""
        return self.folder.with_name(f"{self.folder.name}-setup.json")

    def as_dict(self) -> dict[str, Any]:
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @property
    def whole(self) -> Path:
        """The folder of the command that this job is a part of."""
        nearest, *above = self.folder.parents[:3]
        if (above[0] / "plan.json").is_file():
            nearest = above[0]
            if nearest.name in PARTS and (above[1] / "plan.json").is_file():
                nearest = above[1]
        return nearest

    @property
    def resume_line(self) -> str:
        """How to go on with that command."""
        command = "reproduce" if (self.whole / "comparison").is_dir() else "compare"
        return f"Go on with {resume_command(command, self.whole)}"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Job:
        paths = {k: Path(content[k]) for k in ("folder", "recipe", "manifest")}
        return cls(**{**content, **paths, "overrides": tuple(content["overrides"])})


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    status : ``done``; ``skipped``: there is no such place here, or it cannot train this recipe;
        ``failed``
    reason : why it is not done, in one line
    found : what the process measured (see ``worker``)
    """

    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    found: dict[str, Any] = field(default_factory=dict)


def perform(job: Job, progress: Progress) -> Outcome:
    """Do a job in a process of its own, or take what an earlier one found; failures are retried.

    Raises
    ------
    Refused
        The whole was begun under other conditions: times of two are not compared.
    KeyboardInterrupt
        After the process has been ended; a training has kept its last epoch.
    """
    earlier = before(job)
    if earlier is not None and earlier.status == "done":
        progress.say("  measured before; kept")
        return earlier
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    conditions.hold(job.whole)
    log = job.folder.with_name(f"{job.folder.name}.log")
    with log.open("a", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the other
            env=machine.own_environment(),
        )
        with _ended(process):
            assert process.stdin is not None and process.stdout is not None
            with suppress(BrokenPipeError):  # it has ended already; its last words say why
                process.stdin.write(json.dumps({**job.as_dict(), "began": time.time()}) + "\n")
                process.stdin.flush()
            outcome = _follow(process.stdout, progress)
            code = process.wait()
    if outcome is None:
        outcome = Outcome("failed", _last_words(log, code))
    if outcome.status == "done":
        log.unlink()
    write_json(job.kept, asdict(outcome))
    return outcome


def hold(jobs: Iterable[Job]) -> None:
    """See that what is left of these jobs may be done here, before any is taken up; raises
    ``Refused``."""
    for job in jobs:
        earlier = before(job)
        if earlier is None or earlier.status != "done":
            conditions.hold(job.whole)
            return


def before(job: Job) -> Outcome | None:
    """What became of a job before; None where that is not known, or was damaged."""
    try:
        return Outcome(**json.loads(job.kept.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _follow(lines: IO[str], progress: Progress) -> Outcome | None:
    """Pass on what the process reports; its outcome, or None if it ends without a word."""
    outcome: Outcome | None = None
    with Retelling(progress) as told:
        for line in lines:
            event = heard(line)
            if event is None:
                continue  # a library's own word
            if "outcome" in event:
                outcome = Outcome(**event["outcome"])
            else:
                told.take(event)
    return outcome


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """See the process end, whatever happens here."""
    try:
        yield
    except BaseException:
        process.send_signal(signal.SIGTERM)  # a training keeps its last epoch
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # of what it did not come to read
                    stream.close()


def _last_words(log: Path, code: int) -> str:
    """Why a process ended without an outcome, from its last line and how it ended."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "it left no word")
    return f"the process ended by {how}: {last[:300]}"
