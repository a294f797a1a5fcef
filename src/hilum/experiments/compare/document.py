"""``comparison.json``, ``tables/``, ``figures/`` and ``report.html`` of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import hilum
from hilum import report
from hilum.datasets.manifest import number_of
from hilum.experiments.compare import figures
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.runs import in_words
from hilum.experiments.compare.sections import between, sections
from hilum.experiments.compare.speed import times
from hilum.experiments.compare.tables import seconds, tables
from hilum.storage import write_file, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(comparison: Comparison) -> None:
    """Write everything that a comparison says into its folder."""
    folder = comparison.folder
    made = tables(comparison)
    (folder / "tables").mkdir(exist_ok=True)
    for table in made.values():
        table.write(folder / "tables")
    drawn = draw(comparison, folder / "figures")
    write_json(folder / "comparison.json", comparison.as_dict())
    text = report.page(
        _title(comparison),
        lead(comparison),
        sections(comparison, made, drawn),
        foot=f"Made by hilum {hilum.__version__}. This file is complete in itself. All figures as "
        "numbers: <code>comparison.json</code>; every epoch: <code>tables/epochs.csv</code>.",
    )
    write_file(folder / "report.html", text)


def draw(comparison: Comparison, folder: Path) -> dict[str, str]:
    """All figures into the folder; their SVG texts by name."""
    folder.mkdir(exist_ok=True)
    made: dict[str, Callable[[], Figure]] = {
        "figure-5": partial(figures.curves, comparison, "loss", "cross-entropy"),
        "figure-6": partial(figures.curves, comparison, "accuracy", "accuracy"),
        "figure-7": partial(figures.times, comparison, "ms_per_step", "ms a step"),
        "figure-8": partial(figures.times, comparison, "seconds", "s an epoch"),
    }
    if len(comparison.measured) > 1:
        made["speed-up"] = partial(figures.speed_ups, comparison)
        if any(comparison.equivalences.values()):
            made["agreement"] = partial(figures.agreement, comparison)
    if any(at.breakdown for at in comparison.measured.values()):
        made["parts"] = partial(figures.parts, comparison)
    with report.plot_style():
        return {name: report.save(make(), folder, name) for name, make in made.items()}


def _title(comparison: Comparison) -> str:
    return f"{comparison.recipe.name} in {len(comparison.measured)} places"


def lead(comparison: Comparison) -> str:
    """The head of the page: what was compared, and the few figures."""
    facts = []
    places = comparison.measured
    name = min(comparison.parallel or places, key=lambda n: places[n].times("epoch").mean())
    for over in comparison.baselines:
        ratio = comparison.speed_up(name, over) if name != over else None
        if ratio is not None:
            facts.append((f"{times(ratio['ratio'])} ×<i>{between(ratio)}</i>",
                          f"{escape(name)} over {escape(over)}, by epoch"))  # fmt: skip
    for name, at in list(comparison.measured.items())[: max(1, 4 - len(facts))]:
        facts.append((f"{seconds(at.times('epoch').mean())} s", f"an epoch on {escape(name)}"))
    recipe, counts = comparison.recipe, {c[0]: c for c in comparison.manifest.counts()}
    sampled = comparison.manifest.notes.get("sampled")
    return (
        f'<p class="lead">The same training, one process for each place: recipe '
        f"{escape(recipe.name)}, {recipe.preprocessing.size} × {recipe.preprocessing.size} pixels, "
        f"batches of {recipe.training.batch}, {number_of(recipe.training.epochs, 'epochs')}, "
        f"{counts['train'][3]:,} films to train and {counts['validation'][3]:,} to validate, "
        f"{_seeds(comparison)}.</p>{report.facts(facts)}"
        + (
            f"<p>These are {sampled['films']:,} of {sampled['of']:,} films, whole patients drawn "
            "by chance.</p>"
            if sampled
            else ""
        )
        + report.warnings(warnings(comparison))
    )


def warnings(comparison: Comparison) -> list[str]:
    """What a reader must know first: what was not measured, and which models may have learnt
    nothing."""
    found = [comparison.replaced] if comparison.replaced else []
    if comparison.without_pixels:
        found.append(f"counted, but without pixels, and left out: {comparison.without_pixels}.")
    for name, at in comparison.places.items():
        if at.status != "done":
            found.append(f"{name} was not measured: {at.reason}")
        elif at.reason:
            found.append(f"{name} was measured in part: {at.reason}")
        if at.crowded:
            found.append(f"{name} has {at.crowded}, and every step takes longer.")
    chance = in_words({name: at.at_chance for name, at in comparison.measured.items()})
    if chance:
        found.append(
            f"not shown to be better than chance: {chance}. That such models agree says nothing "
            "of convergence."
        )
    alike = in_words({name: at.one_answer for name, at in comparison.measured.items()})
    if alike:
        found.append(
            f"every validation film gets the same answer at one half: {alike}. The accuracy of "
            "such models is the share of one class: that it agrees says nothing, nor do their "
            "flipped decisions."
        )
    return found


def _seeds(comparison: Comparison) -> str:
    count = len(comparison.seeds)
    return "one seed" if count == 1 else f"{count} seeds in each place"
