"""Draw a run of recipe ``paper2021`` beside the paper's own GPU and CPU curves.

    python scripts/paper_curves.py docs/records/paper2021     # epochs.csv -> curves.png

The paper's are those of its tables 1 and 2 (``hilum.experiments.paper``), one run each.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hilum.experiments import paper
from hilum.report import INK, plot_style
from hilum.storage import atomic_write

PANELS = (("loss", "cross-entropy"), ("accuracy", "accuracy"))
OURS = "hilum"
INKS = {OURS: "ill", "GPU": "first", "CPU": "second"}


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a run's ``epochs.csv``; what it does not know is left out."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]


def curves(epochs: list[dict[str, float]]) -> Figure:
    """Loss and accuracy, validation above training, ours in front of the paper's."""
    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for row, (kind, prefix) in zip(axes, (("validation", "val_"), ("training", "")), strict=True):
        for panel, (key, label) in zip(row, PANELS, strict=True):
            for name, theirs in paper.CURVES.items():
                values = [getattr(epoch, prefix + key) for epoch in theirs]
                line(panel, f"the paper, {name}", values, name, ls="--", marker="o", lw=1.2)
            line(panel, OURS, [epoch[prefix + key] for epoch in epochs], OURS, marker="D", lw=2)
            panel.set(title=kind, ylabel=label)
    for panel in axes[1]:
        panel.set(xlabel="epoch", xticks=range(1, len(epochs) + 1))
    for panel in axes[:, 0]:
        panel.set_ylim(0)
    for panel in axes.flat:
        panel.yaxis.set_major_formatter("{x:.2f}")
    axes[0, 0].legend(loc="lower left")
    return figure


def line(axes: Any, label: str, values: list[float], name: str, **looks: Any) -> None:
    x = range(1, len(values) + 1)
    axes.plot(x, values, color=INK[INKS[name]], label=label, markersize=4, **looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of a run or its record: holds epochs.csv")
    folder = parser.parse_args().folder
    with plot_style(), atomic_write(folder / "curves.png") as stream:
        curves(read(folder / "epochs.csv")).savefig(
            stream, format="png", facecolor=INK["paper"], metadata={"Software": "hilum"}
        )


if __name__ == "__main__":
    main()
