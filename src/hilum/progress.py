"""A reporter that library code is handed; only the command line shows anything."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

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


def tell(**event: object) -> None:
    """One event to the process that reads this one's stdout, as a line of JSON."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def heard(line: str) -> dict[str, Any] | None:
    """What a process tells another in a line of JSON; None where a library has its own word."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


class Telling(Progress):
    """Progress as lines of JSON to another process, which hands them to ``Retelling``."""

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, *, brief: bool = False
    ) -> Iterator[Callable[[int], None]]:
        tell(stage=name, total=total, brief=brief)
        told, waiting = time.monotonic(), 0

        def advance(steps: int = 1) -> None:
            nonlocal told, waiting
            waiting += steps
            if time.monotonic() - told > 0.2:
                tell(advance=waiting)
                told, waiting = time.monotonic(), 0

        yield advance
        tell(advance=waiting)

    def row(self, table: str, values: dict[str, object]) -> None:
        tell(row=values, table=table)

    def warn(self, text: str) -> None:
        tell(warn=text)


class Retelling:
    """Passes on what another process's ``Telling`` tells; a stage stays open until the next, a
    row, or the end of the ``with`` block."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._stage = ExitStack()
        self._advance: Callable[[int], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stage.__exit__(*raised)  # a stage that an error ends is not told as done

    def take(self, event: dict[str, Any]) -> None:
        """One event; what is no progress is left to others."""
        if "stage" in event:
            self._stage.close()
            stage = self.progress.stage(event["stage"], event["total"], brief=event["brief"])
            self._advance = self._stage.enter_context(stage)
        elif "advance" in event and self._advance is not None:
            self._advance(event["advance"])
        elif "row" in event:
            self._stage.close()
            self.progress.row(event["table"], event["row"])
        elif "warn" in event:
            self.progress.warn(event["warn"])
