"""Fast layers for NVIDIA GPUs, in Triton.

    bias_relu_pool(x, bias)           relu(max_pool2d(x + bias, 2))
    conv_relu_pool(x, weight, bias)   cuDNN's convolution, then ``bias_relu_pool``
    first_block(x, weight, bias)      convolution, bias, ReLU and pooling of films in one pass
    placed(films, affine)             films sampled bilinearly by an affine map each

They are torch's own formula wherever the kernels cannot be used (no Triton, another device, dtype
or layout, a graph being traced), so a caller need not ask.

What is saved is memory traffic, which is what these layers wait for: the first block's map at full
size (254 MB for 16 films of 500 × 500 in bfloat16) is neither written nor read, nor is another
only to add the bias or to sum up its gradient; winners take one byte where torch's pooling keeps
an index of eight, and ReLU keeps nothing of its own. The gradient of a narrow convolution's weights
has a kernel because it is quicker than cuDNN's (docs/records/gpu).

``bias_relu_pool`` equals torch bit for bit, but for the order in which the bias's gradient is
added up. The first block adds in float32 and rounds once; torch rounds the convolution and again
after the bias. As cuDNN's, products of float32 are TF32's unless
``torch.backends.cudnn.allow_tf32`` is off. Each sum has one order, so the same inputs give the
same result, gradients included.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = [
    "available",
    "bias_relu_pool",
    "blocks",
    "conv_relu_pool",
    "first_block",
    "placed",
    "status",
    "takes_films",
]

_NHWC = torch.channels_last
_DTYPES = (torch.float32, torch.bfloat16)
#: Places of one block of a convolution, values of one block of a pooling, pixels of one of a film.
PLACES, VALUES, PIXELS = 64, 2048, 1024
#: Programs that a gradient's sums are shared out to: a few for each processor of a large GPU, and
#: few enough that adding up theirs costs little.
PROGRAMS, WEIGHT_PROGRAMS = 528, 264
#: Channels, in and out, for which the gradient of a convolution's weights is computed here; of
#: wider ones cuDNN is as quick.
NARROW = (16, 32)
#: Bytes of shared memory that its kernels may ask of a processor; data-centre GPUs have them.
SHARED = 120 << 10
#: How each kernel is compiled; measured on an H100 (docs/records/gpu).
FORWARD = {"PLACES": PLACES, "num_warps": 4, "num_stages": 1}
BACKWARD = {"PLACES": PLACES // 2, "num_warps": 4, "num_stages": 2}
WEIGHT = {"PLACES": PLACES, "num_warps": 4, "num_stages": 2}


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


def bias_relu_pool(x: Tensor, bias: Tensor) -> Tensor:
    """ReLU of 2 × 2 max-pooling of x + bias, (n, c, h, w) → (n, c, h // 2, w // 2)."""
    if _usable(x) and min(x.shape[2:]) >= 2 and bias.dtype == x.dtype:
        pooled: Tensor = _BiasReluPool.apply(x, bias)
        return pooled
    return functional.relu(functional.max_pool2d(x + bias[:, None, None], 2))


def conv_relu_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution without a frame, bias, ReLU and 2 × 2 max-pooling."""
    x, weight, bias = _cast(x, weight, bias)
    if not (_usable(x) and weight.dtype == bias.dtype == x.dtype):
        return functional.relu(functional.max_pool2d(functional.conv2d(x, weight, bias), 2))
    maps = _NarrowConv.apply(x, weight) if _narrow(weight) else functional.conv2d(x, weight)
    return bias_relu_pool(maps, bias)


def _narrow(weight: Tensor) -> bool:
    """Whether the kernels take the gradient of these weights (out, in, h, w)."""
    fits = weight.shape[2:] == (3, 3) and all(n in NARROW for n in weight.shape[:2])
    return fits and (interpreted() or _shared_memory(weight.device) >= SHARED)


@cache
def _shared_memory(device: torch.device) -> int:
    return getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0)


def first_block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """:func:`conv_relu_pool` of films (n, 1, h, w) by filters (out, 1, 3, 3), out 16, 32
    or 64; films that want a gradient are computed by torch."""
    x, weight, bias = _cast(x, weight, bias)
    fits = tuple(weight.shape[1:]) == (1, 3, 3) and len(weight) in (16, 32, 64)
    films = _usable(x) and x.shape[1] == 1 and not x.requires_grad and min(x.shape[2:]) >= 4
    if not (fits and films and weight.dtype == bias.dtype == x.dtype):
        return conv_relu_pool(x, weight, bias)
    block: Tensor = _FirstConvReluPool.apply(x, weight, bias)
    return block


def blocks(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """:func:`first_block` and, behind it, :func:`conv_relu_pool` for each further weight and
    bias."""
    x = first_block(x, *layers[0])
    for weight, bias in layers[1:]:
        x = conv_relu_pool(x, weight, bias)
    return x


def placed(films: Tensor, affine: Tensor) -> Tensor:
    """Films (n, s, s) uint8 sampled where their maps (n, 6) say (``hilum.training.augment``),
    beyond the border the nearest pixel; float32. Asks for the kernels."""
    count, side = films.shape[:2]
    moved = torch.empty(films.shape, device=films.device)
    grid = (-(-(side * side) // PIXELS), count)
    _programs().placed[grid](films.contiguous(), affine.contiguous(), moved, side, PIXELS=PIXELS)
    return moved


def takes_films(x: Tensor) -> bool:
    """Whether :func:`placed` takes these films."""
    return x.is_cuda and x.dtype == torch.uint8 and available()


def _cast(x: Tensor, *learnt: Tensor) -> tuple[Tensor, ...]:
    """All of autocast's dtype where that is on, else of x's."""
    device = x.device.type
    on = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if on else x.dtype
    return tuple(tensor.to(dtype) for tensor in (x, *learnt))


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


def _sizes(x: Tensor, margin: int, stride: int = 2) -> tuple[int, int, int, int, int]:
    """Films, height and width of a map, rows and columns of the one that is made of it."""
    films, _, height, width = x.shape
    return films, height, width, (height - margin) // stride, (width - margin) // stride


def _pooled(sizes: tuple[int, ...], channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Room for a layer's output and its winners, (n, channels, rows, columns)."""
    shape = (sizes[0], channels, sizes[3], sizes[4])
    y = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_NHWC)
    return y, torch.empty(shape, dtype=torch.uint8, device=like.device, memory_format=_NHWC)


