"""What the sides of *time to quality* share: the test sets, the clock, the file of results.

A result file has a line of JSON for each epoch and one more when the side has finished:

    {"epoch": 1, "seconds": 61.2, "scores": {"plain": [...], "mixed": [...]}}
    {"finished": true, "seconds": 600.1, "threshold": 0.5, "scores": {"plain": [...], ...}, ...}

``seconds`` run from the moment the side's process was started, without the time that scoring the
test films took; scores are probabilities in the order of the test films. NumPy and the standard
library alone: it is also read in the peers' own environments.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

NOT_FILMS = ("label", "patient")
EACH_EPOCH = ("plain", "mixed")  # all the others only at the end: they are many
Scorer = Callable[[np.ndarray], np.ndarray]  # (n, 224, 224) uint8 to (n,) probabilities


class Clock:
    """Seconds since ``began`` (``time.time()`` when the process was started), less its pauses."""

    def __init__(self, began: float) -> None:
        self.began, self.paused = began, 0.0

    def seconds(self) -> float:
        return time.time() - self.began - self.paused


class Results:
    """The file of one side.

    Parameters
    ----------
    path : the file, begun anew
    tests : the .npz with the test sets
    """

    def __init__(self, path: str, tests: str, clock: Clock) -> None:
        self.path, self.clock = Path(path), clock
        self.tests = np.load(tests)
        self.path.write_text("", "utf-8")

    def epoch(self, number: int, scorer: Scorer, **more: Any) -> None:
        """After an epoch, from 1."""
        self._write({"epoch": number, **more}, scorer, EACH_EPOCH)

    def finish(self, scorer: Scorer, threshold: float, **more: Any) -> None:
        """After the last epoch, the model being ready."""
        sets = [name for name in self.tests.files if name not in NOT_FILMS]
        self._write({"finished": True, "threshold": threshold, **more}, scorer, sets)

    def _write(self, line: dict[str, Any], scorer: Scorer, sets: Iterable[str]) -> None:
        began = time.time()
        line["seconds"] = round(self.clock.seconds(), 2)
        line["scores"] = {
            name: [round(float(p), 6) for p in scorer(self.tests[name])] for name in sets
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self.clock.paused += time.time() - began
