"""A dense layer's gradient, exchanged between processes as its factors.

The gradient of a dense layer's weights is a sum over films of outer products, dW = Σ dzᵢ xᵢᵀ
(``hilum.networks.reference``). For few films a layer's inputs x and output gradients dz are fewer
numbers than dW: at 500 × 500 and batch 16 the first dense layer of the paper's network has 0.7 MB
of the ones and 5.5 MB of the other. So the processes gather each other's factors, while the way
back goes on, and each computes the whole sum (sufficient factors: Xie et al. 2015,
https://arxiv.org/abs/1511.08486). Where they share memory the weights lie there, once for all, and
each computes and moves its rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hilum.training.exchange import Exchange

WORTH_IT = 1 << 18  # numbers that an exchange must save, or its message costs more
FEW_PROCESSES = 4  # so many sums of their own cost little beside one of all


def few(network: nn.Module, films: int) -> dict[str, Tensor]:
    """Weights of dense layers, by name, of which so many films have far fewer factors."""
    return {
        f"{name}.weight": layer.weight
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
        and worth_it(sum(layer.weight.shape), films, layer.weight.numel())
    }


def worth_it(factors: float, films: float, gradient: float) -> bool:
    """Whether so many films' factors are to be sent in place of the gradient, all in numbers.

    They are half as many at least: a sum over a ring sends the gradient nearly twice.
    """
    return films * factors + WORTH_IT <= gradient


class ByFactors(nn.Module):
    """A network whose dense layers ``weights`` get no gradient on the way back, but from
    :meth:`collect`, and only in the rows that this process moves.

    Parameters
    ----------
    films : that a process has at most
    exchange : takes the factors to the other processes; :meth:`collect` comes behind its own
    """

    def __init__(
        self,
        network: nn.Module,
        weights: Sequence[Tensor],
        films: int,
        exchange: Exchange,
    ) -> None:
        super().__init__()
        self.network, self.exchange = network, exchange
        self.factored = _Factored(weights, films, exchange)
        self.shares = True

    def forward(self, x: Tensor) -> Any:
        with self.factored if self.shares else nullcontext():
            return self.network(x)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Steps with this process's own gradients, made on the way back."""
        self.shares = False
        try:
            yield
        finally:
            self.shares = True

    def rows(self, parameter: Tensor) -> slice | EllipsisType:
        """What of a parameter this process moves; mostly all."""
        return self.exchange.rows(len(parameter)) if self._has(parameter) else ...

    def zeros_like(self, parameter: Tensor) -> Tensor:
        """An optimiser's memory of a parameter at first; it lies where the parameter does."""
        zeros = torch.zeros_like(parameter)
        return self.exchange.hold(zeros) if self._has(parameter) else zeros

    def meet(self) -> None:
        """Wait until all processes have moved their rows."""
        if self.shares:
            self.exchange.meet()

    def collect(self) -> None:
        """Give the weights their gradients, the mean of the processes', behind the way back."""
        self.factored.collect()

    def _has(self, parameter: Tensor) -> bool:
        return parameter in self.factored.gradients


class _Factored(TorchFunctionMode):
    """While it is entered, dense layers of these weights hand their factors to it."""

    def __init__(self, weights: Sequence[Tensor], films: int, exchange: Exchange) -> None:
        super().__init__()
        self.films, self.exchange = films, exchange
        self.gradients = {weight: torch.zeros_like(weight) for weight in weights}
        self.under_way: list[tuple[Tensor, Tensor]] = []
        for weight in weights:
            weight.data = exchange.hold(weight.data)

    def __torch_function__(
        self, function: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        if function is functional.linear and given[1] in self.gradients:
            return _Linear.apply(*given, self)
        return function(*given, **(named or {}))

    def send(self, weight: Tensor, x: Tensor, dz: Tensor) -> None:
        """Begin to gather every process's x (films, in) and dz (films, out)."""
        mine = dz.new_zeros(self.films, x.shape[1] + dz.shape[1])  # a film that there is not adds 0
        mine[: len(x), : x.shape[1]] = x
        mine[: len(x), x.shape[1] :] = dz
        self.under_way.append((weight, self.exchange.gather(mine)))

    def collect(self) -> None:
        for weight, everyone in self.under_way:
            rows, weight.grad = self.exchange.rows(len(weight)), self.gradients[weight]
            # Each process's sum by itself, as shards of one process are added; for many processes
            # that would be many walks through the gradient.
            apart = everyone if len(everyone) <= FEW_PROCESSES else everyone.flatten(0, 1)[None]
            total = weight.grad[rows]
            for k, some in enumerate(apart):
                x, dz = some.split(weight.shape[::-1], dim=1)
                made = (dz[:, rows] / len(everyone)).T @ x  # maybe in bfloat16, which total is not
                total.add_(made) if k else total.copy_(made)
        self.under_way.clear()


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, to: _Factored) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.to = to
        return functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        ctx.to.send(weight, x, dz)
        dx = (dz @ weight.to(dz.dtype)).to(x.dtype)
        return dx, None, dz.sum(0) if ctx.needs_input_grad[2] else None, None
