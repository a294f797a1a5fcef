"""``plan.json``: what a command said that it would do, in the folder that it began."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hilum.errors import Refused, UsageError

Plan = TypeVar("Plan")


def read_plan(
    folder: Path,
    what: str,
    newest: int,
    make: Callable[[dict[str, Any]], Plan | None],
    way_on: str,
) -> Plan:
    """The plan in a folder that a command began.

    Parameters
    ----------
    what : the folder is of, for messages: ``comparison``
    newest : the latest format that is known here
    make : a plan from what the file holds; None where it is another command's
    way_on : what to do where there is none, as a sentence

    Raises
    ------
    UsageError
        There is no plan of this command.
    Refused
        The file cannot be read, is damaged, or of a newer hilum.
    """
    path = folder / "plan.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] > newest:
            raise Refused(f"begun by a newer hilum: {path}. Upgrade hilum.")
        made = make(content)
    except (FileNotFoundError, NotADirectoryError):
        made = None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = os.strerror(error.errno or 5) if isinstance(error, OSError) else "damaged"
        raise Refused(
            f"the plan of the {what} cannot be read: {path} ({why}). Put back a copy, or begin "
            "anew with another --out."
        ) from None
    if made is None:
        raise UsageError(f"no {what} was begun there: {folder}. {way_on}")
    return made
