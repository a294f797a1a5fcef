"""The paper from start to end: train in several places, judge, and put ours beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hilum
from hilum.datasets.index import open_data
from hilum.datasets.manifest import Manifest
from hilum.errors import UsageError
from hilum.experiments.compare import compare as comparing
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.places import default_places, several
from hilum.experiments.compare.sample import of_films
from hilum.experiments.plan import read_plan
from hilum.experiments.reproduce import wishes as wishing
from hilum.experiments.reproduce.matrix import Judged, judge
from hilum.experiments.reproduce.wishes import Wishes
from hilum.progress import SILENT, Progress
from hilum.storage import begun, dated_folder, lock, write_json
from hilum.training.recipe import Recipe
from hilum.training.run import Run

FORMAT = 1
SEQUENTIAL = ("reference", "cpu:1")


@dataclass(frozen=True)
class Settings:
    """How much of the paper is done again; ``plan.json`` in the folder.

    Attributes
    ----------
    on : places; those of this machine, and ``cuda``, where empty
    seeds : of each place
    films : about so many, by whole patients; all where None
    epochs : the paper's ten where None
    changes : further changes of the recipe, ``key=value``
    sequential_films : films that the reference trains on, for one epoch; 0 leaves it out
    wishes : whether the two closing wishes are measured
    wish_films, wish_epochs, wish_size : for these: as ``films``; epochs with all patients; pixels
    wish_shares, wish_sizes, wish_widths : of the patients, in pixels, times the paper's filters
    """

    on: tuple[str, ...] = ()
    seeds: int = 1
    films: int | None = None
    epochs: int | None = None
    changes: tuple[str, ...] = ()
    sequential_films: int = 48
    wishes: bool = True
    wish_films: int | None = None
    wish_epochs: int = 5
    wish_size: int = 128
    wish_shares: tuple[float, ...] = wishing.SHARES
    wish_sizes: tuple[int, ...] = wishing.SIZES
    wish_widths: tuple[float, ...] = wishing.WIDTHS

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Those of a folder that was begun; raises ``UsageError`` or ``Refused``."""

        def make(content: dict[str, Any]) -> Settings | None:
            if "places" in content:  # which a comparison's has
                return None
            lists = {key: tuple(v) for key, v in content.items() if isinstance(v, list)}
            del content["format"]
            return cls(**{**content, **lists})

        way_on = (
            "Give the folder that hilum reproduce named; a comparison goes on with hilum compare "
            "--resume."
        )
        return read_plan(folder, "reproduction", FORMAT, make, way_on)

    def overrides(self) -> list[str]:
        """Changes of the recipe ``paper2021``."""
        epochs = [] if self.epochs is None else [f"training.epochs={self.epochs}"]
        return [*epochs, *self.changes]


@dataclass(frozen=True, eq=False)
class Reproduction:
    """The paper done again.

    Attributes
    ----------
    comparison : the main one, tables 1 to 5 and figures 5 to 8
    sequential : the reference beside one thread, on few films; None where it was left out
    judged : table 6, of the model that the fastest place trained
    wishes : None where they were left out
    """

    folder: Path
    manifest: Manifest
    settings: Settings
    comparison: Comparison
    sequential: Comparison | None
    judged: Judged
    wishes: Wishes | None

    @property
    def failed(self) -> list[str]:
        """The runs that failed, of all three."""
        sequential = [] if self.sequential is None else self.sequential.failed
        wishes = [] if self.wishes is None else self.wishes.failed
        return [*self.comparison.failed, *sequential, *wishes]

    def as_dict(self) -> dict[str, Any]:
        """What ``reproduction.json`` holds; the comparisons have files of their own."""
        return {
            "format": FORMAT,
            "hilum": hilum.__version__,
            "settings": asdict(self.settings),
            "comparison": "comparison/comparison.json",
            "sequential": None if self.sequential is None else "sequential/comparison.json",
            "table_6": self.judged.as_dict(),
            "wishes": None if self.wishes is None else self.wishes.as_dict(),
        }


