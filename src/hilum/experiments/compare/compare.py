"""Train alike in several places, one process each, and say how fast and how alike they are.

comparison = compare(manifest, ["cpu:1", "cpu:2", "cuda"], seeds=3)
comparison.speed_up("cpu:2", over="cpu:1")
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum import machine
from hilum.datasets.cache import Cache
from hilum.datasets.index import open_data
from hilum.datasets.manifest import Manifest
from hilum.errors import DiskFull, Interrupted, Refused, UsageError, nearest, require
from hilum.experiments.compare.agreement import MARGINS
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.jobs import Job, Outcome, before, hold, perform
from hilum.experiments.compare.places import among, several
from hilum.experiments.compare.runs import At, run_name
from hilum.experiments.compare.sample import of_films
from hilum.experiments.plan import read_plan
from hilum.machine import Place
from hilum.progress import SILENT, Progress
from hilum.storage import begun, dated_folder, lock, resume_command, write_file, write_json
from hilum.training.recipe import Recipe
from hilum.training.run import stoppable

FORMAT = 1
#: What every run of a comparison changes: operating points are chosen on plain validation alone,
#: so that the time after the last epoch stays short. The weights do not depend on it.
CHANGES = ("finish.shifts=[]",)


@dataclass(frozen=True)
class Plan:
    """What a comparison will do; ``plan.json`` in its folder."""

    places: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str | None
    margins: dict[str, float]
    breakdown: bool

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """That of a folder that was begun; raises ``UsageError`` or ``Refused``."""

        def make(content: dict[str, Any]) -> Plan | None:
            if "wishes" in content:  # which a reproduction's has
                return None
            return cls(
                tuple(content["places"]),
                tuple(content["seeds"]),
                content["baseline"],
                content["margins"],
                content["breakdown"],
            )

        way_on = (
            "Give the folder that hilum compare named; what hilum reproduce began goes on with "
            "hilum reproduce --resume."
        )
        return read_plan(folder, "comparison", FORMAT, make, way_on)

    def write(self, folder: Path) -> None:
        write_json(folder / "plan.json", {"format": FORMAT, **vars(self)})


def compare(
    data: Manifest | str | Path | Sequence[str | Path],
    on: Sequence[str],
    recipe: Recipe | str | Path = "paper2021",
    *,
    seeds: int = 1,
    baseline: str | None = None,
    overrides: Sequence[str] = (),
    films: int | None = None,
    margins: Mapping[str, float] | None = None,
    breakdown: bool = True,
    out: Path | str | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Comparison:
    """Run one recipe in several places and write the folder of a comparison.

    Every run has its own process; all see the same films in the same order with the same
    augmentation, from the same first weights. Seeds take turns over the places.

    Parameters
    ----------
    data : a manifest of films with parts, or whatever ``hilum.index`` takes
    on : places, two or more; one that is not here becomes a row with the reason
    seeds : 0 to ``seeds`` - 1 are run in each place
    baseline : what speed and convergence are told against: ``cpu:1`` where it is among the
        places, else all cores, else the first
    films : about so many of the films, by whole patients
    margins : in place of ``agreement.MARGINS``, by measure
    breakdown : measure where the time goes, in a pass of its own
    out : a new folder; a dated one here where None
    options : of ``hilum.index``

    Raises
    ------
    UsageError, RecipeError
    Refused
        No place could be measured; the folder tells why.
    Interrupted
        ``resume`` goes on from there.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe, (*CHANGES, *overrides))
    places = several(on, recipe)
    if baseline is not None:
        baseline = among(places, baseline, recipe)
    if seeds < 1:
        raise UsageError(f"at least one seed is needed: {seeds}.")
    for name, margin in (margins or {}).items():
        if name not in MARGINS:
            raise UsageError(f"no such measure: {name}. {nearest(name, MARGINS)}")
        if not 0 < margin < math.inf:
            raise UsageError(f"a margin is a positive number: {margin} for {name}.")
    check(recipe)
    folder = Path(out) if out is not None else dated_folder("compare")
    plan = Plan(places, tuple(range(seeds)), baseline, {**MARGINS, **(margins or {})}, breakdown)
    with begun(folder, way_on=lambda: way_on(folder)):
        folder = folder.resolve()
        manifest = of_films(open_data(data, progress=progress, **options), films)
        manifest.write(folder / "films.csv")
        write_file(folder / "recipe.toml", recipe.toml())
        plan.write(folder)
        with resumable(folder, "compare"):
            return _go(folder, plan, manifest, recipe, workers, progress)


def check(recipe: Recipe) -> None:
    """Tell what cannot be before a film is read: names that are not there, films too small."""
    require("train")
    if machine.launched():
        raise UsageError(
            "a comparison starts the processes of its places itself. Leave torchrun out."
        )
    from hilum.training.finish import check_names  # with it comes torch
    from hilum.training.learner import new_network

    check_names(recipe)
    new_network(recipe)


def way_on(folder: Path, command: str = "compare") -> str:
    """How to go on with what a command began in a folder; empty where it has ended."""
    ended = (folder / "report.html").exists() or not (folder / "plan.json").exists()
    return "" if ended else f"Go on with {resume_command(command, folder)}"


