"""Muon: momentum whose update is made orthogonal.

On a CPU all of a step is one call of a kernel, where there are kernels, which several threads
share: small products of matrices, of which each costs torch more to begin than to compute.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hilum.native import library
from hilum.training.recipe import Optimiser as Settings

ITERATIONS = 4  # of Newton and Schulz


class _Weights(ctypes.Structure):
    """As ``muon.hpp`` has it: a convolution's weights as a matrix (out, rest)."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("gradients", ctypes.c_void_p),
        ("means", ctypes.c_void_p),
        ("rows", ctypes.c_int),
        ("columns", ctypes.c_int),
    )


class _Momentum(ctypes.Structure):
    _fields_ = (
        ("momentum", ctypes.c_float),
        ("lr", ctypes.c_float),
        ("decay", ctypes.c_float),
        ("iterations", ctypes.c_int),
    )


def gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Those that the parameters hold, zeros where they hold none, each laid out as its parameter:
    torch's fused updates and the kernel here walk through both alike, whatever their strides say.
    """
    held = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    return [
        g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        for p, g in zip(parameters, held, strict=True)
    ]


class Muon:
    """Momentum whose update is made orthogonal (Jordan 2024), for convolutions as (out, rest).

    The update is Nesterov momentum, orthogonalised by a quintic Newton–Schulz iteration and
    scaled by √max(1, out/rest); weight decay is decoupled.

    Parameters
    ----------
    threads : that the kernel may take; the result does not depend on it
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], settings: Settings, threads: int = 1
    ) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.settings, self.threads = settings, threads
        self.means = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, share: float | Tensor) -> None:
        if not self.parameters:
            return
        lr = self.settings.muon_lr * share
        found = gradients(self.parameters)
        kernel = self._kernel()
        if kernel is None or isinstance(lr, Tensor):
            self._by_torch(found, lr)
        else:
            self._by_kernel(kernel, found, lr)

    def _kernel(self) -> Any:
        """Where it can be used: float32 on a CPU, each filter in one piece."""
        for p, mean in zip(self.parameters, self.means, strict=True):
            dense = p.is_contiguous() or p.is_contiguous(memory_format=torch.channels_last)
            plain = p.device.type == "cpu" and p.dtype == torch.float32 and p.ndim == 4
            if not (plain and dense and p.stride() == mean.stride()):
                return None
        loaded: Any = library.load("muon")[0]
        return loaded and loaded.muon_step_float32

    def _by_kernel(self, kernel: Any, found: list[Tensor], lr: float) -> None:
        # Within a filter numbers may lie in any order, if gradients have the same.
        each = [
            _Weights(p.data_ptr(), g.data_ptr(), m.data_ptr(), len(p), p.numel() // len(p))
            for p, g, m in zip(self.parameters, found, self.means, strict=True)
        ]
        each.sort(key=lambda w: w.rows * w.columns, reverse=True)  # the longest work first
        settings = self.settings
        same = _Momentum(settings.momentum, lr, settings.weight_decay, ITERATIONS)
        kernel((_Weights * len(each))(*each), len(each), ctypes.byref(same), self.threads)

    def _by_torch(self, found: list[Tensor], lr: float | Tensor) -> None:
        momentum = self.settings.momentum
        torch._foreach_lerp_(self.means, found, 1 - momentum)
        updates = torch._foreach_lerp(found, self.means, momentum)
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


def orthogonalise(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
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