def reproduce(
    data: Manifest | str | Path | Sequence[str | Path],
    settings: Settings | None = None,
    *,
    out: Path | str | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Reproduction:
    """Do the paper again on films with parts, into a new folder.

    Parameters
    ----------
    data : a manifest, or whatever ``hilum.index`` takes
    options : of ``hilum.index``

    Raises
    ------
    UsageError, RecipeError, Refused
    Interrupted
        ``resume`` goes on from there.
    """
    settings = settings or Settings()
    folder = Path(out) if out is not None else dated_folder("reproduce")
    recipe = Recipe.load("paper2021", settings.overrides())
    several(settings.on or default_places(recipe), recipe)
    comparing.check(recipe)
    _check(recipe)
    with begun(folder, way_on=lambda: comparing.way_on(folder, "reproduce")):
        folder = folder.resolve()
        manifest = open_data(data, progress=progress, **options)
        manifest.write(folder / "films.csv")
        write_json(folder / "plan.json", {"format": FORMAT, **asdict(settings)})
        with comparing.resumable(folder, "reproduce"):
            return _go(folder, manifest, settings, progress)


def _check(recipe: Recipe) -> None:
    """Tell before a film is read what the figures and the wishes could not be made of."""
    if recipe.network.name != "paper2021":
        raise UsageError(
            f"a reproduction is of the paper's network: network.name={recipe.network.name}. "
            "Leave that out, or compare places with hilum compare."
        )
    filters = recipe.network.options.get("filters", [1])
    if min(filters, default=0) < 1:
        raise UsageError(
            f"figure 3 shows a kernel, and there would be none: network.options.filters={filters}. "
            "Name one number or more, each 1 or more."
        )


def resume(folder: Path | str, *, progress: Progress = SILENT) -> Reproduction:
    """Go on with a reproduction that was interrupted; what was measured is kept."""
    folder = Path(folder).resolve()
    settings = Settings.read(folder)
    _check(Recipe.load("paper2021", settings.overrides()))
    with lock(folder / "lock", what="--out"):
        manifest = Manifest.read(folder / "films.csv")
        with comparing.resumable(folder, "reproduce"):
            return _go(folder, manifest, settings, progress)


def _go(folder: Path, data: Manifest, settings: Settings, progress: Progress) -> Reproduction:
    from hilum.experiments.reproduce.document import write

    progress.say("1. The same training in several places (tables 1 to 5)")
    manifest = of_films(data, settings.films)
    comparison = _compared(
        folder / "comparison",
        manifest,
        settings.on or default_places(Recipe.load("paper2021", settings.overrides())),
        settings.seeds,
        settings.overrides(),
        progress,
    )
    sequential = None
    if settings.sequential_films:
        progress.say("\n2. The sequential run: the formulas, one film after another")
        sequential = _compared(
            folder / "sequential",
            of_films(data, settings.sequential_films),
            SEQUENTIAL,
            1,
            [*settings.changes, "training.epochs=1"],
            progress,
        )
    place = comparison.fastest
    seed = min(comparison.places[place].found)
    judged = judge(manifest, Run(comparison.places[place].run_folder(seed)), place)
    granted = None
    if settings.wishes:
        progress.say("\n3. The closing wishes: more data, a more complex model")
        granted = wishing.grant(
            folder / "wishes",
            of_films(data, settings.wish_films or settings.films),
            str(comparison.places[place].environment["place"]),
            progress,
            changes=settings.changes,
            epochs=settings.wish_epochs,
            size=settings.wish_size,
            shares=settings.wish_shares,
            sizes=settings.wish_sizes,
            widths=settings.wish_widths,
        )
    done = Reproduction(folder, manifest, settings, comparison, sequential, judged, granted)
    write(done, progress)
    return done


def _compared(
    folder: Path,
    manifest: Manifest,
    places: Sequence[str],
    seeds: int,
    overrides: Sequence[str],
    progress: Progress,
) -> Comparison:
    """A comparison in a folder of its own: begun, or gone on with."""
    if (folder / "plan.json").is_file():
        return comparing.resume(folder, progress=progress)
    return comparing.compare(
        manifest,
        places,
        "paper2021",
        seeds=seeds,
        overrides=overrides,
        out=folder,
        progress=progress,
    )
