"""The learning rate over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hilum.training.recipe import Recipe


@dataclass
class LearningRate:
    """The learning rate of each step, and what it remembers of past epochs.

    Attributes
    ----------
    steps : steps in an epoch
    scale : what plateaus have left of the highest learning rate
    best, waited : lowest validation loss so far, and epochs since
    """

    recipe: Recipe
    steps: int
    scale: float = 1.0
    best: float = math.inf
    waited: int = 0

    def at(self, step: int) -> float:
        """The learning rate of step ``step`` (from 0, over the whole training)."""
        schedule, highest = self.recipe.schedule, self.recipe.optimiser.lr
        if schedule.name == "plateau":
            return highest * self.scale
        total = self.steps * self.recipe.training.epochs
        warm = schedule.warmup * total
        if step < warm:
            return highest * (step + 1) / (warm + 1)
        if schedule.name == "constant":
            return highest
        passed = (step - warm) / max(1.0, total - warm)
        if schedule.name == "cosine":
            passed = (1 - math.cos(math.pi * passed)) / 2
        return highest * (1 - (1 - schedule.final) * passed)

    def epoch_ended(self, validation_loss: float) -> None:
        """Lower the rate on a plateau, by the rule of Keras's ReduceLROnPlateau.

        An epoch counts as better if its loss is lower by more than 1e-4 (Keras's ``min_delta``).
        """
        schedule, highest = self.recipe.schedule, self.recipe.optimiser.lr
        if schedule.name != "plateau":
            return
        if validation_loss < self.best - 1e-4:
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited >= schedule.patience and highest * self.scale > schedule.floor:
            self.scale = max(self.scale * schedule.factor, schedule.floor / highest)
            self.waited = 0

    def state(self) -> dict[str, float]:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        self.scale, self.best = state["scale"], state["best"]
        self.waited = int(state["waited"])
