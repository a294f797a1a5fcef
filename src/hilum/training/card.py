"""The model card: what the model is, what it learnt from, what it is worth, where it ends."""

from __future__ import annotations

from typing import Any

from hilum.bundle import Bundle
from hilum.datasets.manifest import Manifest, number_of
from hilum.training.recipe import Recipe

SHOWN = (
    "auroc",
    "average_precision",
    "accuracy",
    "recall",
    "specificity",
    "precision",
    "npv",
    "brier",
    "calibration_slope",
)


def card(bundle: Bundle, recipe: Recipe, manifest: Manifest, separation: dict[str, float]) -> str:
    """Markdown; every figure comes from the bundle itself."""
    trained, source = bundle.trained_on, manifest.notes
    lines = [
        f"# {bundle.name}",
        "",
        f"Answers one question about a frontal chest radiograph: **{bundle.target}**, "
        f"{bundle.classes[1]} against {bundle.classes[0]}. Not a medical device: for research and "
        "teaching, not for decisions about patients.",
        "",
        "## Data",
        "",
        "| part | films | patients | " + " | ".join(bundle.classes) + " |",
        "|---|---|---|---|---|",
        *(
            f"| {part} | {trained[part]['films']} | {trained[part]['patients']} | "
            + " | ".join(str(trained[part][name]) for name in bundle.classes)
            + " |"
            for part in ("train", "validation")
        ),
        "",
        f"Source: {source.get('source') or source.get('kind') or 'films of your own'}. "
        f"Licence of the films: {source.get('licence') or 'as their owner states'}.",
    ]
    if bundle.chance:
        lines += ["", f"**This model is {bundle.chance} Do not rely on it.**"]
    if trained.get("leak"):
        lines += ["", f"**Patients lie in more than one part** ({trained['leak']}): every figure "
                  "here is too good."]  # fmt: skip
    lines += [
        "",
        "## Figures",
        "",
        "The validation part shares hospital, machines and shortcuts with the training part, and "
        "the thresholds were chosen on it"
        + (
            "; the test part chose nothing but is of the same source, unless it was published apart"
            if "test" in bundle.metrics
            else ""
        )
        + ". Expect less on films from elsewhere.",
        "",
        "| metric | " + " | ".join(f"{part} (95 % interval)" for part in bundle.metrics) + " |",
        "|---|" + "---|" * len(bundle.metrics),
    ]
    for name in SHOWN:
        cells = [_cell(measured[name]) for measured in bundle.metrics.values()]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    counts = ", ".join(f"{m['auroc']['n']} films of {part}" for part, m in bundle.metrics.items())
    lines += ["", f"At the operating point {bundle.default_operating_point}; {counts}."]
    shifts = {name: area for name, area in separation.items() if name != "plain"}
    if shifts:
        worst = min(shifts, key=lambda name: shifts[name])
        lines += [
            "",
            f"AUROC under {len(shifts)} imitated shifts: {sum(shifts.values()) / len(shifts):.3f} "
            f"on average, {shifts[worst]:.3f} at worst ({worst}).",
        ]
    lines += ["", "## Operating points", "", "| name | threshold | rule |", "|---|---|---|"]
    for point in bundle.operating_points.values():
        lines.append(f"| {point.name} | {point.threshold:.3f} | {point.rule} |")
    lines += [
        "",
        f"Default: {bundle.default_operating_point}. Probabilities refer to a prevalence of "
        f"{bundle.calibration.prevalence:.0%}; on a ward with another, adjust them.",
        "",
        "## Limits",
        "",
    ]
    use = bundle.intended_use
    stated = []
    if use.get("population"):
        stated.append(str(use["population"]))
    if use.get("ages"):
        stated.append(f"ages {use['ages'][0]:g} to {use['ages'][1]:g} years")
    if use.get("views"):
        stated.append(f"views {', '.join(use['views'])}")
    lines += [
        f"- Made for: {'; '.join(stated) or 'films like those it was trained on'}.",
        "- It does not know a chest film from another picture: photographs, scans and smears get "
        "an answer too, unless their header or a coarse look at the picture refers them.",
        "- The labels are readings of films, not microbiology.",
        f"- It tells {bundle.classes[1]} from {bundle.classes[0]} only; another illness is "
        "neither.",
        "",
        "## How it was made",
        "",
        f"hilum {bundle.hilum}, recipe `{recipe.name}` ({recipe.digest}), network "
        f"`{recipe.network.name}` at {recipe.preprocessing.size} × {recipe.preprocessing.size} "
        f"pixels, {number_of(recipe.training.epochs, 'epochs')}, seed {recipe.training.seed}.",
        "",
    ]
    return "\n".join(lines)


def _cell(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "–"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
