"""Words and numbers as every section writes them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from hilum.decision import Estimate

if TYPE_CHECKING:
    from hilum.evaluation.evaluate import Evaluation

#: SVG texts of the figures by name.
Drawing = dict[str, str]

NAMES = {
    "accuracy": "Accuracy",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "precision": "Precision (PPV on these films)",
    "npv": "NPV on these films",
    "f1": "F1",
    "lr_positive": "Likelihood ratio of a positive answer",
    "lr_negative": "Likelihood ratio of a negative answer",
    "false_alarms_per_100_healthy": "False alarms per 100 healthy",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score (0 is best)",
    "calibration_slope": "Calibration slope (1 is right)",
    "calibration_intercept": "Calibration intercept (0 is right)",
    "ece": "Expected calibration error",
}
RATES = tuple(NAMES)[:9]


def shown(
    estimate: Estimate, *, plain: bool = False, signed: bool = False, digits: int | None = None
) -> str:
    """An estimate as HTML: the value, and its interval in a softer hand.

    Parameters
    ----------
    plain : without the value in bold; signed : a difference
    digits : after the point; 3 where None, or 1 for values of ten and more
    """
    if estimate.value is None:
        return "–"
    form = ("+" if signed else "") + (".1f" if digits is None and abs(estimate.value) >= 10
                                      else f".{3 if digits is None else digits}f")  # fmt: skip
    value = f"{estimate.value:{form}}".replace("-", "−")
    if estimate.low is None and estimate.high is None:
        return value if plain else f"<b>{value}</b> <i>no interval</i>"
    low = "-∞" if estimate.low is None else f"{estimate.low:{form}}"
    high = "∞" if estimate.high is None else f"{estimate.high:{form}}"
    apart = " to " if signed or low.startswith("-") else "–"
    span = f"<i>{low}{apart}{high}</i>".replace("-", "−")
    return f"{value} {span}" if plain else f"<b>{value}</b> {span}"


def holds_for(evaluation: Evaluation) -> str:
    """For which population and reference standard the figures hold.

    Both can be told in ``films.json``, in the notes ``population`` and ``reference_standard``.
    """
    manifest, flow = evaluation.manifest, evaluation.flow
    told = manifest.notes.get("population")
    population = f": {escape(_ended(str(told)))}" if told else (
        f" of {escape(manifest.name)}; who is on them stands below, as far as it is known."
    )  # fmt: skip
    return (
        f"<b>Holds for</b> the {flow['judged']:,} films{population} "
        f"{reference_standard(evaluation)} Other hospitals, machines, ages and shares of ill "
        "patients give other figures."
    )


def reference_standard(evaluation: Evaluation) -> str:
    """What the answers are held against (HTML)."""
    manifest = evaluation.manifest
    standard = manifest.notes.get("reference_standard") or (
        f"the class that came with each film ({manifest.classes[0]} or {manifest.classes[1]}); how "
        "readers came to it, the source has to say"
    )
    return f"<b>Reference standard:</b> {escape(_ended(str(standard)))}"


def _ended(sentence: str) -> str:
    return sentence.rstrip(" .") + "."
