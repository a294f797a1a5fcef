"""Optimisers by recipe.

But for Muon they call torch's own fused update functions. Torch's optimiser classes would do the
same and load its compiler on the way, one and a half seconds that a short training does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from hilum.training.muon import Muon, gradients
from hilum.training.recipe import Optimiser as Settings

if TYPE_CHECKING:
    from hilum.training.factors import ByFactors

MOMENTS = 2  # numbers that an optimiser remembers for a weight, at most


class Optimiser(Protocol):
    """Moves parameters by their gradients and remembers what it needs for the next time."""

    def step(self, share: float | Tensor) -> None:
        """One update at ``share`` of the highest learning rate.

        A tensor of one float32 on the parameters' device, so that a CUDA graph can hold the step.
        """

    def state(self) -> dict[str, list[Tensor]]:
        """Its memory: lists of tensors in the order of the parameters."""


def make(
    network: nn.Module,
    settings: Settings,
    shared: ByFactors | None = None,
    threads: int = 1,
) -> list[Optimiser]:
    """The optimisers of a network.

    Weight decay falls on parameters of two dimensions and more. With Muon, convolutions are
    Muon's and everything else is AdamW's, without decay.

    Parameters
    ----------
    shared : whose weights are also those of other processes, each of which moves its rows
    threads : that Muon's kernel may take
    """
    wide = [p for p in network.parameters() if p.ndim > 1]
    narrow = [p for p in network.parameters() if p.ndim <= 1]
    if settings.name == "muon":
        convolutions = [p for p in wide if p.ndim == 4]
        rest = [p for p in wide if p.ndim != 4] + narrow
        beside = Adam(rest, settings, decay=0.0, momentum=0.9, shared=shared)
        return [Muon(convolutions, settings, threads), beside]
    kind: Any = Sgd if settings.name == "sgd" else Adam
    groups = [(wide, settings.weight_decay), (narrow, 0.0)]
    return [kind(some, settings, decay=decay, shared=shared) for some, decay in groups if some]


def restore(optimiser: Optimiser, state: dict[str, list[Tensor]]) -> None:
    """Give an optimiser back what ``state`` returned."""
    for name, kept in optimiser.state().items():
        for mine, theirs in zip(kept, state[name], strict=True):
            mine.copy_(theirs)


def _fused(parameters: Sequence[nn.Parameter]) -> bool:
    return all(p.device.type in ("cpu", "cuda") for p in parameters)


class _ByElement:
    """What moves each weight by its own gradient alone, and so any rows of a parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], shared: ByFactors | None) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.fused = _fused(parameters)
        self._zeros_like = torch.zeros_like if shared is None else shared.zeros_like
        self._rows = [... if shared is None else shared.rows(p) for p in parameters]

    def _zeros(self) -> list[Tensor]:
        return [self._zeros_like(p) for p in self.parameters]

    def _mine(self, tensors: list[Tensor]) -> list[Tensor]:
        """Of the parameters, or what belongs to them, the rows that this process moves."""
        if all(rows is ... for rows in self._rows):
            return tensors
        return [tensor[rows] for tensor, rows in zip(tensors, self._rows, strict=True)]


class Adam(_ByElement):
    """Adam (Kingma & Ba 2015); weight decay decoupled for ``adamw`` and beside Muon."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        settings: Settings,
        decay: float,
        momentum: float | None = None,
        shared: ByFactors | None = None,
    ) -> None:
        super().__init__(parameters, shared)
        self.settings, self.decay = settings, decay
        self.momentum = settings.momentum if momentum is None else momentum
        self.means, self.squares = self._zeros(), self._zeros()
        self.counts = [torch.zeros((), dtype=torch.float32, device=p.device) for p in parameters]

    @torch.no_grad()
    def step(self, share: float | Tensor) -> None:
        adam(
            self._mine(self.parameters),
            self._mine(gradients(self.parameters)),
            self._mine(self.means),
            self._mine(self.squares),
            [],
            self.counts,
            fused=self.fused,
            decoupled_weight_decay=self.settings.name != "adam",
            amsgrad=False,
            beta1=self.momentum,
            beta2=self.settings.beta2,
            lr=self.settings.lr * share,
            weight_decay=self.decay,
            eps=self.settings.epsilon,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        return {"means": self.means, "squares": self.squares, "counts": self.counts}


class Sgd(_ByElement):
    """Gradient descent with Nesterov's momentum."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        settings: Settings,
        decay: float,
        shared: ByFactors | None = None,
    ) -> None:
        # From zero, the first step is the gradient, as it is where torch begins with none.
        super().__init__(parameters, shared)
        self.settings, self.decay = settings, decay
        self.means = self._zeros()

    @torch.no_grad()
    def step(self, share: float | Tensor) -> None:
        lr: Any = self.settings.lr * share  # a tensor where torch's annotation has only floats
        sgd(
            self._mine(self.parameters),
            self._mine(gradients(self.parameters)),
            list(self._mine(self.means)),
            fused=self.fused,
            weight_decay=self.decay,
            momentum=self.settings.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.settings.momentum > 0,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        return {"means": self.means}
