"""Findings from the probes: the class told by the file, or by what the table says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hilum.audit.findings import EXAMPLES, Finding
from hilum.audit.probes import BOUND, COMBINED, CROSS_VALIDATED, Probing, Result

#: A flagged probe is serious where the lower end of an interval lies above this.
STRONG = 0.75


def shortcuts(probing: Probing) -> Iterator[Finding]:
    """What the probes found, in plain words."""
    flagged = probing.flagged
    if flagged:
        lows = [area.low for result in flagged for area in result.areas.values() if area.low]
        single = [result for result in flagged if result.probe is not COMBINED]
        names = ", ".join(result.probe.name for result in single or flagged)
        yield Finding(
            "file-tells-class",
            "serious" if max(lows) > STRONG else "warning",
            f"the file gives the class away: {names}",
            "The label can be told from the file without looking at the lungs. A model may learn "
            "that instead of the illness. " + _travel(flagged, probing.trained_on),
            "Do not trust a validation part cut from the same films. Judge on films from "
            "elsewhere, and train under imitated shifts, as the recipe fast does: they change "
            "shape, sharpness and compression, which is how such traces get into the pixels. "
            + _leftover(flagged),
            {
                result.probe.name: {
                    where: round(area.value, 3)
                    for where, area in result.areas.items()
                    if area.value is not None
                }
                for result in flagged
            },
            tuple(_sentence(result, probing.trained_on) for result in flagged[:EXAMPLES]),
        )
    told = [
        result
        for result in probing.results
        if result.probe.kind == "table"
        and any(area.low is not None and area.low > BOUND for area in result.areas.values())
    ]
    if told:
        yield Finding(
            "table-tells-class",
            "warning",
            f"the class goes along with {', '.join(result.probe.name for result in told)}",
            "What the table says of these films tells the label in part. It may be true medicine "
            "(bedside films are taken of the very ill), but a model can learn it instead of the "
            "illness.",
            "Read the results by subgroup, which hilum evaluate reports where the table tells.",
            examples=tuple(_sentence(result, probing.trained_on) for result in told),
        )
    if probing.skipped:
        yield Finding(
            "probes-not-run",
            "note",
            "shortcuts were not looked for",
            f"On so few films nothing can be told: {probing.skipped}.",
            "Audit more films together.",
        )


def _travel(flagged: Sequence[Result], trained_on: str) -> str:
    best = flagged[0]
    others = {where: a for where, a in best.areas.items() if where != CROSS_VALIDATED}
    if not others:
        return (
            "There is no other part with enough films to score here, so whether it holds elsewhere "
            "cannot be told."
        )
    stays = [part for part, travels in best.travels.items() if not travels]
    if stays:
        part = stays[-1]
        return (
            f"What was learnt on {trained_on} fails on {part} (AUROC {others[part].value:.2f} "
            f"instead of {best.areas[CROSS_VALIDATED].value:.2f}). That is the worst kind: a model "
            f"that relies on it looks perfect in training and fails on {part}."
        )
    return (
        "It holds in the other parts as well, so their figures flatter every model that uses it, "
        "and films from elsewhere will show it."
    )


def _leftover(flagged: Sequence[Result]) -> str:
    names = {result.probe.name for result in flagged}
    if names <= {"file size", "bits a pixel", "all of the file"}:
        return (
            "Here only the size after compression tells it: that follows sharpness, grain and "
            "texture, which another scanner or an earlier compression leaves behind, and in part "
            "the lungs themselves."
        )
    return (
        "hilum looks at grey values alone, so profile, quantiser and format cannot reach a model "
        "directly."
    )


def _sentence(result: Result, trained_on: str) -> str:
    told = ", ".join(
        f"{area.value:.2f} ({area.low:.2f}–{area.high:.2f}) "
        + (f"within {trained_on}" if where == CROSS_VALIDATED else f"on {where}")
        for where, area in result.areas.items()
    )
    return f"{result.probe.name}: AUROC {told}"
