"""What the figures of benchmarks/gpu.py come to: ratios, goals, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What issue and paper ask for: (what, goal, whether less is better).
GOALS = {
    "paper's ten epochs, s": (10.0, True),
    "textbook / hilum": (5.0, False),
    "fast to its CPU run's quality, s": (3.0, True),
}
PAPER_RATIO = 6.13  # of the paper's sequential CPU run to its GPU


def reached(epochs: Sequence[Any], wanted: float) -> float | None:
    """Seconds of training until the validation AUROC is ``wanted`` less 0.002; None: never."""
    total = 0.0
    for epoch in epochs:
        total += epoch.seconds
        if epoch.val_auroc is not None and epoch.val_auroc >= wanted - 0.002:
            return round(total, 3)
    return None


def judged(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each goal with the figure reached and whether it is met."""
    found = {
        "paper's ten epochs, s": min(p["seconds"] for p in result["paper"].values()),
        "textbook / hilum": min(r["ratio"] for r in result["textbook"]["ratios"].values()),
        "fast to its CPU run's quality, s": result["fast"]["seconds_to_quality"],
    }
    return [
        {
            "goal": name,
            "asked": asked,
            "reached": found[name],
            "met": found[name] is not None
            and (found[name] <= asked if less else found[name] >= asked),
        }
        for name, (asked, less) in GOALS.items()
    ]


def text(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [f"# {result['gpu']}", "", f"{result['what']}; {result['versions']}.", ""]
    lines += ["| goal | asked | reached | met |", "|---|---:|---:|---|"]
    for g in result["goals"]:
        lines.append(
            f"| {g['goal']} | {g['asked']} | {g['reached']} | {'yes' if g['met'] else 'no'} |"
        )
    lines += ["", "| the paper's epochs | s | start-up s | ms a step | of the limit | bound by |",
              "|---|---:|---:|---:|---:|---|"]  # fmt: skip
    for name, p in result["paper"].items():
        s = p["shares"]
        lines.append(f"| {name} | {p['seconds']} | {p['start_up_seconds']} | {p['ms_per_step']} | "
                     f"{s['of_limit']} | {s['bound_by']} |")  # fmt: skip
    lines += ["", "| beside | ms a step | over the GPU |", "|---|---:|---:|"]
    for name, r in result["textbook"]["ratios"].items():
        ms = result["textbook"]["ms_per_step"][f"textbook {name}"]
        lines.append(f"| textbook loop, {name} | {ms} | {r['ratio']} ({r['least']}–{r['most']}) |")
    for name, c in result["cpu"].items():
        if name.startswith("cpu"):
            lines.append(
                f"| {name} | {c['ms_per_step']} | {c['ratio']} (the paper: {PAPER_RATIO}) |"
            )
    f = result["fast"]
    lines += ["", f"| `fast`, {f['films']} | s | start-up s | validation AUROC |",
              "|---|---:|---:|---:|"]  # fmt: skip
    for name in ("cpu", "cuda"):
        lines.append(f"| {name} | {f[name]['seconds']} | {f[name]['start_up_seconds']} | "
                     f"{f[f'{name}_val_auroc']:.4f} |")  # fmt: skip
    limits = ", ".join(f"{name} {value}" for name, value in result["limits"].items())
    lines += ["", f"Limits measured in the same run: {limits}."]
    lines += ["", "| kernel | ms a step |", "|---|---:|"]
    lines += [f"| `{k['kernel']}` | {k['ms_per_step']} |" for k in result["profile"]]
    return "\n".join(lines)
