"""The same figures for parts of the films: by view, age, sex, subtype and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import Estimate, OperatingPoint
from hilum.evaluation.measure import measure
from hilum.evaluation.scores import Scores

#: Lower ends of the age bands, in years, and their names.
AGES = ((0, "under 1 year"), (1, "1–5 years"), (6, "6–17 years"), (18, "18–39 years"),
        (40, "40–64 years"), (65, "65 years and over"))  # fmt: skip

#: Columns of a manifest that films are grouped by, and their headings.
COLUMNS = {"view": "View", "age": "Age", "sex": "Sex", "subtype": "Subtype", "source": "Source"}

#: Fewer films of a group are counted in the population but not judged.
LEAST = 8


@dataclass(frozen=True)
class Subgroup:
    """One group of films and what the model does on it.

    Attributes
    ----------
    column, name : for example ``view``, ``PA``
    negatives, positives : films of each class
    recall, specificity : strict, at the operating point asked for; value None where the group
        has no film of that class
    auroc : of the group; a group of one class is ranked against all films of the other
    """

    column: str
    name: str
    negatives: int
    positives: int
    recall: Estimate
    specificity: Estimate
    auroc: Estimate

    def as_dict(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "name": self.name,
            "negatives": self.negatives,
            "positives": self.positives,
            **{k: getattr(self, k).as_dict() for k in ("recall", "specificity", "auroc")},
        }


def age_band(text: str) -> str:
    """The band of an age as a manifest writes it (years); ``""`` where it says none."""
    try:
        years = float(text)
    except ValueError:
        return ""
    if not 0 <= years < 150:
        return ""
    return next(name for least, name in reversed(AGES) if years >= least)


def groups(extra: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.object_]]:
    """Group names of each film by column, ``""`` where unknown; columns with one group only are
    left out."""
    found = {}
    for column in COLUMNS:
        if column in extra:
            texts = [age_band(text) if column == "age" else text for text in extra[column]]
            if len(set(texts) - {""}) > (0 if "" in texts else 1):
                found[column] = np.array(texts, dtype=object)
    return found


def subgroups(
    scores: Scores,
    extra: Mapping[str, Sequence[str]],
    point: OperatingPoint,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[Subgroup]:
    """Measure every group of at least ``LEAST`` judged films.

    Parameters
    ----------
    scores : rows as in the manifest; extra : the manifest's further columns
    """
    judged = scores.is_judged
    found = []
    for column, names in groups(extra).items():
        known = sorted(set(names[judged]) - {""}, key=_order)
        for name in known:
            inside = judged & (names == name)
            classes = scores.label[inside]
            if inside.sum() < LEAST:
                continue
            here = measure(
                scores.select(inside),
                {point.name: point},
                calibration=False,
                draws=draws,
                seed=seed,
            )
            auroc = here.ranking["auroc"]
            if len(set(classes.tolist())) == 1:
                against = inside | (judged & (scores.label != classes[0]))
                auroc = measure(
                    scores.select(against), {}, calibration=False, draws=draws, seed=seed
                ).ranking["auroc"]
            rates = here.points[point.name].strict
            found.append(
                Subgroup(
                    column,
                    str(name),
                    int((classes == 0).sum()),
                    int((classes == 1).sum()),
                    rates["recall"],
                    rates["specificity"],
                    auroc,
                )
            )
    return found


def _order(name: str) -> tuple[int, str]:
    bands = [band for _, band in AGES]
    return (bands.index(name) if name in bands else len(bands), name)
