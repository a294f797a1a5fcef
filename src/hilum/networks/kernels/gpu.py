"""Fast layers for NVIDIA GPUs, in Triton: ReLU and pooling in one, and the whole first block.

    relu_pool(x)                      relu(max_pool2d(x, 2))
    conv_relu_pool(x, weight, bias)   cuDNN's convolution, then ``relu_pool``
    first_block(x, weight, bias)      convolution, bias, ReLU and pooling of films in one pass

They are torch's own formula wherever the kernels cannot be used (no Triton, another device, dtype
or layout, a graph being traced), so a caller need not ask.

What is saved is memory traffic, which is what these layers wait for: the first block's map at full
size (254 MB for 16 films of 500 × 500 in bfloat16) is neither written nor read, winners take one
byte where torch's pooling keeps an index of eight, and ReLU keeps nothing of its own.

``relu_pool`` equals torch bit for bit, gradients included. The first block adds in float32 and
rounds once; torch rounds the convolution and again after the bias. As cuDNN's, its products are
TF32's unless ``torch.backends.cudnn.allow_tf32`` is off. Each sum has one order, so the
same inputs give the same result, gradients included.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["available", "conv_relu_pool", "first_block", "relu_pool", "status"]

_NHWC = torch.channels_last
_DTYPES = (torch.float32, torch.bfloat16)
#: Pooled places of one block of the first layer, values of one block of a pooling, and programs
#: that the first layer's gradient is shared out to: a few for each processor of a large GPU.
PLACES, VALUES, PROGRAMS = 64, 2048, 1024


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on a CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _load() -> tuple[ModuleType | None, str]:
    """The programs, or None; and a line on what they are, or why there are none."""
    if importlib.util.find_spec("triton") is None:
        return None, "Triton is not installed (it comes with torch's builds for CUDA)"
    if not interpreted():
        if not torch.cuda.is_available():
            return None, "no GPU is seen by torch"
        if torch.version.hip or torch.cuda.get_device_capability() < (8, 0):
            return None, "they need an NVIDIA GPU of compute capability 8.0 or more"
    try:
        import triton

        from hilum.networks.kernels import programs
    except Exception as error:  # a Triton that does not fit this torch or driver
        return None, f"Triton cannot be loaded ({type(error).__name__}: {error})"
    return programs, f"Triton {triton.__version__}"


def available() -> bool:
    """Whether the kernels can be used here."""
    return _load()[0] is not None


def status() -> str:
    """One line: which kernels there are, or why there are none."""
    loaded, what = _load()
    return f"own GPU kernels: {what}" if loaded else f"no own GPU kernels: {what}"


def relu_pool(x: Tensor) -> Tensor:
    """ReLU of 2 × 2 max-pooling, (n, c, h, w) → (n, c, h // 2, w // 2)."""
    if _usable(x) and min(x.shape[2:]) >= 2:
        pooled: Tensor = _ReluPool.apply(x)
        return pooled
    return functional.relu(functional.max_pool2d(x, 2))


def conv_relu_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution without a frame, bias, ReLU and 2 × 2 max-pooling."""
    return relu_pool(functional.conv2d(x, weight, bias))


def first_block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """:func:`conv_relu_pool` of films (n, 1, h, w) by filters (out, 1, 3, 3), out a power of two
    of 16 to 128; films that want a gradient are computed by torch."""
    out = len(weight)
    fits = tuple(weight.shape[1:]) == (1, 3, 3) and out in (16, 32, 64, 128)
    films = _usable(x) and x.shape[1] == 1 and not x.requires_grad and min(x.shape[2:]) >= 4
    if not (fits and films and weight.dtype == x.dtype):
        return conv_relu_pool(x, weight, bias)
    block: Tensor = _FirstConvReluPool.apply(x, weight, bias)
    return block


def _usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor. Tracers must see torch's own operators."""
    return (
        not (torch.jit.is_tracing() or torch.compiler.is_compiling())
        and (x.device.type == "cuda" or interpreted())
        and x.dtype in _DTYPES
        and x.dim() == 4
        and 0 < x.numel() < 2**31  # places are counted in 32 bits
        and available()
    )


def _programs() -> Any:
    return _load()[0]


def _sizes(x: Tensor, margin: int) -> tuple[int, int, int, int, int]:
    """Films, height and width before pooling reads them, rows and columns after."""
    films, _, height, width = x.shape
    return films, height, width, (height - margin) // 2, (width - margin) // 2


def _pooled(sizes: tuple[int, ...], channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Room for a layer's output and its winners, (n, channels, rows, columns)."""
    shape = (sizes[0], channels, sizes[3], sizes[4])
    y = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_NHWC)
    return y, torch.empty(shape, dtype=torch.uint8, device=like.device, memory_format=_NHWC)


def _precision(x: Tensor) -> str:
    """Of products: TF32 where it is exact, or where convolutions may use it; else float32."""
    tf32 = x.dtype == torch.bfloat16 or torch.backends.cudnn.allow_tf32
    return "tf32" if tf32 else "ieee"


def _blocks(pooled: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """The grid of a pooling, and the shape of each program's block."""
    channels = pooled.shape[1]
    wide = 1 << (channels - 1).bit_length()
    places = max(1, VALUES // wide)
    grid = (-(-pooled.numel() // (channels * places)),)
    return grid, {"CHANNELS": channels, "WIDE": wide, "PLACES": places}


class _ReluPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=_NHWC)
        ctx.sizes, ctx.shape = _sizes(x, 0), x.shape
        y, winners = _pooled(ctx.sizes, x.shape[1], x)
        grid, shape = _blocks(y)
        _programs().pool_forward[grid](x, y, winners, *ctx.sizes, **shape)
        ctx.save_for_backward(winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (winners,) = ctx.saved_tensors
        dy = dy.contiguous(memory_format=_NHWC)
        rows, columns = ctx.sizes[3:]
        dx = torch.empty(ctx.shape, dtype=dy.dtype, device=dy.device, memory_format=_NHWC)
        # The last row and column of an odd side belong to no window.
        dx[:, :, 2 * rows :].zero_()
        dx[:, :, :, 2 * columns :].zero_()
        grid, shape = _blocks(dy)
        _programs().pool_backward[grid](dy, winners, dx, *ctx.sizes, **shape)
        return dx


class _FirstConvReluPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, out = x.contiguous(), len(weight)
        sizes = _sizes(x, 2)
        y, winners = _pooled(sizes, out, x)
        places = sizes[0] * sizes[3] * sizes[4]
        _programs().first_forward[(-(-places // PLACES),)](
            x, weight.reshape(out, 9).contiguous(), bias.contiguous(), y, winners, *sizes,
            CHANNELS=out, PLACES=PLACES, PRECISION=_precision(x),
        )  # fmt: skip
        ctx.sizes, ctx.dtypes = sizes, (weight.dtype, bias.dtype)
        ctx.save_for_backward(x, winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, Tensor]:
        x, winners = ctx.saved_tensors
        dy = dy.contiguous(memory_format=_NHWC)
        out, sizes = dy.shape[1], ctx.sizes
        blocks = -(-sizes[0] * sizes[3] * sizes[4] // PLACES)
        turns = -(-blocks // PROGRAMS)
        programs = -(-blocks // turns)
        sums = torch.empty(programs, 16, out, dtype=torch.float32, device=x.device)
        _programs().first_backward[(programs,)](
            x, dy, winners, sums, *sizes, turns,
            CHANNELS=out, PLACES=PLACES, PRECISION=_precision(x),
        )  # fmt: skip
        total = sums.sum(0)
        weight = total[:9].T.reshape(out, 1, 3, 3).to(ctx.dtypes[0])
        return None, weight, total[9].to(ctx.dtypes[1])
