"""The learner of place ``reference``: the paper's formulas in NumPy, one thread, float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.errors import PlaceUnfit
from hilum.networks.reference import Adam, ReferenceNetwork
from hilum.training.augment import augment
from hilum.training.graph import scale
from hilum.training.learner import new_network
from hilum.training.parts import Films
from hilum.training.recipe import Recipe


def check(recipe: Recipe) -> None:
    """Raise ``PlaceUnfit`` for a recipe that asks for what the reference does not do."""
    wanted = {
        "network.name": (recipe.network.name, "paper2021"),
        "optimiser.name": (recipe.optimiser.name, "adam"),
        "optimiser.weight_decay": (recipe.optimiser.weight_decay, 0.0),
        "averaging.decay": (recipe.averaging.decay, 0.0),
        "sizes.phases": (recipe.sizes.phases, ()),
    }
    for key, (found, needed) in wanted.items():
        if found != needed:
            raise PlaceUnfit(
                f"the reference cannot train this recipe: {key} = {found!r}. It takes "
                f"{needed!r}; use --recipe paper2021, or --on cpu."
            )


class ReferenceLearner:
    """Learns by :class:`hilum.networks.reference.ReferenceNetwork`, film by film.

    It starts from the same weights as torch, sees the same films in the same order and with the
    same augmentation, and so goes the same way, up to rounding.

    Parameters
    ----------
    recipe : of network ``paper2021`` with Adam; no averaging, no progressive size
    weights : of the loss, of class 0 and 1

    Raises
    ------
    PlaceUnfit
        The recipe asks for what the reference does not do.
    """

    def __init__(self, recipe: Recipe, weights: tuple[float, float]) -> None:
        check(recipe)
        self.recipe = recipe
        self.weights = np.array(weights)
        self.torch_network: Any = new_network(recipe)
        parameters = {name: p.numpy() for name, p in self.torch_network.state_dict().items()}
        self.model = ReferenceNetwork(
            recipe.preprocessing.size, parameters, self.torch_network.description
        )
        o = recipe.optimiser
        self.adam = Adam(o.lr, o.momentum, o.beta2, o.epsilon)
        self._losses: list[float] = []
        self._logits: list[NDArray[np.float64]] = []

    def warm_up(self, films: Films, validation: Films, epoch: int) -> None:
        """Nothing is done once here."""

    def begin(self, films: Films, epoch: int, plan: Sequence[NDArray[np.int64]] = ()) -> None:
        self.films, self.epoch = films, epoch
        self._losses, self._logits = [], []

    def step(self, batch: NDArray[np.int64], learning_rate: float) -> float | None:
        films, recipe = self.films, self.recipe
        x = augment(
            torch.from_numpy(films.pixels[films.rows[batch]]),
            torch.from_numpy(films.identity[batch]),
            recipe.training.seed,
            self.epoch,
            recipe.augmentation,
        )
        labels = films.labels[batch]
        smooth = recipe.training.label_smoothing
        loss, gradients = self.model.loss_and_gradients(
            self._scaled(x), labels * (1 - smooth) + smooth / 2, self.weights[labels]
        )
        self._logits.append(self.model.logits.ravel())
        self.adam.rate = learning_rate
        self.adam.step(self.model.parameters, gradients)
        self._losses.append(loss)
        return loss

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array(self._losses), np.concatenate(self._logits)

    def logits(self, films: Films, size: int) -> NDArray[np.float64]:
        found = [
            self.model.forward(self._scaled(torch.from_numpy(films.pixels[[row]])[:, None].float()))
            for row in films.rows
        ]
        return np.concatenate(found).ravel() if found else np.zeros(0)

    def network(self) -> nn.Module:
        weights = {name: torch.from_numpy(p).float() for name, p in self.model.parameters.items()}
        self.torch_network.load_state_dict(weights)
        network: nn.Module = self.torch_network.eval()
        return network

    def state(self) -> dict[str, Any]:
        def tensors(arrays: dict[str, NDArray[np.float64]]) -> dict[str, torch.Tensor]:
            return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

        return {
            "model": tensors(self.model.parameters),
            "m": tensors(self.adam.m),
            "v": tensors(self.adam.v),
            "steps": self.adam.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load({name: p.numpy() for name, p in state["model"].items()})
        self.adam.m = {name: m.numpy().copy() for name, m in state["m"].items()}
        self.adam.v = {name: v.numpy().copy() for name, v in state["v"].items()}
        self.adam.steps = state["steps"]

    def _scaled(self, films: torch.Tensor) -> NDArray[np.float64]:
        return scale(films, self.torch_network.input_scaling).double().numpy()
