"""``hilum train``"""

from __future__ import annotations

import os
from typing import Any

import click

from hilum.cli import options
from hilum.cli.display import print_json


@click.command()
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("--recipe", default="fast", show_default=True, metavar="NAME|FILE", help="How.")
@click.option(
    "--on",
    multiple=True,
    callback=options.once("A training has one place; hilum compare trains in several."),
    metavar="PLACE",
    help="Where: cpu, cpu:2, cpu:2x1, cuda, reference, ...",
)
@click.option("--seed", type=int, help="Of everything random (default: the recipe's, 0).")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option("--resume", type=click.Path(), metavar="RUN", help="Go on with a run folder.")
@options.out
@options.data_options(draw=True)
@options.common
def train(
    data: tuple[str, ...],
    recipe: str,
    on: str | None,
    seed: int | None,
    changes: tuple[str, ...],
    resume: str | None,
    out: str | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a model: films and a recipe in, a run folder with a sealed model out.

    \b
    Examples:
      hilum train chest_xray/ --out run
      hilum train films.csv --recipe paper2021 --on cpu:2@float32
      hilum train --resume run
    """
    from hilum.training import train as training
    from hilum.training.group import by_torchrun

    progress = options.terminal(quiet)
    if resume is not None:
        options.nothing_beside_resume("a run folder")
        run = training.resume(resume, progress=progress)
    else:
        if not data:
            raise click.UsageError("which films? Name a folder, a table or a manifest.")
        run = training.train(
            data, recipe, on=on, seed=seed, out=out, overrides=changes, progress=progress, **chosen
        )
    if by_torchrun() and os.environ["RANK"] != "0":
        return  # one of torchrun's processes: the first one speaks for all
    if as_json:
        print_json(
            {
                "run": str(run.folder),
                "model": str(run.model_folder),
                "digest": run.bundle.digest,
                "environment": run.environment,
                "epochs": [epoch.as_dict() for epoch in run.epochs],
                "metrics": run.bundle.metrics,
            }
        )
    else:
        click.echo(f"run: {run.folder}\nmodel: {run.model_folder}")
