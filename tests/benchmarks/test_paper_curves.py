"""The picture of a run beside the paper's own curves."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from hilum.experiments import paper

ROOT = Path(__file__).parents[2]


def test_every_panel_has_ours_and_the_papers_two() -> None:
    pytest.importorskip("matplotlib")
    script = runpy.run_path(str(ROOT / "scripts" / "paper_curves.py"))
    ours = script["read"](ROOT / "docs" / "records" / "paper2021" / "epochs.csv")
    axes = script["curves"](ours).axes
    for panel, key in zip(axes, ("val_loss", "val_accuracy", "loss", "accuracy"), strict=True):
        lines = {one.get_label(): list(one.get_ydata()) for one in panel.lines}
        assert lines == {
            "the paper, GPU": [getattr(epoch, key) for epoch in paper.GPU],
            "the paper, CPU": [getattr(epoch, key) for epoch in paper.CPU],
            "hilum": [epoch[key] for epoch in ours],
        }
