"""What changes a time and must not change on the way: times taken otherwise are not compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hilum
from hilum import machine
from hilum.errors import Refused
from hilum.native import library
from hilum.storage import write_json


def here(*, on_gpus: bool = False) -> dict[str, str | None]:
    """The conditions of this process, each in words; nothing is built or loaded to know them.

    Parameters
    ----------
    on_gpus : whether the GPUs are one of them; None where there are none
    """
    found: dict[str, str | None] = {
        "machine": f"{machine.processor()}, {machine.cores()} cores",
        "hilum": f"hilum {hilum.__version__}",
        "torch": _torch(),
        "kernels": _kernels(),
    }
    return found | {"gpus": _gpus()} if on_gpus else found


def hold(whole: Path) -> None:
    """Keep the conditions in the folder of a command, or see that they are those of its begin.

    Raises
    ------
    Refused
        They are others, or those of the begin are not known.
    """
    kept, now = whole / "machine.json", here(on_gpus=_on_gpus(whole))
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
        # GPUs that were not kept are as good as none: where there are none here, no time is mixed.
        others = [name for name in now if before.get(name) != now[name]]
        there = ", ".join(str(before.get(n, f"{n} not known") or "no GPU") for n in others)
        changed = [now[name] for name in others]
    if changed:
        said = ", ".join(words or "no GPU" for words in changed)
        raise Refused(
            f"begun under other conditions: {whole} (there: {there}; here: {said}); their times "
            "are not compared. Go on as it was begun, or begin anew with another --out."
        )


def _measured(whole: Path) -> bool:
    """Whether a job has left anything in the folder of a command."""
    return any(any(whole.glob(f"{room}/*.json")) for room in ("runs", "*/runs", "wishes"))


def _on_gpus(whole: Path) -> bool:
    """Whether a command has a place of GPUs; a reproduction that names no place tries one."""
    try:
        plan = json.loads((whole / "plan.json").read_text("utf-8"))
        places = plan.get("places") or plan.get("on") or ["cuda"]
    except (OSError, ValueError, AttributeError):
        return False
    return any(str(place).startswith("cuda") for place in places)


def _gpus() -> str | None:
    """The GPUs that torch may see, counted by name; None where there are none or nobody tells.

    Asked of the driver's program: torch would open a GPU in this process to know them.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    seen = re.findall(r"^GPU (\d+): (.+) \(UUID: (\S+)\)", said, re.MULTILINE)
    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if granted is not None:
        wanted = [word.strip() for word in granted.split(",") if word.strip()]
        seen = [
            (number, name, uuid)
            for number, name, uuid in seen
            if any(word == number or uuid.startswith(word) for word in wanted)
        ]
    names = Counter(name for _, name, _ in seen)
    return ", ".join(f"{count} × {name}" for name, count in names.items()) or None


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