def resume(folder: Path | str, *, progress: Progress = SILENT) -> Comparison:
    """Go on with a comparison that was interrupted; finished runs are kept.

    Raises
    ------
    UsageError, Locked, Refused, Interrupted
    """
    folder = Path(folder).resolve()
    plan = Plan.read(folder)
    with lock(folder / "lock", what="--out"):
        manifest, recipe = Manifest.read(folder / "films.csv"), Recipe.load(folder / "recipe.toml")
        with resumable(folder, "compare"):
            return _go(folder, plan, manifest, recipe, None, progress)


@contextmanager
def resumable(folder: Path, command: str) -> Iterator[None]:
    """What Ctrl-C or SIGTERM ends here names the line that goes on; pages take seconds, too."""
    try:
        with stoppable():
            yield
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"interrupted: {folder}; what was measured is kept. Go on with "
            f"{resume_command(command, folder)}."
        ) from None


def _go(
    folder: Path,
    plan: Plan,
    manifest: Manifest,
    recipe: Recipe,
    workers: int | None,
    progress: Progress,
) -> Comparison:
    from hilum.experiments.compare.document import write
    from hilum.native import library
    from hilum.training.learner import libraries
    from hilum.training.parts import without_pixels

    runs = folder / "runs"
    places = {name: At(name, runs) for name in plan.places}
    hold(_job(folder, name, seed) for seed in plan.seeds for name in places)
    try:
        cache = Cache.fill(manifest, recipe.preprocessing, workers=workers, progress=progress)
    except DiskFull as error:
        raise DiskFull(f"{error} Then go on with {resume_command('compare', folder)}.") from error
    without = without_pixels(cache)
    if without:
        progress.say(f"without pixels: {without}.")
    if any(Place.parse(name).kind == "cpu" for name in places):
        library.build(libraries(recipe))  # once: no place's set-up
    for seed in plan.seeds:
        for at in places.values():
            if not _absent(at):
                at.outcomes[seed] = _train(folder, at, seed, plan, progress)
    for at in places.values():
        if plan.breakdown and at.found:
            at.parts = _breakdown(folder, at, progress)
    comparison = Comparison(
        folder, manifest, recipe, plan.seeds, plan.baseline, plan.margins, places, without
    )
    if not comparison.measured:
        raise Refused(_nothing(folder, plan, places))
    if comparison.replaced:
        progress.warn(comparison.replaced)
    try:
        write(comparison)
    except DiskFull as error:
        raise DiskFull(f"{error} Then go on with {resume_command('compare', folder)}.") from error
    return comparison


def _nothing(folder: Path, plan: Plan, places: Mapping[str, At]) -> str:
    """Why no place was measured, in one line: a reason each, and once how to go on where a run
    failed, which a reason may say as well."""
    way = f" {_job(folder, plan.places[0], plan.seeds[0]).resume_line}."
    reasons = {name: at.reason.replace(way, "").rstrip(".") for name, at in places.items()}
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    failed = any(at.status == "failed" for at in places.values())
    return f"no place could be measured: {folder} ({why}).{way if failed else ''}"


def _absent(at: At) -> bool:
    return any(outcome.status == "skipped" for outcome in at.outcomes.values())


def _train(folder: Path, at: At, seed: int, plan: Plan, progress: Progress) -> Outcome:
    number = plan.seeds.index(seed) * len(plan.places) + plan.places.index(at.name) + 1
    progress.say(f"\n{at.name}, seed {seed}: run {number} of {len(plan.seeds) * len(plan.places)}")
    job = replace(_job(folder, at.name, seed), place=_settled(folder, at, plan))
    outcome = perform(job, progress)
    if outcome.status != "done":
        progress.warn(f"{at.name}, seed {seed}: {outcome.status}: {outcome.reason}")
    return outcome


def _settled(folder: Path, at: At, plan: Plan) -> str:
    """The place as its first finished run settled it: seeds that each tried for themselves which
    precision is faster could differ in it, and would be averaged."""
    kept = (before(_job(folder, at.name, seed)) for seed in plan.seeds)
    for outcome in (*at.outcomes.values(), *kept):
        if outcome is not None and outcome.status == "done":
            return str(outcome.found["environment"]["place"])
    return at.name


def _job(folder: Path, place: str, seed: int) -> Job:
    return Job(
        kind="train",
        folder=folder / "runs" / run_name(place, seed),
        place=place,
        recipe=folder / "recipe.toml",
        manifest=folder / "films.csv",
        seed=seed,
    )


def _breakdown(folder: Path, at: At, progress: Progress) -> Outcome:
    """Measured on the place as it was settled: threads and precision as they ran."""
    progress.say(f"{at.name}: where the time goes")
    job = Job(
        kind="breakdown",
        folder=folder / "runs" / f"{run_name(at.name, 0).removesuffix('-seed0')}-breakdown",
        place=str(at.environment["place"]),
        recipe=folder / "recipe.toml",
        manifest=folder / "films.csv",
    )
    outcome = perform(job, progress)
    if outcome.status != "done":
        progress.warn(f"{at.name}: where its time goes was not measured: {outcome.reason}")
    return outcome