def _precision() -> str:
    """Of products of float32, as convolutions have it."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


def _shared_out(places: int, block: int, programs: int) -> tuple[int, int]:
    """Programs, at most so many, and blocks of places of each."""
    blocks = -(-places // block)
    turns = -(-blocks // programs)
    return -(-blocks // turns), turns


def _block(channels: int) -> dict[str, int]:
    """The shape of a block of a pooling."""
    wide = 1 << (channels - 1).bit_length()
    return {"CHANNELS": channels, "WIDE": wide, "PLACES": max(1, VALUES // wide)}


class _BiasReluPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous(memory_format=_NHWC)
        ctx.sizes, ctx.shape = _sizes(x, 0), x.shape
        y, winners = _pooled(ctx.sizes, x.shape[1], x)
        block = _block(x.shape[1])
        grid = (-(-y.numel() // (x.shape[1] * block["PLACES"])),)
        _programs().pool_forward[grid](x, bias.contiguous(), y, winners, *ctx.sizes, **block)
        ctx.save_for_backward(winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        (winners,) = ctx.saved_tensors
        dy = dy.contiguous(memory_format=_NHWC)
        films, channels, rows, columns = dy.shape
        dx = torch.empty(ctx.shape, dtype=dy.dtype, device=dy.device, memory_format=_NHWC)
        # The last row and column of an odd side belong to no window.
        dx[:, :, 2 * rows :].zero_()
        dx[:, :, :, 2 * columns :].zero_()
        block = _block(channels)
        programs, turns = _shared_out(films * rows * columns, block["PLACES"], PROGRAMS)
        offsets = torch.empty(programs, channels, device=dy.device)
        _programs().pool_backward[(programs,)](dy, winners, dx, offsets, *ctx.sizes, turns, **block)
        return dx, offsets.sum(0).to(dy.dtype)


class _NarrowConv(Function):
    """cuDNN's convolution; the gradient of its weights (out, in, 3, 3) by a kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            one, none = (1, 1), (0, 0)
            dx, _, _ = torch.ops.aten.convolution_backward(
                dy, x, weight, None, one, none, one, False, none, 1, (True, False, False)
            )
        x, dy = (one.contiguous(memory_format=_NHWC) for one in (x, dy))
        return dx, _weight_gradient(x, dy, weight)


