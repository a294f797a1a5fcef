"""``hilum reproduce``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hilum.cli import options
from hilum.cli.compare import end_if_failed, summary
from hilum.cli.display import print_json, table
from hilum.storage import resume_command

if TYPE_CHECKING:
    from hilum.experiments.reproduce.reproduce import Reproduction


@click.command()
@click.argument("data", nargs=-1, metavar="DATA...")
@click.option("--on", multiple=True, metavar="PLACE", help="Where (default: what is here, cuda).")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Of a place.")
@click.option("--films", type=click.IntRange(20), help="About so many films, by whole patients.")
@click.option("--epochs", type=click.IntRange(1), help="Of each training (default: ten).")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option(
    "--sequential-films",
    type=click.IntRange(0),
    default=48,
    show_default=True,
    help="About so many films, of all parts, for one epoch by the NumPy formulas; 0: none.",
)
@click.option("--no-wishes", is_flag=True, help="Leave out accuracy by patients, size, network.")
@click.option("--wish-films", type=click.IntRange(20), help="Films for these (default: --films).")
@click.option("--wish-epochs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--wish-size", type=click.IntRange(94), default=128, show_default=True)
@click.option("--resume", type=click.Path(), metavar="FOLDER", help="Go on with a reproduction.")
@options.out
@options.data_options(draw=True)
@options.common
def reproduce(
    data: tuple[str, ...],
    on: tuple[str, ...],
    seeds: int,
    films: int | None,
    epochs: int | None,
    changes: tuple[str, ...],
    sequential_films: int,
    no_wishes: bool,
    wish_films: int | None,
    wish_epochs: int,
    wish_size: int,
    resume: str | None,
    out: str | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """The paper from start to end: its tables and figures, ours beside them.

    All of it on all films takes hours on a CPU; --films, --epochs and --no-wishes shorten it, and
    the pages say so.

    \b
    Examples:
      hilum reproduce chest_xray/ --out paper
      hilum reproduce chest_xray/ --films 600 --epochs 3 --on cpu:1 --on cpu
      hilum reproduce --resume paper
    """
    from hilum.experiments.reproduce import reproduce as again

    progress = options.terminal(quiet)
    if resume is not None:
        options.nothing_beside_resume("the folder of a reproduction")
        done = again.resume(resume, progress=progress)
    else:
        if not data:
            raise click.UsageError("which films? Name a folder, a table or a manifest.")
        settings = again.Settings(
            on=on,
            seeds=seeds,
            films=films,
            epochs=epochs,
            changes=changes,
            sequential_films=sequential_films,
            wishes=not no_wishes,
            wish_films=wish_films,
            wish_epochs=wish_epochs,
            wish_size=wish_size,
        )
        done = again.reproduce(data, settings, out=out, progress=progress, **chosen)
    if as_json:
        print_json(done.as_dict())
    else:
        _show(done)
    end_if_failed(done.failed, resume_command("reproduce", done.folder))


def _show(done: Reproduction) -> None:
    click.echo(summary(done.comparison))
    rows = [
        [name, str(done.judged.half.strict[name])] for name in ("accuracy", "recall", "specificity")
    ]
    click.echo(f"\n{table([f'on {done.judged.part}, at one half', ''], rows)}")
    click.echo(f"\nreport: {done.folder / 'report.html'}\npaper:  {done.folder / 'paper.html'}")
