"""Whose film it is, told from its name, so that one patient never lies in two parts.

A key groups films; it is not a hospital number (of those ``names.hashed`` makes keys). What the
published names mean:

* Kermany as on Kaggle: ``person1000_bacteria_2931``. Bacteria and viruses are numbered apart,
  the same number is another child there, so the key is (agent, number).
* Kermany's healthy films: ``IM-0115-0001`` and ``NORMAL2-IM-0383-0001``, two series of numbers,
  so the key is (prefix, number).
* Kermany as on Mendeley: ``BACTERIA-1008087-0001``: a randomised number of the patient.
* ChestX-ray14: ``00000013_005``: the patient's number, then the follow-up.
* Open-i: ``CXR17_IM-0499-1001``: the number of the report, one for each examination.
"""

from __future__ import annotations

import re
from pathlib import Path

# The name may go on behind its number ("..._2931_flipped"): that is still the same child.
_END = r"(?![0-9])"
_NAMES = (
    (re.compile(rf"person(\d+)_(bacteria|virus)_\d+{_END}", re.I), "{2}-{1}"),
    (re.compile(rf"(normal2-)?IM-(\d+)-\d+{_END}", re.I), "{1}IM-{2}"),
    (re.compile(rf"(?:bacteria|virus|normal)-(\d{{5,}})-\d+{_END}", re.I), "mendeley-{1}"),
    (re.compile(rf"(\d{{8}})_\d{{3}}{_END}"), "nih-{1}"),
    (re.compile(r"CXR(\d+)_(?:\d+_)?IM-\d+", re.I), "openi-{1}"),
)
_AGENT = re.compile(r"person\d+_(bacteria|virus)_|(bacteria|virus)-\d{5,}-", re.I)


def known_patient(path: str | Path) -> str | None:
    """The patient's key where the file's name tells it, else None."""
    stem = _name(path)
    for pattern, key in _NAMES:
        match = pattern.match(stem)
        if match:
            groups = [group or "" for group in match.groups()]
            return key.format("", *groups).lower()
    return None


def agent(path: str | Path) -> str:
    """``bacteria`` or ``virus`` where Kermany's names tell it, else ``""``."""
    match = _AGENT.match(_name(path))
    return (match[1] or match[2]).lower() if match else ""


def _name(path: str | Path) -> str:
    return str(path).rpartition("/")[2]