def _weight_gradient(x: Tensor, dy: Tensor, weight: Tensor) -> Tensor:
    """That of a 3 × 3 convolution's ``weight``, by a kernel for each dtype."""
    out, inputs = weight.shape[:2]
    sizes = _sizes(x, 2, stride=1)
    places = sizes[0] * sizes[3] * sizes[4]
    programs, turns = _shared_out(places, PLACES, WEIGHT_PROGRAMS)
    by_tap = x.dtype == torch.float32
    shape = (9, out, inputs) if by_tap else (3, 4, inputs, out)
    kernel = _programs().weight_backward_by_tap if by_tap else _programs().weight_backward
    sums = torch.empty(programs, *shape, device=x.device)
    kernel[(programs,)](
        x, dy, sums, *sizes, turns, INPUTS=inputs, OUT=out, PRECISION=_precision(), **WEIGHT
    )
    total = sums.sum(0)
    if by_tap:
        return total.view(3, 3, out, inputs).permute(2, 3, 0, 1).contiguous()
    return total[:, :3].permute(3, 2, 0, 1).to(weight.dtype).contiguous()


@cache
def _taps(device: torch.device) -> Tensor:
    """Which of 4 × 4 values is which tap of each of the four convolutions of a pooled place:
    (4, 16, 9), one or zero."""
    found = torch.zeros(4, 16, 9)
    for k in range(4):
        for tap in range(9):
            found[k, 4 * (k // 2 + tap // 3) + k % 2 + tap % 3, tap] = 1
    return found.to(device)


class _FirstConvReluPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, out = x.contiguous(), len(weight)
        sizes = _sizes(x, 2)
        y, winners = _pooled(sizes, out, x)
        programs = -(-sizes[0] * sizes[3] * sizes[4] // PLACES)
        filters = (_taps(x.device).to(x.dtype) @ weight.reshape(out, 9).T).contiguous()
        _programs().first_forward[(programs,)](
            x, filters, bias.contiguous(), y, winners, *sizes,
            CHANNELS=out, PRECISION=_precision(), **FORWARD,
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
        places = sizes[0] * sizes[3] * sizes[4]
        programs, turns = _shared_out(places, BACKWARD["PLACES"], PROGRAMS)
        sums = torch.empty(programs, 16, 4, out, device=x.device)
        offsets = torch.empty(programs, out, device=x.device)
        _programs().first_backward[(programs,)](
            x, dy, winners, sums, offsets, *sizes, turns,
            CHANNELS=out, PRECISION=_precision(), **BACKWARD,
        )  # fmt: skip
        taps = _taps(x.device).transpose(0, 1).reshape(64, 9)
        weight = (taps.T @ sums.sum(0).view(64, out)).T.reshape(out, 1, 3, 3)
        return None, weight.to(ctx.dtypes[0]), offsets.sum(0).to(ctx.dtypes[1])
