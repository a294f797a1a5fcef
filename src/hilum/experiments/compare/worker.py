"""The process of one job: ``python -m hilum.experiments.compare.worker``, a job on stdin.

Threads are set before numpy and torch load; what happens is told as JSON lines on stdout.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from hilum import machine
from hilum.errors import HilumError, PlaceUnavailable, PlaceUnfit, Refused
from hilum.experiments.compare.jobs import Job, Outcome
from hilum.machine import Place
from hilum.progress import Telling, tell
from hilum.storage import write_json


def main() -> int:
    """Do the job that comes on stdin; 0 where its outcome could be told."""
    content = json.loads(sys.stdin.readline())
    began = content.pop("began")
    job = Job.from_dict(content)
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    place = Place.parse(job.place)
    if place.kind in ("reference", "cpu"):
        machine.set_threads(place.resolved().threads)

    from hilum.training.run import Run

    try:
        found = _train(job, began) if job.kind == "train" else _breakdown(job)
        outcome = Outcome("done", found=found)
    except (PlaceUnavailable, PlaceUnfit) as error:  # to try again would not help
        outcome = Outcome("skipped", str(error))
    except HilumError as error:  # its run is not gone on with alone: the comparison would miss it
        alone = Run(job.folder).resume_line
        outcome = Outcome("failed", str(error).replace(alone, job.resume_line))
    except Exception as error:  # one place's defect is a line in the table, not the end of all
        traceback.print_exc()
        outcome = Outcome("failed", f"{type(error).__name__}: {error}")
    tell(outcome=asdict(outcome))
    return 0


def _train(job: Job, began: float) -> dict[str, Any]:
    """Train, or go on where an interrupted process was.

    Returns
    -------
    dict with ``environment``, ``epochs``, ``films`` and ``steps`` of an epoch, ``setup_seconds``
    (from the start of the process to the first step; of the first process that came so far),
    ``chance`` (that nothing was learnt, as a sentence, or None), ``finish_seconds`` (from the last
    epoch to the sealed model), ``peak_memory_mib`` (both None where an earlier process trained it
    to its end) and ``resumed``

    Raises
    ------
    Refused
        The run has epochs that no comparison began, so that their set-up is not known.
    """
    from hilum.datasets.manifest import Manifest
    from hilum.training import train as training
    from hilum.training.loop import steps_in_epoch
    from hilum.training.recipe import Recipe

    watch = Watch(job, began)
    resumed = (job.folder / "recipe.toml").is_file()
    recipe = Recipe.load(job.recipe, job.overrides)
    manifest = Manifest.read(job.manifest)
    if resumed:
        run = training.resume(job.folder, progress=watch)
    else:
        run = training.train(
            manifest, recipe, on=job.place, seed=job.seed, out=job.folder, progress=watch
        )
    if not job.setup.is_file():
        raise Refused(
            f"a run that was trained by hand, so that its set-up is not known: {job.folder}. "
            "Remove that folder and go on with --resume."
        )
    films = run.bundle.trained_on["train"]["films"]
    steps = steps_in_epoch(films, recipe)
    return {
        "environment": run.environment,
        "epochs": [epoch.as_dict() for epoch in run.epochs],
        "films": min(films, steps * recipe.training.batch),  # a smaller last batch may be dropped
        "steps": steps,
        "chance": run.bundle.chance,
        "setup_seconds": json.loads(job.setup.read_text("utf-8")),
        "finish_seconds": watch.last and round(time.time() - watch.last, 3),
        "peak_memory_mib": _peak_memory(run.environment.get("place", job.place), watch.resident),
        "resumed": resumed,
    }


class Watch(Telling):
    """Progress to the comparison that also keeps the seconds to the first step, at once, and notes
    when the last epoch ended."""

    def __init__(self, job: Job, began: float) -> None:
        self.job, self.began = job, began
        self.last: float | None = None
        self.resident = 0

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, *, brief: bool = False
    ) -> Iterator[Callable[[int], None]]:
        if name.startswith("epoch ") and not self.job.setup.is_file():
            write_json(self.job.setup, round(time.time() - self.began, 3))
            _forget_the_peak()  # the search for a precision may have held more
        with super().stage(name, total, brief=brief) as advance:
            yield advance

    def row(self, table: str, values: dict[str, object]) -> None:
        self.last, self.resident = time.time(), _resident(resource.RUSAGE_SELF)
        super().row(table, values)


def _breakdown(job: Job) -> dict[str, Any]:
    from hilum.experiments.compare.breakdown import breakdown

    return breakdown(job)


def _peak_memory(place: str, resident: int) -> float | None:
    """MiB of the largest process while it trained: this one or one of its workers; on a GPU what
    torch held of its memory, None where workers had a GPU each, which nobody asks.

    Parameters
    ----------
    resident : of this process after its last epoch, in bytes; what comes later scores films. 0
        where it saw none, and so nothing is known
    """
    if not resident:
        return None
    at = Place.parse(place)
    if at.kind == "cuda":
        import torch

        held = torch.cuda.max_memory_allocated() / 2**20
        return round(held, 1) if at.processes == 1 else None
    return round(max(resident, _resident(resource.RUSAGE_CHILDREN)) / 2**20, 1)


def _forget_the_peak() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _resident(whose: int) -> int:
    """The largest resident set in bytes; of children, those that have ended."""
    largest = resource.getrusage(whose).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _die_with_the_parent() -> None:
    # Through the descriptor: a second reader of sys.stdin could not be left behind at the end.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: a daemon thread is still reading
