"""Pictures of a run: its curves, and films as the network sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hilum.storage import atomic_write, write_file
from hilum.training.augment import augment
from hilum.training.learner import shrink
from hilum.training.loop import Epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

TILE = 160  # pixels of a film in the mosaic


def curves(epochs: list[Epoch], path: Path) -> None:
    """Loss and accuracy over the epochs, training and validation, with the learning rate."""
    from matplotlib.figure import Figure

    x = [e.epoch for e in epochs]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    blue, orange = "#2a6f97", "#d1495b"
    loss.plot(x, [e.loss for e in epochs], color=blue, marker=".", label="training (weighted)")
    accuracy.plot(x, [e.accuracy for e in epochs], color=blue, marker=".", label="training")
    if epochs[-1].val_loss is not None:
        loss.plot(x, [e.val_loss for e in epochs], color=orange, marker=".", label="validation")
        accuracy.plot(
            x, [e.val_accuracy for e in epochs], color=orange, marker=".", label="validation"
        )
    if epochs[-1].val_auroc is not None:
        accuracy.plot(
            x, [e.val_auroc for e in epochs], color=orange, ls=":", label="validation AUROC"
        )
    loss.set_ylabel("cross-entropy")
    loss.set_ylim(0, 1.05 * max(loss.get_ylim()[1], 1e-3))
    accuracy.set_ylabel("accuracy at probability ½")
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=150)


def augmented(
    films: Films, recipe: Recipe, classes: tuple[str, str], path: Path, columns: int = 8
) -> None:
    """A mosaic: films of both classes plain, and below each as three epochs show it."""
    from hilum.films.picture import mosaic, png

    half = columns // 2
    chosen = np.concatenate([np.flatnonzero(films.labels == c)[:half] for c in (0, 1)])
    pixels = torch.from_numpy(films.pixels[films.rows[chosen]])
    identity = torch.from_numpy(films.identity[chosen])
    rows = [pixels[:, None].float()]
    for epoch in range(3):
        small = shrink(pixels, recipe.size_at(epoch))
        rows.append(augment(small, identity, recipe.training.seed, epoch, recipe.augmentation))
    names = [classes[int(label)] for label in films.labels[chosen]]
    shown, labels = [], list(names)
    for number, row in enumerate(rows):
        large = torch.nn.functional.interpolate(row, size=(TILE, TILE), mode="nearest")
        shown += list(large[:, 0].round().clamp(0, 255).to(torch.uint8).numpy())
        labels += [f"epoch {number}"] * len(names) if number else []
    write_file(path, png(mosaic(shown, columns=len(chosen), labels=labels)))
