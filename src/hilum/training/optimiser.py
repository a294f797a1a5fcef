"""Optimisers by recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hilum.training.recipe import Optimiser


def make(network: nn.Module, recipe: Optimiser) -> list[torch.optim.Optimizer]:
    """The optimisers for a network: one, or with Muon two.

    Each parameter group carries ``highest``, the learning rate that the schedule scales by its
    share of ``recipe.lr``. Weight decay falls on parameters of two dimensions and more.
    """
    wide = [p for p in network.parameters() if p.ndim > 1]
    narrow = [p for p in network.parameters() if p.ndim <= 1]
    if recipe.name == "muon":
        convolutions = [p for p in wide if p.ndim == 4]
        rest = [p for p in wide if p.ndim != 4]
        muon = Muon(
            [{"params": convolutions, "highest": recipe.muon_lr}],
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        return [muon, _adam(torch.optim.AdamW, rest, narrow, recipe, momentum=0.9, decay=0.0)]
    if recipe.name == "sgd":
        groups = _groups(wide, narrow, recipe.lr, recipe.weight_decay)
        return [
            torch.optim.SGD(
                groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0,
                fused=_fused(network),
            )
        ]  # fmt: skip
    kind = torch.optim.Adam if recipe.name == "adam" else torch.optim.AdamW
    return [_adam(kind, wide, narrow, recipe, recipe.momentum, recipe.weight_decay)]


def _adam(
    kind: Any,
    wide: list[nn.Parameter],
    narrow: list[nn.Parameter],
    recipe: Optimiser,
    momentum: float,
    decay: float,
) -> torch.optim.Optimizer:
    groups = _groups(wide, narrow, recipe.lr, decay)
    fused = all(p.device.type in ("cpu", "cuda") for p in (*wide, *narrow))
    betas = (momentum, recipe.beta2)
    optimiser: torch.optim.Optimizer = kind(
        groups, lr=recipe.lr, betas=betas, eps=recipe.epsilon, fused=fused
    )
    return optimiser


def _groups(
    wide: list[nn.Parameter], narrow: list[nn.Parameter], lr: float, decay: float
) -> list[dict[str, Any]]:
    groups = [(wide, decay), (narrow, 0.0)]
    return [{"params": p, "weight_decay": d, "highest": lr} for p, d in groups if p]


def _fused(network: nn.Module) -> bool:
    return all(p.device.type in ("cpu", "cuda") for p in network.parameters())


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Jordan 2024), for convolutions as (out, rest).

    The update is Nesterov momentum, orthogonalised by a quintic Newton–Schulz iteration and
    scaled by √max(1, out/rest); weight decay is decoupled.
    """

    def __init__(self, groups: Any, momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                mean = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(mean, group["momentum"]).reshape(len(p), -1)
                update = orthogonalise(update) * max(1, update.shape[0] / update.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, iterations: int = 4) -> Tensor:
    """The nearest matrix with singular values of about 1, by Newton–Schulz.

    Coefficients of the quintic: Jordan 2024, "Muon: an optimizer for hidden layers".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    turned = x.size(0) > x.size(1)
    x = x.T if turned else x
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if turned else x).to(matrix.dtype)
