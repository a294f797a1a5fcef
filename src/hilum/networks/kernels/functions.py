"""The compiled kernels as functions that torch can differentiate.

Each takes what the layer of its name in ``hilum.networks.kernels`` has made sure of: dtype,
number of channels, a library that is loaded.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from hilum.native import library

NHWC = torch.channels_last
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
threads = 0  # of the kernels; 0: torch's number


def call(
    source: str,
    name: str,
    dtype: torch.dtype,
    tensors: list[Tensor | None],
    shape: list[int],
    *more: Any,
) -> None:
    """Run a kernel of a source in several threads; ``shape`` is films, height, width, in, out."""
    function: Any = getattr(library.load(source)[0], f"{name}_{NAMES[dtype]}")
    pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
    many = ctypes.c_int(threads or torch.get_num_threads())
    function(*pointers, (ctypes.c_int * 5)(*shape), many, *more)


def _pooled(shape: list[int], margin: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Room for a layer's output and its winners, (n, out, rows, columns)."""
    films, height, width, _, out = shape
    size = (films, out, (height - margin) // 2, (width - margin) // 2)
    y = torch.empty(size, dtype=dtype, memory_format=NHWC)
    return y, torch.empty(size, dtype=torch.uint8, memory_format=NHWC)


def _shape(x: Tensor, out: int) -> list[int]:
    films, channels, height, width = x.shape
    return [films, height, width, channels, out]


class ReluPool(Function):
    """``relu_pool``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = _shape(x, x.shape[1])
        y, winners = _pooled(ctx.shape, 0, x.dtype)
        if y.numel():
            call("blocks", "pool_forward", x.dtype, [x, y, winners], ctx.shape)
        ctx.save_for_backward(winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (winners,) = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        films, height, width, channels, _ = ctx.shape
        size = (films, channels, height, width)
        dx = torch.empty(size, dtype=dy.dtype, memory_format=NHWC)
        call("blocks", "pool_backward", dy.dtype, [dy, winners, dx], ctx.shape)
        return dx


class ConvReluPool(Function):
    """``conv_relu_pool``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = x.contiguous(memory_format=NHWC), weight.contiguous()
        shape = _shape(x, weight.shape[0])
        y, winners = _pooled(shape, 2, x.dtype)
        call("blocks", "block_forward", x.dtype, [x, weight, bias.contiguous(), y, winners], shape)
        ctx.save_for_backward(x, weight, winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight, winners = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        dx = torch.empty_like(x, memory_format=NHWC) if ctx.needs_input_grad[0] else None
        dweight, dbias = torch.empty_like(weight), weight.new_empty(weight.shape[0])
        tensors = [x, weight, dy, winners, dx, dweight, dbias]
        call("blocks", "block_backward", x.dtype, tensors, _shape(x, weight.shape[0]))
        return dx, dweight, dbias


class FirstConvReluPool(Function):
    """``first_block``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        shape = _shape(x, weight.shape[0])
        y, winners = _pooled(shape, 2, dtype)
        call("blocks", "first_forward", dtype, [x, weight, bias.contiguous(), y, winners], shape)
        ctx.save_for_backward(x, winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x, winners = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        out = dy.shape[1]
        # One channel lies alike in either format: torch's group wants the weight's own strides.
        dbias = x.new_empty(out)
        dweight = torch.empty(out, 1, 3, 3, dtype=x.dtype, memory_format=NHWC)
        call("blocks", "first_backward", dy.dtype, [x, dy, winners, dweight, dbias], _shape(x, out))
        return None, dweight, dbias, None


class FirstTwoConvReluPool(Function):
    """``FirstConvReluPool`` and ``ConvReluPool``: the gradient between them is never written."""

    @staticmethod
    def forward(
        ctx: Any,
        films: Tensor,
        first_weight: Tensor,
        first_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        films, weight = films.contiguous(), weight.contiguous()
        first = _shape(films, first_weight.shape[0])
        x, first_winners = _pooled(first, 2, dtype)
        learnt = [first_weight.contiguous(), first_bias.contiguous()]
        call("blocks", "first_forward", dtype, [films, *learnt, x, first_winners], first)
        shape = _shape(x, weight.shape[0])
        y, winners = _pooled(shape, 2, dtype)
        call("blocks", "block_forward", dtype, [x, weight, bias.contiguous(), y, winners], shape)
        ctx.save_for_backward(films, x, weight, first_winners, winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        films, x, weight, first_winners, winners = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        between, out = weight.shape[1], weight.shape[0]
        gradients = [
            torch.empty(between, 1, 3, 3, memory_format=NHWC),
            torch.empty(between),
            torch.empty_like(weight),
            torch.empty(out),
        ]
        tensors = [films, x, weight, dy, first_winners, winners, *gradients]
        first = (ctypes.c_int * 5)(*_shape(films, between))
        call("blocks", "two_backward", dy.dtype, tensors, _shape(x, out), first)
        return None, *gradients, None


class FramedConv(Function):
    """``framed_conv``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.contiguous(memory_format=NHWC), weight.contiguous()
        shape = _shape(x, weight.shape[0])
        size = (x.shape[0], weight.shape[0], *x.shape[2:])
        y = torch.empty(size, dtype=x.dtype, memory_format=NHWC)
        call("residual", "framed_forward", x.dtype, [x, weight, y], shape)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        dx = torch.empty_like(x, memory_format=NHWC) if ctx.needs_input_grad[0] else None
        dweight = torch.empty_like(weight)
        tensors = [x, weight, dy, dx, dweight]
        call("residual", "framed_backward", x.dtype, tensors, _shape(x, weight.shape[0]))
        return dx, dweight


class Normalised(Function):
    """``normalised``: the output, and the batch's mean and biased variance (c,)."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        beside: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = z.contiguous(memory_format=NHWC)
        if beside is not None:
            beside = beside.contiguous(memory_format=NHWC)
        shape = _shape(z, z.shape[1])
        y, mean, variance = (torch.empty_like(t) for t in (z, weight, weight))
        tensors = [z, beside, weight.contiguous(), bias.contiguous(), y, mean, variance]
        call(
            "residual",
            "norm_forward",
            z.dtype,
            tensors,
            shape,
            ctypes.c_float(eps),
            ctypes.c_int(relu),
        )
        ctx.save_for_backward(z, y if relu else None, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        z, y, weight, mean, variance = ctx.saved_tensors
        dy = dy.contiguous(memory_format=NHWC)
        dz, dweight, dbias = torch.empty_like(z), torch.empty_like(weight), torch.empty_like(weight)
        dbeside = torch.empty_like(z) if ctx.needs_input_grad[1] else None
        tensors = [z, y, dy, weight.contiguous(), mean, variance, dz, dbeside, dweight, dbias]
        shape = _shape(z, z.shape[1])
        call("residual", "norm_backward", z.dtype, tensors, shape, ctypes.c_float(ctx.eps))
        return dz, dbeside, dweight, dbias, None, None
