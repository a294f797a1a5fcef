"""The paper's two closing wishes, measured: more data, and a more complex model.

"By increasing the dataset or creating a more complex model, this can be done" (section 5). Small
trainings, one process each, on the fastest place; each row says what it cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.decision import Calibration, Estimate
from hilum.evaluation.measure import measure
from hilum.evaluation.scores import Scores
from hilum.experiments.compare.agreement import one_answer
from hilum.experiments.compare.compare import CHANGES
from hilum.experiments.compare.jobs import Job, perform
from hilum.experiments.compare.sample import sample
from hilum.experiments.reproduce.matrix import part_of
from hilum.networks.arithmetic import layer_table, paper_network
from hilum.progress import Progress
from hilum.storage import write_file
from hilum.training.loop import HALF
from hilum.training.parts import rows_of
from hilum.training.recipe import Recipe

SHARES = (0.125, 0.25, 0.5, 1.0)
SIZES = (94, 128, 180, 250)
WIDTHS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Setting:
    """One training: a share of the patients, a size of the films, a width of the network."""

    share: float = 1.0
    size: int = 128
    width: float = 1.0

    @property
    def filters(self) -> list[int]:
        return [round(self.width * n) for n in (32, 32, 32, 64, 64)]

    @property
    def units(self) -> list[int]:
        return [round(self.width * n) for n in (128, 64)]

    @property
    def parameters(self) -> int:
        table = layer_table(paper_network(self.filters, self.units), self.size)
        return sum(layer.parameters for layer in table)

    @property
    def name(self) -> str:
        return f"share{self.share:g}-size{self.size}-width{self.width:g}"


@dataclass(frozen=True)
class Point:
    """What came out of one training.

    Attributes
    ----------
    patients, films : that were learnt from
    seconds : of all epochs
    accuracy, auroc : on the judged part, at one half; None where the training failed
    reason : why it failed
    one_answer : whether it answers every judged film alike, so that its accuracy says nothing
    """

    setting: Setting
    patients: int
    films: int
    epochs: int
    seconds: float | None = None
    accuracy: Estimate | None = None
    auroc: Estimate | None = None
    reason: str = ""
    one_answer: bool = False

    @property
    def remark(self) -> str:
        """What a reader of the row must know; empty where nothing is amiss."""
        return self.reason or ("answers every film alike" if self.one_answer else "")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "parameters": self.setting.parameters}


@dataclass(frozen=True)
class Wishes:
    """All points, and the three rows that they stand in."""

    size: int
    part: str
    place: str
    points: dict[Setting, Point] = field(default_factory=dict)
    rows: Mapping[str, list[Setting]] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """The names of the trainings that failed."""
        return [setting.name for setting, point in self.points.items() if point.reason]

    def of(self, row: str) -> list[Point]:
        """The points of ``patients``, ``size`` or ``network``, in order."""
        return [self.points[setting] for setting in self.rows[row]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "place": self.place,
            **{row: [self.points[s].as_dict() for s in found] for row, found in self.rows.items()},
        }


def settings(
    size: int, shares: tuple[float, ...], sizes: tuple[int, ...], widths: tuple[float, ...]
) -> dict[str, list[Setting]]:
    """The three rows: each changes one thing and leaves the others at the middle."""
    middle = Setting(size=size)
    return {
        "patients": [replace(middle, share=share) for share in shares],
        "size": [replace(middle, size=s) for s in sizes],
        "network": [replace(middle, width=width) for width in widths],
    }


def grant(
    folder: Path,
    manifest: Manifest,
    place: str,
    progress: Progress,
    *,
    changes: Sequence[str] = (),
    epochs: int,
    size: int,
    shares: tuple[float, ...],
    sizes: tuple[int, ...],
    widths: tuple[float, ...],
) -> Wishes:
    """Train and measure all points; those that an earlier call finished are taken as they are.

    Parameters
    ----------
    folder : for the runs
    changes : further ones of the recipe
    epochs : with all patients; with fewer there are more, so that every training of the row
        takes as many steps
    size : of the films where they are not what is varied
    """
    rows = settings(size, shares, sizes, widths)
    part, words = part_of(manifest)
    found: dict[Setting, Point] = {}
    folder.mkdir(exist_ok=True)
    wanted = list(dict.fromkeys(setting for row in rows.values() for setting in row))
    for number, setting in enumerate(wanted, 1):
        progress.say(
            f"\n{setting.share:.0%} of the patients, {setting.size} pixels, {setting.parameters:,} "
            f"parameters: {number} of {len(wanted)}"
        )
        found[setting] = _point(folder, manifest, setting, place, part, epochs, changes, progress)
    return Wishes(size, words, place, found, rows)


def _point(
    folder: Path,
    manifest: Manifest,
    setting: Setting,
    place: str,
    part: str,
    epochs: int,
    changes: Sequence[str],
    progress: Progress,
) -> Point:
    films = sample(manifest, setting.share, parts=("train",))
    whole, share = (len(some.of_part("train")) for some in (manifest, films))
    epochs = max(1, round(epochs * whole / share))
    recipe = Recipe.load(
        "paper2021",
        (
            *CHANGES,
            "schedule.name=constant",  # the paper's waits for epochs, which the shares have more of
            *changes,
            f"preprocessing.size={setting.size}",
            f"training.epochs={epochs}",
            f"network.options.filters={setting.filters}",
            f"network.options.units={setting.units}",
        ),
    )
    cache = Cache.fill(films, recipe.preprocessing, progress=progress)
    learnt = rows_of(films, cache, "train").tolist()
    point = Point(setting, len({films.patient[row] for row in learnt}), len(learnt), epochs)
    films.write(folder / f"{setting.name}.csv")
    write_file(folder / f"{setting.name}.toml", recipe.toml())
    run = folder / f"{setting.name}.run"
    job = Job(
        kind="train",
        folder=run,
        place=place,
        recipe=folder / f"{setting.name}.toml",
        manifest=folder / f"{setting.name}.csv",
    )
    outcome = perform(job, progress)
    if outcome.status != "done":
        progress.warn(f"{setting.name}: {outcome.reason}")
        return replace(point, reason=outcome.reason)
    scores = Scores.read(run / "scores.csv")
    scores = scores.select(np.array(scores.part) == part)
    scores = replace(scores, probability=Calibration().probability(scores.logit))
    measured = measure(scores, {HALF.name: HALF}, calibration=False, draws=1000)
    return replace(
        point,
        seconds=round(sum(epoch["seconds"] for epoch in outcome.found["epochs"]), 2),
        accuracy=measured.points[HALF.name].strict["accuracy"],
        auroc=measured.ranking["auroc"],
        one_answer=one_answer(scores.logit),
    )
