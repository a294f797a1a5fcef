"""``hilum get``"""

from __future__ import annotations

import click

from hilum.cli import options


@click.command()
@click.argument("name", required=False)
@options.out
@options.common
def get(name: str | None, out: str | None, quiet: bool, as_json: bool) -> None:
    """Fetch a published data set; without a NAME, list those there are.

    Where there is no network the manual way is told instead.

    \b
    Examples:
      hilum get
      hilum get kermany --out chest_xray
    """
    from hilum.cli.display import print_json, table
    from hilum.datasets import get as sets

    if name is None:
        rows = [(s.name, s.films, s.licence, s.about) for s in sets.SETS.values()]
        if as_json:
            print_json(
                [dict(zip(("name", "films", "licence", "about"), r, strict=True)) for r in rows]
            )
        else:
            click.echo(table(("name", "films", "licence", "what"), rows, right="lrll"))
        return
    folder = sets.get(name, out=out, progress=options.terminal(quiet))
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        click.echo(str(folder))
