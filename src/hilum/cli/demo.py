"""``hilum demo``"""

from __future__ import annotations

import click

from hilum.cli import options
from hilum.cli.display import print_json, table
from hilum.cli.predict import HEADS, line


@click.command()
@click.option(
    "--patients",
    type=click.IntRange(40),
    default=600,
    show_default=True,
    help="Made-up ones, each with one or several films.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@options.out
@options.common
def demo(patients: int, seed: int, out: str | None, quiet: bool, as_json: bool) -> None:
    """The whole way on made-up films: draw, index, train, evaluate, answer.

    \b
    Example:
      hilum demo --out demo
    """
    from hilum.experiments.demo import FILMS_NOTE
    from hilum.experiments.demo import demo as run

    done = run(out, patients=patients, seed=seed, progress=options.terminal(quiet))
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "report": str(done.report),
                "picture": str(done.picture),
                "answers": [answer.as_dict() for answer in done.answers],
                "made_up": True,
            }
        )
        return
    click.echo(table(HEADS, [line(answer) for answer in done.answers], right="llr"))
    click.echo(f"\n{FILMS_NOTE}")
    click.echo(f"report:  {done.report}\npicture: {done.picture}\ndone in {done.seconds:.0f} s")
