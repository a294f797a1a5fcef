"""What a comparison found: places with their runs, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hilum
from hilum.datasets.manifest import Manifest
from hilum.experiments.compare import agreement, speed
from hilum.experiments.compare.agreement import Equivalence
from hilum.experiments.compare.runs import At, By
from hilum.machine import Place
from hilum.training.recipe import Recipe

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison and its folder.

    Attributes
    ----------
    baseline : the place that convergence and break-even are told against
    baselines : all places that speed-ups are told against: that one, ``cpu:1``, all cores
    places : in the order asked for, by name
    without_pixels : how many of the films could not be read or were refused, and why; else empty
    """

    folder: Path
    manifest: Manifest
    recipe: Recipe
    seeds: tuple[int, ...]
    asked: str | None
    margins: dict[str, float]
    places: dict[str, At]
    without_pixels: str = ""

    @property
    def measured(self) -> dict[str, At]:
        return {name: at for name, at in self.places.items() if at.status == "done"}

    @property
    def failed(self) -> list[str]:
        """The runs that failed: ``cpu:2 seed 1``."""
        return [
            f"{name} seed {seed}"
            for name, at in self.places.items()
            for seed, outcome in at.outcomes.items()
            if outcome.status == "failed"
        ]

    @property
    def all_cores(self) -> str:
        """The place of all cores of the machine that was measured, which need not be this one."""
        return f"cpu:{next(iter(self.measured.values())).environment['cores']}"

    @cached_property
    def baseline(self) -> str:
        names = list(self.measured)
        wanted = [self.asked, "cpu:1", self.all_cores]
        return next((name for name in wanted if name in names), names[0])

    @property
    def replaced(self) -> str:
        """That the baseline is not the one that was asked for, as a sentence; empty where it is."""
        if self.asked in (None, self.baseline):
            return ""
        return (
            f"The baseline that was asked for, {self.asked}, was not measured: all is told against "
            f"{self.baseline}."
        )

    @property
    def baselines(self) -> list[str]:
        wanted = dict.fromkeys([self.baseline, "cpu:1", self.all_cores])
        return [name for name in wanted if name in self.measured]

    @property
    def fastest(self) -> str:
        """The measured place with the least seconds an epoch."""
        return self.fastest_of(self.measured)

    def fastest_of(self, names: Iterable[str]) -> str:
        """The one of these measured places with the least seconds an epoch."""
        return min(names, key=lambda name: self.places[name].times("epoch").mean())

    @property
    def parallel(self) -> list[str]:
        """Measured places that compute on more than one core."""
        return [name for name in self.measured if Place.parse(name).parallel]

    def doubts(self, name: str) -> list[str]:
        """What is wrong with models of this place or the baseline, ``at chance`` or ``one answer``:
        that two such models agree does not show that training does."""
        both = (self.places[name], self.places[self.baseline])
        found = {
            "at chance": any(at.at_chance for at in both),
            "one answer": any(at.one_answer for at in both),
        }
        return [word for word, is_so in found.items() if is_so]

    def shared_seeds(self, one: str, two: str) -> list[int]:
        return sorted(self.places[one].found.keys() & self.places[two].found.keys())

    def speed_up(self, name: str, over: str, by: By = "epoch") -> dict[str, Any] | None:
        """How many times as fast as another place; None where no seed was run in both."""
        seeds = self.shared_seeds(name, over)
        if not seeds:
            return None
        slow, fast = ([self.places[p].times(by, [s]) for s in seeds] for p in (over, name))
        return speed.speed_up(slow, fast)

    def ratios(self) -> list[dict[str, Any]]:
        """Every place over every baseline, by epoch and by step."""
        found = []
        kinds: tuple[By, ...] = ("epoch", "step")
        for over in self.baselines:
            for name in self.measured:
                for by in kinds:
                    ratio = self.speed_up(name, over, by)
                    if name != over and ratio is not None:
                        found.append({"place": name, "over": over, "by": by, **ratio})
        return found

    def break_even(self) -> list[dict[str, Any]]:
        """Set-up against the time saved, over the baseline, of the seeds that were run in both.

        ``between`` is what the speed-up lies between (``speed.bounds``): where that holds 1,
        or is not known, it is not ``known`` which place is faster by the epoch, and the ``epochs``
        that follow from the means are not sure.
        """
        base = self.places[self.baseline]
        found = []
        for name, at in self.measured.items():
            ratio = self.speed_up(name, self.baseline)
            if name == self.baseline or ratio is None:
                continue
            seeds = self.shared_seeds(name, self.baseline)
            seconds, usual = (float(a.times("epoch", seeds).mean()) for a in (at, base))
            setup, usual_setup = at.setup(seeds), base.setup(seeds)
            between = speed.bounds(ratio)
            found.append(
                {
                    "place": name,
                    "over": self.baseline,
                    "setup_seconds": round(setup, 3),
                    "setup_more": round(setup - usual_setup, 3),
                    "saved_an_epoch": round(usual - seconds, 3),
                    "between": between,
                    "known": speed.known(between),
                    "epochs": speed.break_even(setup, seconds, usual_setup, usual),
                }
            )
        return found

    @cached_property
    def equivalences(self) -> dict[str, dict[str, Equivalence]]:
        """Each place against the baseline, by measure."""
        base = self.places[self.baseline]
        return {
            name: agreement.compare_runs(base.epochs, at.epochs, self.margins)
            for name, at in self.measured.items()
            if name != self.baseline
        }

    @cached_property
    def flips(self) -> dict[str, list[int]]:
        """Validation films decided otherwise than at the baseline, one number a seed."""
        base = self.places[self.baseline]
        return {
            name: agreement.flips_between_places(base.logits, at.logits)
            for name, at in self.measured.items()
            if name != self.baseline
        }

    @cached_property
    def flips_by_seed(self) -> list[int]:
        """The same between two seeds of the baseline, one number a pair."""
        return agreement.flips_between_seeds(self.places[self.baseline].logits)

    @property
    def validation_films(self) -> int:
        return len(next(iter(self.places[self.baseline].logits.values())))

    def part_share(self, name: str, *parts: str) -> float | None:
        """Share of a step that goes into these parts; None where it was not measured."""
        found: dict[str, float] = self.places[name].breakdown.get("parts", {})
        if not found:
            return None
        return sum(found[p] for p in parts) / max(1e-9, sum(found.values()))

    def as_dict(self) -> dict[str, Any]:
        """What ``comparison.json`` holds."""
        return {
            "format": FORMAT,
            "hilum": hilum.__version__,
            "data": {
                "folder": self.manifest.name,
                "digest": self.manifest.digest,
                "counts": self.manifest.description()["counts"],
                "sampled": self.manifest.notes.get("sampled"),
                "without_pixels": self.without_pixels or None,
            },
            "recipe": {"digest": self.recipe.digest, **self.recipe.as_dict()},
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "baselines": self.baselines,
            "places": [at.as_dict() for at in self.places.values()],
            "ratios": self.ratios(),
            "break_even": self.break_even(),
            "agreement": [
                {"place": name, "with": self.baseline, "measure": measure, **found.as_dict()}
                for name, by_measure in self.equivalences.items()
                for measure, found in by_measure.items()
            ],
            "flips": {
                "validation_films": self.validation_films,
                "between_places": self.flips,
                "between_seeds": self.flips_by_seed,
            },
        }
