"""What changes a time and must not change on the way: times taken otherwise are not compared."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hilum
from hilum import machine
from hilum.errors import Refused
from hilum.native import library
from hilum.storage import write_json


def here() -> dict[str, str]:
    """The conditions of this process, each in words; nothing is built or loaded to know them."""
    return {
        "machine": f"{machine.processor()}, {machine.cores()} cores",
        "hilum": f"hilum {hilum.__version__}",
        "torch": _torch(),
        "kernels": _kernels(),
    }


def hold(whole: Path) -> None:
    """Keep the conditions in the folder of a command, or see that they are those of its begin.

    Raises
    ------
    Refused
        They are others, or those of the begin are not known.
    """
    kept, now = whole / "machine.json", here()
    try:
        before = json.loads(kept.read_text("utf-8"))
    except FileNotFoundError:
        before = None
        if not _measured(whole):
            write_json(kept, now)
            return
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict):  # damaged, or of a hilum that kept less
        there, changed = "not known", list(now.values())
    else:
        others = [name for name in now if before.get(name) != now[name]]
        there = ", ".join(str(before.get(name, f"{name} not known")) for name in others)
        changed = [now[name] for name in others]
    if changed:
        raise Refused(
            f"begun under other conditions: {whole} (there: {there}; here: {', '.join(changed)}); "
            "their times are not compared. Go on as it was begun, or begin anew with another --out."
        )


def _measured(whole: Path) -> bool:
    """Whether a job has left anything in the folder of a command."""
    return any(any(whole.glob(f"{room}/*.json")) for room in ("runs", "*/runs", "wishes"))


def _torch() -> str:
    try:
        return f"torch {version('torch')}"
    except PackageNotFoundError:
        return "no torch"


def _kernels() -> str:
    """Whether the CPU kernels are used. Why they are not makes no difference to a time."""
    try:
        library.level()
        library.compiler()
    except library.Unavailable:
        return "without hilum's CPU kernels"
    return "with hilum's CPU kernels"
