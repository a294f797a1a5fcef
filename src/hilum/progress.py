"""A reporter that library code is handed; only the command line shows anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")


class Progress:
    """Reports nothing. The command line passes a subclass that draws.

    Library code calls ``stage`` for something with a length, ``say`` for one line to people,
    ``warn`` for a line that must not be missed, and ``row`` for a line of a live table.
    """

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, *, brief: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """A named piece of work; yields ``advance(steps)``.

        ``brief``: a bar while it lasts, but no line that stays (something else tells of it).
        """

        def advance(steps: int = 1) -> None:
            """Nothing is shown."""

        yield advance

    def say(self, text: str) -> None:
        """One line for people."""

    def warn(self, text: str) -> None:
        """One line that must be seen even when quiet."""

    def row(self, table: str, values: dict[str, object]) -> None:
        """One more line of a live table, for example one epoch of ``training``."""

    def track(self, items: Iterable[Item], name: str, total: int | None = None) -> Iterator[Item]:
        """Iterate over ``items`` as one stage."""
        with self.stage(name, total) as advance:
            for item in items:
                yield item
                advance(1)


SILENT = Progress()


def heard(line: str) -> dict[str, Any] | None:
    """What a process tells another in a line of JSON; None where a library has its own word."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
