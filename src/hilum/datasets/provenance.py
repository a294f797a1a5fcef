"""Where films come from, of whom they are and who labelled them: for the card and every report.

A folder can say so itself in an ``about.json`` beside its films; two published sets are known by
their films' names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.datasets.patients import agent, known_patient
from hilum.errors import UsageError, nearest

FILE = "about.json"

#: Keys of ``about.json``. ``intended_use`` holds ``ages`` (low, high), ``views``, ``modalities``.
KEYS = ("source", "licence", "population", "reference_standard", "intended_use")

_CHILDREN = "children of one to five years, Guangzhou Women and Children's Medical Center"

KERMANY: dict[str, Any] = {
    "source": "Kermany, Zhang & Goldbaum 2018, doi:10.17632/rscbjbr9sj (told by the films' names)",
    "licence": "CC BY 4.0",
    "population": _CHILDREN,
    "reference_standard": "the reading of quality-screened films by two physicians, a third one "
    "checking the published test part; not microbiology",
    "intended_use": {"ages": [1, 5], "views": ["AP", "PA"], "population": _CHILDREN},
}

NIH: dict[str, Any] = {
    "source": "ChestX-ray14, Wang et al. 2017 (NIH Clinical Center)",
    "licence": "free use with attribution to the NIH Clinical Center",
    "population": "patients of the NIH Clinical Center, mostly adults",
    "reference_standard": "text mining of the radiologists' reports",
}


def about(folders: Sequence[Path], kind: str, names: Sequence[str]) -> dict[str, Any]:
    """What is known of a data set: the keys of ``KEYS`` that anything tells.

    Parameters
    ----------
    folders : the sources; the first one with an ``about.json`` speaks for all
    kind : the kind of source; names : the films' paths

    Raises
    ------
    UsageError
        An ``about.json`` that cannot be read or that has other keys.
    """
    for folder in folders:
        file = (folder if folder.is_dir() else folder.parent) / FILE
        if file.is_file():
            return _read(file)
    if kind == "nih":
        return dict(NIH)
    if kind == "folders" and names and sum(map(_kermany, names)) >= 0.9 * len(names):
        return dict(KERMANY)
    return {}


def _kermany(path: str) -> bool:
    return agent(path) != "" or (known_patient(path) or "").startswith(("im-", "normal2-im-"))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"it cannot be read: {file} ({error}). It is JSON with the keys {', '.join(KEYS)}."
        ) from error
    unknown = sorted(set(content) - set(KEYS)) if isinstance(content, dict) else ["no object"]
    if unknown:
        raise UsageError(f"an unknown key: {unknown[0]} in {file}. {nearest(unknown[0], KEYS)}")
    return dict(content)
