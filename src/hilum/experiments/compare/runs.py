"""The runs of one place: what each found, by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.datasets.manifest import number_of
from hilum.evaluation.scores import Scores
from hilum.experiments.compare import agreement, speed
from hilum.experiments.compare.jobs import Outcome
from hilum.machine import Place

By = Literal["epoch", "step"]
_KEY: dict[By, str] = {"epoch": "seconds", "step": "ms_per_step"}


@dataclass(eq=False)
class At:
    """One place: its runs by seed, and where its time goes.

    Attributes
    ----------
    name : as asked for, threads filled in
    outcomes : by seed
    parts : the outcome of the breakdown, None where it was not asked for
    """

    name: str
    folder: Path
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    parts: Outcome | None = None

    @property
    def found(self) -> dict[int, dict[str, Any]]:
        """What each finished run found, by seed."""
        return {seed: o.found for seed, o in self.outcomes.items() if o.status == "done"}

    @property
    def breakdown(self) -> dict[str, Any]:
        """Where the time of a step goes; empty where that is not known."""
        return self.parts.found if self.parts is not None else {}

    @property
    def status(self) -> str:
        """``done``: at least one run is; else what became of the first."""
        if self.found:
            return "done"
        return next((o.status for o in self.outcomes.values()), "failed")

    @property
    def reason(self) -> str:
        """Why a run is missing, with the seed of one that failed; empty where none is."""
        for seed, outcome in self.outcomes.items():
            if outcome.status == "skipped":
                return outcome.reason
            if outcome.status == "failed":
                return f"seed {seed}: {outcome.reason}"
        return ""

    @property
    def crowded(self) -> str:
        """That the place wants more threads than there are cores; empty where it does not."""
        if not self.found:
            return ""
        seen = self.environment
        threads, cores = seen["processes"] * seen["threads"], seen["cores"]
        if Place.parse(self.name).kind != "cpu" or threads <= cores:
            return ""
        return f"{threads} threads for {number_of(cores, 'cores')}: they wait for each other"

    @property
    def remark(self) -> str:
        """Why a run is missing, and what its times suffer from; empty where nothing is amiss."""
        return "; ".join(filter(None, [self.reason, self.crowded]))

    @property
    def environment(self) -> dict[str, Any]:
        environment: dict[str, Any] = next(iter(self.found.values()))["environment"]
        return environment

    @property
    def epochs(self) -> dict[int, list[dict[str, Any]]]:
        """The epochs of each finished run, by seed."""
        return {seed: found["epochs"] for seed, found in self.found.items()}

    @property
    def resumed(self) -> list[int]:
        """Seeds whose training was interrupted and gone on with."""
        return [seed for seed, found in self.found.items() if found.get("resumed")]

    @property
    def at_chance(self) -> list[int]:
        """Seeds whose finished model does not rank films better than chance."""
        return [seed for seed, found in self.found.items() if found.get("chance")]

    @cached_property
    def one_answer(self) -> list[int]:
        """Seeds whose finished model answers every validation film alike."""
        return [seed for seed, logits in self.logits.items() if agreement.one_answer(logits)]

    def times(self, by: By, seeds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Seconds an epoch or ms a step of all epochs of these seeds, one after another."""
        chosen = self.epochs if seeds is None else {s: self.epochs[s] for s in seeds}
        return np.array([e[_KEY[by]] for epochs in chosen.values() for e in epochs], np.float64)

    def mean(self, key: str) -> list[float | None]:
        """A column of the table of epochs: each epoch's mean over the seeds."""
        found: list[float | None] = []
        for epoch in zip(*self.epochs.values(), strict=False):
            values = [row[key] for row in epoch]
            found.append(None if None in values else float(np.mean(values)))
        return found

    def setup(self, seeds: Sequence[int] | None = None) -> float:
        """Mean seconds from the start of the process to the first step, of these seeds."""
        chosen = self.found if seeds is None else seeds
        return float(np.mean([self.found[s]["setup_seconds"] for s in chosen]))

    def films_per_second(self) -> float:
        """Films learnt from in a second of training steps."""
        one = next(iter(self.found.values()))
        return float(one["films"] / (one["steps"] * self.times("step").mean() / 1e3))

    @cached_property
    def logits(self) -> dict[int, NDArray[np.float64]]:
        """The finished models' logits on the validation films, by seed."""
        found = {}
        for seed in self.found:
            scores = Scores.read(self.run_folder(seed) / "scores.csv")
            found[seed] = scores.logit[np.array(scores.part) == "validation"]
        return found

    def run_folder(self, seed: int) -> Path:
        """The run folder of one seed."""
        return self.folder / run_name(self.name, seed)

    def as_dict(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "place": self.name, "status": self.status, "reason": self.reason or None,
        }  # fmt: skip
        if self.status != "done":
            return content
        return content | {
            "environment": self.environment,
            "seconds_an_epoch": speed.summary(self.times("epoch")),
            "ms_a_step": speed.summary(self.times("step")),
            "films_a_second": round(self.films_per_second(), 3),
            "setup_seconds": speed.summary([f["setup_seconds"] for f in self.found.values()]),
            "breakdown": self.breakdown or None,
            "spread_over_seeds": agreement.spread(self.epochs),
            "one_answer": self.one_answer,
            "runs": [
                {"seed": seed, "status": o.status, "reason": o.reason or None, **o.found}
                for seed, o in self.outcomes.items()
            ],
        }


def in_words(runs: Mapping[str, Sequence[int]]) -> str:
    """Runs by place and seed: ``cpu:1 (seed 0, 2), cpu:2 (seed 1)``; empty where there are none."""
    return ", ".join(
        f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in runs.items() if seeds
    )


def run_name(place: str, seed: int) -> str:
    """The folder of a run: ``cpu-2x1-bfloat16-seed0``."""
    return f"{place.replace(':', '-').replace('@', '-')}-seed{seed}"
