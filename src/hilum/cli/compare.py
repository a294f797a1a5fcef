"""``hilum compare``"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click

from hilum.cli import options
from hilum.cli.display import print_json, table
from hilum.errors import TrainingStopped
from hilum.storage import resume_command

if TYPE_CHECKING:
    from hilum.experiments.compare.comparison import Comparison


@click.command()
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("--on", multiple=True, metavar="PLACE", help="Where, twice or more: cpu:1, cuda, ...")
@click.option("--recipe", default="paper2021", show_default=True, metavar="NAME|FILE", help="How.")
@click.option(
    "--seeds", type=click.IntRange(1), default=1, show_default=True, help="In each place."
)
@click.option("--baseline", metavar="PLACE", help="What is told against (default: cpu:1, or all).")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option("--films", type=click.IntRange(20), help="About so many films, by whole patients.")
@click.option(
    "--margin",
    "margins",
    multiple=True,
    metavar="MEASURE=X",
    help="The largest difference that counts as none, e.g. val_accuracy=0.01.",
)
@click.option("--no-breakdown", is_flag=True, help="Do not measure where the time goes.")
@click.option("--resume", type=click.Path(), metavar="FOLDER", help="Go on with a comparison.")
@options.out
@options.data_options(draw=True)
@options.common
def compare(
    data: tuple[str, ...],
    on: tuple[str, ...],
    recipe: str,
    seeds: int,
    baseline: str | None,
    changes: tuple[str, ...],
    films: int | None,
    margins: tuple[str, ...],
    no_breakdown: bool,
    resume: str | None,
    out: str | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """The same training in several places: how fast, and do they converge alike?

    Every run is a process of its own. A place that is not here is a row with its reason.

    \b
    Examples:
      hilum compare chest_xray/ --on cpu:1 --on cpu --on cuda
      hilum compare films.csv --on cpu:2 --on cpu:2@bfloat16 --seeds 3 --set training.epochs=3
      hilum compare --resume hilum-compare-20260101-120000
    """
    from hilum.experiments.compare import compare as comparing

    progress = options.terminal(quiet)
    if resume is not None:
        options.nothing_beside_resume("the folder of a comparison")
        done = comparing.resume(resume, progress=progress)
    else:
        if not data:
            raise click.UsageError("which films? Name a folder, a table or a manifest.")
        done = comparing.compare(
            data,
            on,
            recipe,
            seeds=seeds,
            baseline=baseline,
            overrides=changes,
            films=films,
            margins=dict(map(_margin, margins)),
            breakdown=not no_breakdown,
            out=out,
            progress=progress,
            **chosen,
        )
    if as_json:
        print_json(done.as_dict())
    else:
        click.echo(summary(done))
        click.echo(f"\nreport: {done.folder / 'report.html'}")
    end_if_failed(done.failed, resume_command("compare", done.folder))


def end_if_failed(runs: Sequence[str], again: str) -> None:
    """End with the exit code of what had to stop, where some runs did; all is written by then."""
    from hilum.datasets.manifest import number_of

    if runs:
        raise TrainingStopped(
            f"{number_of(len(runs), 'runs')} failed: {', '.join(runs)}; the report has the reasons "
            f"and what the others found. Try again with {again}"
        )


def summary(comparison: Comparison) -> str:
    """One line a place, for a terminal."""
    from hilum.experiments.compare.speed import times
    from hilum.experiments.compare.tables import seconds

    rows = []
    for name, at in comparison.places.items():
        if at.status != "done":
            rows.append([name, *["–"] * (4 + len(comparison.baselines)), at.reason])
            continue
        ratios = (comparison.speed_up(name, over) for over in comparison.baselines)
        verdict = _verdict({e.verdict for e in comparison.equivalences.get(name, {}).values()})
        verdict = ", ".join([verdict, *comparison.doubts(name)])
        rows.append(
            [
                name,
                seconds(at.times("epoch").mean()),
                f"{at.times('step').mean():.1f}",
                f"{at.setup():.1f}",
                *("–" if r is None else times(r["ratio"]) for r in ratios),
                "baseline" if name == comparison.baseline else verdict,
                at.remark,
            ]
        )
    over = [f"× {name}" for name in comparison.baselines]
    heads = ["place", "s/epoch", "ms/step", "set-up s", *over, "converges", "remark"]
    return table(heads, rows, right="lrrr" + "r" * len(over))


def _verdict(verdicts: Collection[str]) -> str:
    """The least favourable of a place's verdicts."""
    order = ("different", "not tested", "open", "alike")
    return next((verdict for verdict in order if verdict in verdicts), "–")


def _margin(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        margin = float(value)
    except ValueError:
        margin = 0.0
    if not 0 < margin < math.inf:
        raise click.UsageError(f"not MEASURE=X: {text}. Write for example val_accuracy=0.01.")
    return name.strip(), margin
