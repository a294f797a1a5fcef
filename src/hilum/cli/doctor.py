"""``hilum doctor``"""

from __future__ import annotations

from dataclasses import asdict

import click

from hilum.cli import options
from hilum.cli.display import print_json


@click.command()
@click.option("--clear", is_flag=True, help="Empty the cache of decoded films.")
@options.common
def doctor(clear: bool, quiet: bool, as_json: bool) -> None:
    """What is here, what is missing, and how to get it.

    \b
    Examples:
      hilum doctor
      hilum doctor --clear
    """
    from hilum.doctor import examine

    if clear:
        from hilum.datasets.cache import clear as empty

        folder, size = empty()
        click.echo(f"emptied: {folder} ({size / 1e6:,.0f} MB)", err=True)
        return
    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    width = max(len(finding.item) for finding in findings)
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            click.echo(click.style(f"\n{section}", bold=True))
        mark = {
            True: click.style("✓", fg="green"),
            False: click.style("✗", fg="red"),
            None: "–",
        }[finding.well]
        remedy = f"  → {finding.remedy}" if finding.remedy else ""
        click.echo(f"  {mark} {finding.item:<{width}}  {finding.value}{remedy}")
