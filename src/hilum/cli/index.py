"""``hilum index``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hilum.cli import options
from hilum.cli.display import plain, print_json, table


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options.data_options(draw=True)
@click.option("--out", "-o", type=click.Path(), default="films.csv", show_default=True)
@options.common
def index(sources: tuple[str, ...], out: str, quiet: bool, as_json: bool, **chosen: Any) -> None:
    """List the films of a folder, a table or an archive, with labels, patients and parts.

    \b
    Examples:
      hilum index chest_xray/ -o films.csv
      hilum index labels.csv --images scans/ --positive Pneumonia
    """
    from hilum.datasets.index import index as make
    from hilum.datasets.manifest import is_manifest
    from hilum.errors import FolderTaken, UsageError

    if len(sources) == 1 and is_manifest(Path(sources[0])):
        raise UsageError(
            f"this is a manifest already: {sources[0]}. Every command takes it as it is; to draw "
            "other parts, index its films again."
        )
    target = Path(out)
    if target.exists():
        raise FolderTaken(f"the file exists: {out}. Choose another with --out.")
    manifest = make(*sources, **chosen, progress=options.terminal(quiet))
    manifest.write(target)
    if as_json:
        print_json(manifest.shown_description())
        return
    heads = ("part", *manifest.classes, "films", "patients")
    click.echo(table(heads, manifest.counts(), right="lrrrr"))
    if not quiet:
        for line in manifest.remarks():
            click.echo(plain(line), err=True)
        click.echo(f"manifest: {target}", err=True)
