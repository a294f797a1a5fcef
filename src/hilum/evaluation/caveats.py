"""What makes an evaluation's figures worth less than they look, as sentences for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import chance
from hilum.evaluation.scores import Scores
from hilum.storage import digest

if TYPE_CHECKING:
    from hilum.datasets.manifest import Manifest
    from hilum.evaluation.measure import Measured
    from hilum.inference.model import Model

FEW_FILMS, FEW_OF_A_CLASS = 100, 30


def caveats(
    manifest: Manifest,
    part: str | None,
    models: dict[str, Model],
    scores: dict[str, Scores],
    measured: dict[str, Measured],
) -> list[str]:
    """Everything that makes the figures worth less than they look, or the model worth nothing."""
    where = f"the {part} part" if part else "this set"
    guesses = {name: chance(one.ranking["auroc"], where) for name, one in measured.items()}
    found = [f"{name} is {sentence}" for name, sentence in guesses.items() if sentence]
    prints = _fingerprints(manifest)
    for name, model in models.items():
        for key, what in (
            ("films", "were learnt by it"),
            ("chosen_on", "chose its epoch, calibration or thresholds"),
        ):
            known = set(model.bundle.trained_on.get(key) or ())
            count = sum(p in known for p in prints if p)
            if count:
                found.append(
                    f"{count} of these {len(prints)} films {what} ({name}): "
                    "its figures here are too good."
                )
        if model.bundle.target != manifest.task:
            found.append(
                f"{name} answers {model.bundle.target}, the labels are of {manifest.task}."
            )
        answered = ~np.isnan(scores[name].probability)
        found += _beyond(name, model.bundle.intended_use, manifest, answered)
    leak = manifest.notes.get("leak")
    if leak:
        found.append(
            f"A leak was allowed: {leak} patients have films in two parts, so figures are too good."
        )
    drawn = (manifest.notes.get("drawn") or {}).get("shares", {})
    if part in drawn:
        found.append(
            f"The {part} part was drawn from this data set, not published with it. To a model that "
            "learnt the rest these are films of the same hospital and machines: expect less "
            "elsewhere."
        )
    first = next(iter(scores.values()))
    judged = first.is_judged
    classes = np.bincount(first.label[judged], minlength=2)
    if classes.min() == 0:
        only = manifest.classes[int(classes.argmax())]
        found.append(f"Only one class is here ({only}): most figures are not defined.")
    elif judged.sum() < FEW_FILMS or classes.min() < FEW_OF_A_CLASS:
        found.append(
            f"Few films: {classes[0]} {manifest.classes[0]}, {classes[1]} {manifest.classes[1]}. "
            "Read the intervals, not the values."
        )
    for name, answers in scores.items():
        refused = int((judged & np.isnan(answers.probability)).sum())
        if refused:
            found.append(
                f"{name} refused {refused} of {int(judged.sum())} films; the strict figures count "
                "them as errors."
            )
    if first.is_unreadable.any():
        found.append(
            f"{int(first.is_unreadable.sum())} of {len(first)} films could not be read; they are "
            "listed below and count nowhere."
        )
    return found


def _beyond(
    name: str, use: dict[str, Any], manifest: Manifest, answered: NDArray[np.bool_]
) -> list[str]:
    """Films that the model was not made for, as far as the table tells, and that got a score."""
    found = []
    ages, views = use.get("ages"), use.get("views")

    def column(key: str) -> list[str]:
        values = manifest.extra.get(key, ())
        return [value for value, scored in zip(values, answered, strict=False) if scored]

    years = [float(age) for age in column("age") if _is_number(age)]
    if ages and (count := sum(not ages[0] <= age <= ages[1] for age in years)):
        found.append(
            f"{count} films are of patients outside {ages[0]:g} to {ages[1]:g} years, for which "
            f"{name} was made. It would refer them to a reader; here they are scored all the same."
        )
    seen = [view for view in column("view") if view]
    if views and (count := sum(view not in views for view in seen)):
        found.append(
            f"{count} films have other views than {', '.join(views)}, for which {name} was made. "
            "It would refer them to a reader; here they are scored all the same."
        )
    return found


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _fingerprints(manifest: Manifest) -> list[str]:
    """The first 8 bytes of each file's SHA-256 in hex; ``""`` for a film within an archive."""
    return [digest(file)[:16] if file.is_file() else "" for file in manifest.files()]
