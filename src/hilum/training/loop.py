"""Epochs: the order of films, the learning rate, the numbers of each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import Calibration, OperatingPoint, decide
from hilum.errors import NonFiniteLoss
from hilum.evaluation.metrics import auroc
from hilum.progress import SILENT, Progress
from hilum.training.learner import Learner
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.schedule import LearningRate

HALF = OperatingPoint("half", 0.5, rule="probability one half, as Keras counts accuracy")


@dataclass(frozen=True)
class Epoch:
    """One line of the training's table.

    Attributes
    ----------
    epoch : from 1
    seconds : training and validation; ms_per_step : training alone
    loss : mean class-weighted loss of the training films, as they were learnt from
    accuracy : of the training films at probability one half, as they were learnt from
    val_loss : plain mean cross-entropy of the validation films, without class weights
    val_accuracy, val_auroc : of the validation films; None for the AUROC of one class
    lr : learning rate of the last step
    """

    epoch: int
    seconds: float
    ms_per_step: float
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    val_auroc: float | None
    lr: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def order(seed: int, epoch: int, films: int) -> NDArray[np.int64]:
    """The order (films,) of an epoch (from 0), a function of seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(films)


def batches(films: NDArray[np.int64], size: int, last: str) -> list[NDArray[np.int64]]:
    """Cut an epoch's order into batches; ``last``: ``keep`` or ``drop`` the smaller one.

    A set smaller than one batch is one batch.
    """
    whole = [films[i : i + size] for i in range(0, len(films), size)]
    return whole[:-1] if last == "drop" and len(whole) > 1 and len(whole[-1]) < size else whole


def steps_in_epoch(films: int, recipe: Recipe) -> int:
    """Steps that one epoch over so many films takes."""
    return len(batches(np.arange(films), recipe.training.batch, recipe.training.last_batch))


def fit(
    learner: Learner,
    recipe: Recipe,
    train: Films,
    validation: Films,
    *,
    rate: LearningRate,
    first: int = 0,
    ended: Callable[[Epoch], None] = lambda epoch: None,
    progress: Progress = SILENT,
) -> None:
    """Run the epochs from ``first`` (0 or where a checkpoint was taken) to the last.

    Parameters
    ----------
    rate : the learning rate, with its memory of past epochs
    ended : called with each epoch's numbers, before the next begins (the checkpoint)

    Raises
    ------
    NonFiniteLoss
        With epoch, step and learning rate.
    """
    seed, epochs = recipe.training.seed, recipe.training.epochs
    for number in range(first, epochs):
        began = time.perf_counter()
        plan = batches(
            order(seed, number, len(train)), recipe.training.batch, recipe.training.last_batch
        )
        learner.begin(train, number, plan)
        lr = 0.0
        with progress.stage(f"epoch {number + 1}", len(plan), brief=True) as advance:
            for step, batch in enumerate(plan):
                lr = rate.at(number * rate.steps + step)
                loss = learner.step(batch, lr)
                if loss is not None and not math.isfinite(loss):
                    raise _not_finite(loss, number, step, lr)
                advance(1)
        losses, logits = learner.finish()
        if not np.isfinite(losses).all():
            step = int(np.flatnonzero(~np.isfinite(losses))[0])
            raise _not_finite(losses[step], number, step, rate.at(number * rate.steps + step))
        taken = time.perf_counter() - began
        learnt = np.concatenate(plan)
        val = judge(learner.logits(validation, recipe.size_at(number)), validation.labels)
        rate.epoch_ended(val["loss"] if val["loss"] is not None else math.inf)
        epoch = Epoch(
            epoch=number + 1,
            seconds=round(time.perf_counter() - began, 3),
            ms_per_step=round(1e3 * taken / len(plan), 3),
            loss=float(np.average(losses, weights=[len(batch) for batch in plan])),
            accuracy=_accuracy(logits, train.labels[learnt]),
            val_loss=val["loss"],
            val_accuracy=val["accuracy"],
            val_auroc=val["auroc"],
            lr=lr,
        )
        ended(epoch)
        progress.row("training", epoch.as_dict())


def judge(logits: NDArray[np.float64], labels: NDArray[np.int8]) -> dict[str, float | None]:
    """Plain cross-entropy, accuracy at one half, AUROC; None where not defined."""
    if not len(logits):
        return {"loss": None, "accuracy": None, "auroc": None}
    both = 0 < int(labels.sum()) < len(labels)
    loss = np.logaddexp(0, logits) - labels * logits
    return {
        "loss": float(loss.mean()),
        "accuracy": _accuracy(logits, labels),
        "auroc": float(auroc(labels, logits)) if both else None,
    }


def _accuracy(logits: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    positive = decide(Calibration().probability(logits), HALF) == "positive"
    return float((positive == (labels == 1)).mean())


def _not_finite(loss: float, epoch: int, step: int, lr: float) -> NonFiniteLoss:
    return NonFiniteLoss(
        f"the loss is not a finite number: {loss} in epoch {epoch + 1}, step {step + 1}, at "
        f"learning rate {lr:.3g}. Lower optimiser.lr, or train with --set "
        "training.precision=float32."
    )
