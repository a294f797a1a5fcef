"""``plan.json``: what a command said that it would do, in the folder that it began."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hilum.errors import Refused

Plan = TypeVar("Plan")


def read_plan(
    folder: Path, what: str, newest: int, make: Callable[[dict[str, Any]], Plan | None]
) -> Plan | None:
    """The plan in a folder; None where there is none.

    Parameters
    ----------
    what : the folder is of, for messages: ``comparison``
    newest : the latest format that is known here
    make : a plan from what the file holds; None where it is another command's

    Raises
    ------
    Refused
        The file cannot be read, is damaged, or of a newer hilum.
    """
    path = folder / "plan.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] > newest:
            raise Refused(f"begun by a newer hilum: {path}. Upgrade hilum.")
        return make(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = os.strerror(error.errno or 5) if isinstance(error, OSError) else "damaged"
        raise Refused(
            f"the plan of the {what} cannot be read: {path} ({why}). Put back a copy, or begin "
            "anew with another --out."
        ) from None
