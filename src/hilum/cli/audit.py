"""``hilum audit``"""

from __future__ import annotations

from typing import Any

import click

from hilum.cli import options
from hilum.cli.display import print_json, table


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@options.out
@click.option("--workers", type=click.IntRange(1), help="Reading processes (default: all cores).")
@options.data_options(draw=False)
@options.common
def audit(
    data: tuple[str, ...],
    out: str | None,
    workers: int | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Find what is wrong with a data set, before a model learns it.

    Copies, patients in two parts, unreadable films, balance, and shortcuts: how well the class is
    told from the file alone. An audit reports and never refuses; it draws no parts.

    \b
    Examples:
      hilum audit chest_xray/ --out audited
      hilum audit run/films.csv
    """
    from hilum.audit.audit import audit as look

    progress = options.terminal(quiet)
    found = look(data, out=out, workers=workers, progress=progress, **chosen)
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(table(*found.table()) if found.findings else "nothing was found.")
        click.echo(f"\nreport: {found.folder / 'report.html'}")
    return 4 if found.unreadable else 0
