"""``hilum evaluate``"""

from __future__ import annotations

from typing import Any

import click

from hilum.cli import options
from hilum.cli.display import print_json, table


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(),
    metavar="MODEL",
    help="A bundle or a run folder, once or twice (default: the model that ships).",
)
@click.option("--part", help="train, validation or test (default: test; without parts, all).")
@options.allow_modified
@options.out
@options.data_options(draw=False)
@options.common
def evaluate(
    data: tuple[str, ...],
    models: tuple[str, ...],
    part: str | None,
    allow_modified: bool,
    out: str | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Judge a model on films with labels: metrics with intervals, figures, a report.

    With two models their differences are paired. The parts that a run drew are in its films.csv.

    \b
    Examples:
      hilum evaluate run/films.csv --model run
      hilum evaluate other_hospital/ --model a.hilum --model b.hilum --out judged
    """
    from hilum.evaluation.evaluate import evaluate as judge
    from hilum.inference.model import load

    progress = options.terminal(quiet)
    loaded = [load(path, allow_modified=allow_modified) for path in models or (None,)]
    evaluation = judge(data, loaded, part=part, out=out, progress=progress, **chosen)
    if as_json:
        print_json(evaluation.as_dict())
    else:
        click.echo(table(*evaluation.table()))
        click.echo(f"\nreport: {evaluation.folder / 'report.html'}")
    return 4 if evaluation.unreadable else 0
