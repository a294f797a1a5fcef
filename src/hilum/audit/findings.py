"""A finding: what is wrong, what it means, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
EXAMPLES = 5  # that a finding names


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that a user should know.

    Attributes
    ----------
    code : stable, for programs
    severity : ``serious`` (figures on this set will be wrong), ``warning`` or ``note``
    title, meaning, advice : for people
    counts : numbers by name
    examples : a few films or groups, in words
    """

    code: str
    severity: Severity
    title: str
    meaning: str
    advice: str
    counts: dict[str, Any] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "examples": list(self.examples)}


def counted(items: Sequence[Any], noun: str) -> str:
    """``3 patients``, ``1 patient``."""
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"
