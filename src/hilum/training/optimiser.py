"""Optimisers by recipe.

They call torch's own fused update functions. Torch's optimiser classes would do the same and load
its compiler on the way, one and a half seconds that a short training does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.adam import adam
from torch.optim.sgd import sgd

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
    network: nn.Module, settings: Settings, shared: ByFactors | None = None
) -> list[Optimiser]:
    """The optimisers of a network.

    Weight decay falls on parameters of two dimensions and more. With Muon, convolutions are
    Muon's and everything else is AdamW's, without decay.

    Parameters
    ----------
    shared : whose weights are also those of other processes, each of which moves its rows
    """
    wide = [p for p in network.parameters() if p.ndim > 1]
    narrow = [p for p in network.parameters() if p.ndim <= 1]
    if settings.name == "muon":
        convolutions = [p for p in wide if p.ndim == 4]
        rest = [p for p in wide if p.ndim != 4] + narrow
        beside = Adam(rest, settings, decay=0.0, momentum=0.9, shared=shared)
        return [Muon(convolutions, settings), beside]
    kind: Any = Sgd if settings.name == "sgd" else Adam
    groups = [(wide, settings.weight_decay), (narrow, 0.0)]
    return [kind(some, settings, decay=decay, shared=shared) for some, decay in groups if some]


def restore(optimiser: Optimiser, state: dict[str, list[Tensor]]) -> None:
    """Give an optimiser back what ``state`` returned."""
    for name, kept in optimiser.state().items():
        for mine, theirs in zip(kept, state[name], strict=True):
            mine.copy_(theirs)


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]


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
            self._mine(_gradients(self.parameters)),
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
            self._mine(_gradients(self.parameters)),
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


class Muon:
    """Momentum whose update is made orthogonal (Jordan 2024), for convolutions as (out, rest).

    The update is Nesterov momentum, orthogonalised by a quintic Newton–Schulz iteration and
    scaled by √max(1, out/rest); weight decay is decoupled.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: Settings) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.settings = settings
        self.means = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, share: float | Tensor) -> None:
        if not self.parameters:
            return
        momentum, lr = self.settings.momentum, self.settings.muon_lr * share
        gradients = _gradients(self.parameters)
        torch._foreach_lerp_(self.means, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, self.means, momentum)
        made = orthogonalised([update.flatten(1) for update in updates])
        steps = [
            (m * max(1, m.shape[0] / m.shape[1]) ** 0.5).view_as(p)
            for p, m in zip(self.parameters, made, strict=True)
        ]
        torch._foreach_mul_(self.parameters, 1 - lr * self.settings.weight_decay)
        if isinstance(lr, Tensor):
            # As ``alpha`` the host would wait for it.
            steps, lr = list(torch._foreach_mul(steps, lr)), 1.0
        torch._foreach_add_(self.parameters, steps, alpha=-lr)

    def state(self) -> dict[str, list[Tensor]]:
        return {"means": self.means}


def orthogonalise(matrix: Tensor, iterations: int = 4) -> Tensor:
    """The nearest matrix with singular values of about 1, by Newton–Schulz.

    Coefficients of the quintic: Jordan 2024, "Muon: an optimizer for hidden layers".

    Parameters
    ----------
    matrix : (..., rows, columns); on a GPU it is computed in bfloat16, as Jordan does
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    turned = x.size(-2) > x.size(-1)
    x = x.mT if turned else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    for _ in range(iterations):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if turned else x).to(matrix.dtype)


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """``orthogonalise`` for each; on a GPU as one batch, which takes a twentieth of the launches.

    There all are laid on their wide side and framed with
    zeros to one shape: zeros around a matrix change nothing in it.
    """
    if not matrices[0].is_cuda:
        return [orthogonalise(matrix) for matrix in matrices]
    wide = [m.mT if m.shape[0] > m.shape[1] else m for m in matrices]
    rows, columns = (max(m.shape[k] for m in wide) for k in (0, 1))
    framed = [functional.pad(m, (0, columns - m.shape[1], 0, rows - m.shape[0])) for m in wide]
    found = orthogonalise(torch.stack(framed))
    cut = [x[: m.shape[0], : m.shape[1]] for x, m in zip(found, wide, strict=True)]
    pairs = zip(cut, matrices, strict=True)
    return [(x.mT if x.shape != m.shape else x).contiguous() for x, m in pairs]
