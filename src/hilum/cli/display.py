"""What people see: bars, lines, a live table. All of it on stderr; results go to stdout."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hilum.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

Column = tuple[str, str, int, str]

# Columns of the live table of training: key, heading, width, format. The first seven are the
# paper's (tables 1 and 2).
TRAINING: tuple[Column, ...] = (
    ("epoch", "epoch", 7, "{}"),
    ("seconds", "time s", 8, "{:.1f}"),
    ("ms_per_step", "ms/step", 8, "{:.1f}"),
    ("loss", "loss", 8, "{:.4f}"),
    ("accuracy", "accuracy", 9, "{:.4f}"),
    ("val_loss", "val loss", 9, "{:.4f}"),
    ("val_accuracy", "val acc.", 9, "{:.4f}"),
    ("val_auroc", "val AUROC", 10, "{:.4f}"),
    ("lr", "rate", 9, "{:.2g}"),
)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """A text for one line of a terminal: control characters, as of file names, are escaped."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class Terminal(Progress):
    """Bars on a terminal, plain lines elsewhere, nothing but warnings when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._heads: set[str] = set()
        self._console: Console | None = None
        self._bars = 0  # that are on the screen now

    @property
    def console(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)
        return self._console

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, *, brief: bool = False
    ) -> Iterator[Callable[[int], None]]:
        if self.quiet or (brief and not self._live):
            yield _nothing
        elif self._live:
            yield from self._bar(name, total)
        else:
            yield from self._plain(name, total)

    def _bar(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        from rich import progress as bars

        columns = [
            bars.TextColumn("  {task.description}"),
            bars.BarColumn(bar_width=32),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(compact=True),
        ]
        with bars.Progress(*columns, console=self.console, transient=True) as display:
            task = display.add_task(name, total=total)
            self._bars += 1

            def advance(steps: int = 1) -> None:
                display.update(task, advance=steps)

            try:
                yield advance
            finally:
                self._bars -= 1

    def _plain(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        start, done = time.monotonic(), 0

        def advance(steps: int = 1) -> None:
            nonlocal done
            done += steps

        yield advance
        seconds = time.monotonic() - start
        if seconds >= 1 or (total or 0) > 100:
            click.echo(f"  {name}: {done or total or ''} in {seconds:.1f} s", err=True)

    def say(self, text: str) -> None:
        if not self.quiet:
            self._print("\n".join(map(plain, text.split("\n"))))

    def warn(self, text: str) -> None:
        label = click.style("warning:", fg="yellow", bold=True) if self._live else "warning:"
        self._print(f"{label} {plain(text)}")

    def row(self, table: str, values: dict[str, object]) -> None:
        if self.quiet:
            return
        plain = tuple((key, key, max(len(key), 8) + 2, "{}") for key in values)
        columns = TRAINING if table == "training" else plain
        if table not in self._heads:
            self._heads.add(table)
            head = "".join(f"{heading:>{width}}" for _, heading, width, _ in columns)
            self._print(click.style(head, bold=True) if self._live else head)
        cells = []
        for key, _, width, form in columns:
            value = values.get(key)
            text = "–" if value is None else form.format(value)
            if len(text) >= width and isinstance(value, float):  # a training that runs away
                text = f"{value:.1e}"
            cells.append(f"{text:>{width}}")
        self._print("".join(cells))

    def _print(self, text: str) -> None:
        """A text on stderr; above the bar where there is one, which would be torn else."""
        if not self._bars:
            click.echo(text, err=True)
            return
        from rich.text import Text

        self.console.print(Text.from_ansi(text), soft_wrap=True)


def _nothing(steps: int = 1) -> None:
    """Advance nothing."""


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "") -> str:
    """An aligned plain table for stdout.

    Parameters
    ----------
    right : one letter a column, ``r`` for columns that are aligned to the right
    """
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(heads), *cells]) for i in range(len(heads))]
    sides = [">" if i < len(right) and right[i] == "r" else "<" for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        parts = (f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True))
        return "  ".join(parts).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(heads), rule, *map(line, cells)])


def print_json(content: Any, *, indent: int | None = 1) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False))
