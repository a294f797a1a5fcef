"""A residual block, and the stem before the first, each as one function that torch can
differentiate; and when the kernels take them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from hilum.native import library
from hilum.networks.kernels import functions
from hilum.networks.kernels.functions import NAMES, NHWC


class Branch(NamedTuple):
    """A convolution without bias and the batch normalisation behind it."""

    weight: Tensor
    norm: nn.BatchNorm2d


class _Branch(ctypes.Structure):
    """As ``branch.hpp`` has it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "weight", "gain", "bias", "mean", "variance", "running_mean", "running_variance",
            "batches", "dweight", "dgain", "dbias",
        )),
        ("eps", ctypes.c_float),
        ("momentum", ctypes.c_float),
    )  # fmt: skip


class _Residual(ctypes.Structure):
    """As ``residual.hpp`` has it."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in ("films", "height", "width", "in_", "out", "halved", "turned", "trains")
    )


def takes_residual(x: Tensor, branches: Sequence[Branch], halved: bool) -> bool:
    """Whether the kernels compute this block: its sizes, its dtypes, what it is to do.

    Parameters
    ----------
    x : (n, in, h, w) of the dtype computed in
    branches : the two convolutions 3 × 3 and, unless x is added as it is, the one around them
    """
    out, by = branches[0].weight.shape[0], 2 if halved else 1
    sizes = [(out, x.shape[1], 3, 3), (out, out, 3, 3), (out, x.shape[1], 1, 1)]
    places = x.shape[0] * -(-x.shape[2] // by) * -(-x.shape[3] // by)
    return (
        [tuple(branch.weight.shape) for branch in branches] == sizes[: len(branches)]
        and (len(branches) == 3 or x.shape[1] == out)
        and x.shape[1] % 16 == 0
        and _known(x, branches, places)
    )


def takes_stem(x: Tensor, branch: Branch) -> bool:
    """Whether the kernels compute this stem.

    Parameters
    ----------
    x : (n, 1, h, w)
    """
    sides = x.shape[2:]
    return (
        x.shape[1] == 1
        and sides[0] % 2 == sides[1] % 2 == 0
        and tuple(branch.weight.shape[1:]) == (4, 3, 3)
        and not x.requires_grad
        and _known(x, [branch], x.shape[0] * sides[0] * sides[1] // 4)
    )


def _known(x: Tensor, branches: Sequence[Branch], places: int) -> bool:
    """Whether the branches are such as the kernels have in mind, over so many places."""
    norms = [branch.norm for branch in branches]
    trains = norms[0].training
    learnt = [t for weight, norm in branches for t in (weight, norm.weight, norm.bias)]
    return (
        branches[0].weight.shape[0] % 16 == 0
        and all(n.affine and n.track_running_stats and n.training == trains for n in norms)
        and all(t.dtype == torch.float32 for t in learnt)
        # Of one value torch refuses to take the variance; what stands still has no gradient here.
        and (
            places > 1
            if trains
            else not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *learnt)))
        )
    )


def residual(x: Tensor, branches: Sequence[Branch], halved: bool) -> Tensor:
    """What :func:`takes_residual` said yes to: (n, in, h, w) → (n, out, h, w), halved or not."""
    y: Tensor = ConvBlock.apply(x, [branch.norm for branch in branches], halved, *_learnt(branches))
    return y


def stem(x: Tensor, branch: Branch, dtype: torch.dtype) -> Tensor:
    """What :func:`takes_stem` has said yes to: (n, 1, h, w) → (n, out, h/2, w/2) of a dtype."""
    y: Tensor = ConvStem.apply(x, branch.norm, dtype, *_learnt([branch]))
    return y


def _learnt(branches: Sequence[Branch]) -> list[Tensor]:
    return [t for weight, norm in branches for t in (weight, norm.weight, norm.bias)]


class ConvBlock(Function):
    """``residual``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norms: list[nn.BatchNorm2d], halved: bool, *learnt: Tensor
    ) -> Tensor:
        x, trains = x.contiguous(memory_format=NHWC), norms[0].training
        learnt = tuple(t.contiguous() for t in learnt)
        films, channels, height, width = x.shape
        out, by = learnt[0].shape[0], 2 if halved else 1
        size = films, out, -(-height // by), -(-width // by)
        shape = _Residual(films, height, width, channels, out, halved, len(norms) == 3, trains)
        y = torch.empty(size, dtype=x.dtype, memory_format=NHWC)
        maps = (channels if halved else 0) + out * (len(norms) + 1)
        memory = x.new_empty(films * size[2] * size[3] * maps)
        branches, moments = _branches(norms, learnt)
        _call("residual_forward", x.dtype, (x, memory, y), branches, shape)
        if trains:
            ctx.save_for_backward(x, memory, y, moments, *learnt)
            ctx.shape, ctx.branches = shape, branches
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, memory, y, _, *learnt = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        dx = torch.empty_like(x, memory_format=NHWC) if ctx.needs_input_grad[0] else None
        gradients = _gradients(ctx.branches, learnt)
        _call("residual_backward", x.dtype, (x, memory, y, dy, dx), ctx.branches, ctx.shape)
        return dx, None, None, *gradients


class ConvStem(Function):
    """``stem``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: nn.BatchNorm2d, dtype: torch.dtype, *learnt: Tensor
    ) -> Tensor:
        x, learnt = x.float().contiguous(), tuple(t.contiguous() for t in learnt)
        films, _, height, width = x.shape
        out = learnt[0].shape[0]
        shape = _Residual(films, height, width, 1, out, True, False, norm.training)
        z, y = (
            torch.empty(films, out, height // 2, width // 2, dtype=dtype, memory_format=NHWC)
            for _ in range(2)
        )
        branches, moments = _branches([norm], learnt)
        _call("stem_forward", dtype, (x, z, y), branches, shape)
        if norm.training:
            ctx.save_for_backward(x, z, y, moments, *learnt)
            ctx.shape, ctx.branches = shape, branches
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, y, _, *learnt = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        gradients = _gradients(ctx.branches, learnt)
        _call("stem_backward", dy.dtype, (x, z, y, dy), ctx.branches, ctx.shape)
        return None, None, None, *gradients


def _branches(norms: Sequence[nn.BatchNorm2d], learnt: Sequence[Tensor]) -> tuple[Any, Tensor]:
    """What the kernels are told of branches, and room for the mean and variance that they take."""
    moments = learnt[0].new_empty(len(norms), 2, len(learnt[0]))
    branches = (_Branch * len(norms))()
    for branch, norm, own, taken in zip(branches, norms, _by_three(learnt), moments, strict=True):
        running = norm.running_mean, norm.running_var, norm.num_batches_tracked
        tensors = (*own, *taken, *running) if norm.training else (*own, *running[:2])
        for (name, *_), tensor in zip(_Branch._fields_, tensors, strict=False):
            setattr(branch, name, tensor.data_ptr())  # type: ignore[union-attr]
        branch.eps = norm.eps
        branch.momentum = -1.0 if norm.momentum is None else norm.momentum
    return branches, moments


def _gradients(branches: Any, learnt: Sequence[Tensor]) -> list[Tensor]:
    """Room for the gradients of what was learnt, which the branches then know."""
    gradients = [torch.empty_like(t) for t in learnt]
    for branch, some in zip(branches, _by_three(gradients), strict=True):
        branch.dweight, branch.dgain, branch.dbias = (t.data_ptr() for t in some)
    return gradients


def _by_three(learnt: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    return [learnt[k : k + 3] for k in range(0, len(learnt), 3)]


def _call(
    name: str, dtype: torch.dtype, tensors: Sequence[Tensor | None], branches: Any, shape: Any
) -> None:
    kernel: Any = getattr(library.load("residual")[0], f"{name}_{NAMES[dtype]}")
    pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
    many = functions.threads or torch.get_num_threads()
    kernel(*pointers, branches, ctypes.byref(shape), ctypes.c_int(many))
