"""Fast layers for the CPU, forward and backward.

    relu_pool(x)                      relu(max_pool2d(x, 2))
    conv_relu_pool(x, weight, bias)   relu(max_pool2d(conv2d(x, weight, bias), 2))
    first_block(x, weight, bias)      the same for films, which want no gradient
    blocks(x, layers)                 these, one behind another
    framed_conv(x, weight)            conv2d(x, weight, padding=1)
    normalised(z, norm, beside, relu) relu(norm(z) + beside), norm being a BatchNorm2d
    residual(x, branches, halved)     a block of these two, where there are kernels for it
    stem(x, branch)                   what stands before the first block, likewise

and, with torch's own way in ``hilum.training.augment``,

    augmented(pixels, ...)            films as an epoch shows them

Each is torch's own formula wherever the kernels cannot be used (no library, another device, dtype
or number of channels, a graph being traced), so a caller need not ask. What is exact:

- ``relu_pool`` equals torch bit for bit, outputs and gradients, ties and NaN included.
- The convolutions round otherwise than torch's, as any two algorithms do: about 1e-6 relative in
  float32. Where two values of a window are equal but for that, another of them may win. In
  bfloat16 sums are kept in float32 and maps are rounded. Where the processor has matrix tiles (AMX)
  all convolutions but the first block round their filters, too. Elsewhere, where it multiplies
  integers of 16 bits twice as fast (AVX-512 VNNI), products forward are computed in these, up to 64
  channels, which loses less than rounding the maps does. Where it multiplies pairs of bfloat16
  (AVX-512 BF16), the gradient of an input is taken from filters that are rounded, that of the first
  block's weights from films that are, up and down by a pattern, so that even areas lose nothing on
  average. Results lie nearer to the exact ones than autocast's, or as near.
- A NaN or an infinity comes out as NaN or infinite; it may spread over the tile of 4 × 4 outputs
  around it, in bfloat16 over the twelve tiles that are computed together, in the first block over
  its row of windows.
- No result depends on the number of threads.

See ``hilum.native`` for how and for what is compiled when, ``functions.py`` for how
torch differentiates them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from hilum import machine
from hilum.native import library
from hilum.networks.kernels import block, functions
from hilum.networks.kernels.block import Branch

__all__ = [
    "Branch",
    "alone",
    "augmented",
    "available",
    "blocks",
    "conv_relu_pool",
    "first_block",
    "framed_conv",
    "normalised",
    "relu_pool",
    "residual",
    "status",
    "stem",
    "takes_films",
]


def available(*names: str) -> bool:
    """Whether the compiled kernels can be used here, those of some libraries or all; builds them
    at the first call."""
    return all(library.load(name)[0] is not None for name in names or library.NAMES)


def status(*names: str) -> str:
    """One line: which kernels there are, of some libraries or all, or why there are none and what
    that costs."""
    wanted = names or library.NAMES
    library.build(wanted)
    found = {name: library.load(name) for name in wanted}
    missing = [why for loaded, why in found.values() if loaded is None]
    if not missing:
        _, what = next(iter(found.values()))
        blocks, _ = found.get("blocks", (None, ""))
        tiles = ", matrix tiles used" if blocks and blocks.matrix_tiles() else ""
        return f"fast CPU kernels: {what}{tiles}"
    cost = "paper2021 trains four to six times slower in float32, fast 1.5 times"
    return f"no fast CPU kernels: {missing[0]}; {cost}"


@contextmanager
def alone() -> Iterator[None]:
    """For a while only the kernels run in several threads, torch's own operators in one.

    Beside the kernels a training step holds small operators alone (dense layers, loss, optimiser):
    in one thread they take a millisecond or two more, but none waits at a barrier for a thread
    that a busy neighbour keeps from being scheduled. Without kernels nothing changes.
    """
    if not available("blocks") or functions.threads:
        yield
        return
    with machine.torch_threads(1) as functions.threads:
        try:
            yield
        finally:
            functions.threads = 0


def relu_pool(x: Tensor) -> Tensor:
    """ReLU of 2 × 2 max-pooling, (n, c, h, w) → (n, c, h // 2, w // 2)."""
    if (
        _usable("blocks", x)
        and x.is_contiguous(memory_format=functions.NHWC)
        and x.shape[1] % 16 == 0
    ):
        pooled: Tensor = functions.ReluPool.apply(x)
        return pooled
    return functional.relu(functional.max_pool2d(x, 2))


def conv_relu_pool(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution 3 × 3 without a frame, bias, ReLU and 2 × 2 max-pooling.

    Parameters
    ----------
    x : (n, in, h, w), h and w at least 4
    weight : (out, in, 3, 3)
    bias : (out,)

    Returns
    -------
    (n, out, (h - 2) // 2, (w - 2) // 2), of the autocast dtype where that is on, else x's
    """
    dtype = _dtype(x)
    if not (
        _usable("blocks", x, dtype)
        and _is_filter(weight, x.shape[1], min(x.shape[2:]))
        and weight.shape[1] % 32 == 0
    ):
        return relu_pool(functional.conv2d(x, weight, bias))
    block: Tensor = functions.ConvReluPool.apply(x.to(dtype), weight.float(), bias.float())
    return block


def first_block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """:func:`conv_relu_pool` of films (n, 1, h, w); the films get no gradient from the kernels,
    so films that want one are computed by torch."""
    dtype = _dtype(x)
    if not _takes_first(x, weight):
        return relu_pool(functional.conv2d(x, weight, bias))
    block: Tensor = functions.FirstConvReluPool.apply(
        x.float(), weight.float(), bias.float(), dtype
    )
    return block


def blocks(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """:func:`first_block` and, behind it, :func:`conv_relu_pool` for each further layer.

    Parameters
    ----------
    x : films (n, 1, h, w)
    layers : weight and bias of each
    """
    first, *others = layers
    side = (min(x.shape[2:]) - 2) // 2
    if others and _takes_first(x, first[0]) and _is_filter(others[0][0], first[0].shape[0], side):
        learnt = (t.float() for t in (*first, *others.pop(0)))
        x = functions.FirstTwoConvReluPool.apply(x.float(), *learnt, _dtype(x))
    else:
        x = first_block(x, *first)
    for weight, bias in others:
        x = conv_relu_pool(x, weight, bias)
    return x


def framed_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution 3 × 3 in a frame of zeros, stride 1, no bias: maps keep their size.

    Parameters
    ----------
    x : (n, in, h, w), channels last
    weight : (out, in, 3, 3), in and out multiples of 16 for the kernels
    """
    dtype = _dtype(x)
    if (
        _usable("residual", x, dtype)
        and tuple(weight.shape[1:]) == (x.shape[1], 3, 3)
        and weight.dtype in functions.NAMES
        and x.shape[1] % 16 == weight.shape[0] % 16 == 0
    ):
        y: Tensor = functions.FramedConv.apply(x.to(dtype), weight.float())
        return y
    return functional.conv2d(x, weight, padding=1)


def normalised(
    z: Tensor, norm: nn.BatchNorm2d, beside: Tensor | None = None, relu: bool = True
) -> Tensor:
    """Batch normalisation, what is added to it, and the ReLU behind: ``relu(norm(z) + beside)``.

    Parameters
    ----------
    z : (n, c, h, w) of the dtype computed in, channels last, c a multiple of 16 for the kernels
    norm : learnt, with running statistics; a network that does not train is computed by torch
    beside : like z, or None
    relu : whether negative values are cut off
    """
    if (
        norm.affine
        and norm.weight.dtype == torch.float32
        and norm.training
        and z.shape[1] % 16 == 0
        and z.numel() > z.shape[1]  # of one value torch refuses to take the variance
        and (beside is None or (beside.shape == z.shape and beside.dtype == z.dtype))
        and _dtype(z) == z.dtype
        and _usable("residual", z)
    ):
        learnt = (norm.weight, norm.bias, norm.eps)
        y, mean, variance = functions.Normalised.apply(z, beside, *learnt, relu)
        _remember(norm, mean, variance, z.numel() // z.shape[1])
        return y
    y = norm(z)
    if beside is not None:
        y = y + beside
    return functional.relu(y) if relu else y


def residual(x: Tensor, branches: Sequence[Branch], halved: bool) -> Tensor | None:
    """A residual block as one function; None where there are no kernels for it.

    With p = x, or its mean over 2 × 2 places where it is halved, that is relu(norm(conv(m)) + s),
    m = relu(norm(conv(p))), s = p or, by a third branch, norm(conv(p)).

    Parameters
    ----------
    x : (n, in, h, w)
    branches : the first convolution, the second, the one 1 × 1 around both or none
    """
    dtype = _dtype(x)
    if not (_usable("residual", x, dtype) and block.takes_residual(x, branches, halved)):
        return None
    return block.residual(x.to(dtype), branches, halved)


def stem(x: Tensor, branch: Branch) -> Tensor | None:
    """2 × 2 pixels of films into four channels, convolution, normalisation and ReLU as one
    function; None where there are no kernels for it.

    Parameters
    ----------
    x : (n, 1, h, w), h and w even
    branch : a convolution 3 × 3 of four channels in a frame of zeros
    """
    dtype = _dtype(x)
    if not (_usable("residual", x, dtype) and block.takes_stem(x, branch)):
        return None
    return block.stem(x, branch, dtype)


def takes_films(pixels: Tensor) -> bool:
    """Whether :func:`augmented` can change these."""
    return (
        pixels.device.type == "cpu"
        and pixels.dtype == torch.uint8
        and pixels.dim() == 3
        and pixels.shape[1] == pixels.shape[2]
        and pixels.numel() > 0
        and available("films")
    )


def augmented(pixels: Tensor, *drawn: Tensor | None) -> Tensor:
    """Films (n, s, s) uint8 changed as ``drawn`` says, (n, 1, s, s) float32 in 0 to 255.

    ``drawn``, float32 with a row a film, is ``hilum.training.augment.Drawn`` and the row of noise.
    """
    n, size, _ = pixels.shape
    if any(some is not None and len(some) != n for some in drawn[:-1]):
        raise ValueError(f"a row for each of {n} films is expected")
    y = torch.empty(n, 1, size, size, dtype=torch.float32, device=pixels.device)
    given = [None if some is None else some.float().contiguous() for some in drawn]
    shape = [n, size, size, 1, 1]
    functions.call("films", "augment", torch.float32, [pixels.contiguous(), *given, y], shape)
    return y


@torch.no_grad()
def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Let running statistics follow these, as torch's module does: the unbiased variance."""
    if norm.running_mean is None or norm.running_var is None:
        return
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    share = norm.momentum
    if share is None:
        share = 1.0 / float(norm.num_batches_tracked)  # type: ignore[arg-type]
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / (count - 1)), share)


def _dtype(x: Tensor) -> torch.dtype:
    """Of the result: autocast's where it is on."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _usable(name: str, x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether a library's kernels take this tensor. Tracers must see torch's own operators."""
    return (
        not (torch.jit.is_tracing() or torch.compiler.is_compiling())
        and x.device.type == "cpu"
        and {x.dtype, dtype or x.dtype} <= functions.NAMES.keys()
        and x.dim() == 4
        and x.numel() > 0
        and available(name)
    )


def _takes_first(x: Tensor, weight: Tensor) -> bool:
    """Whether there are kernels for a first block of these films, which want no gradient."""
    films = _usable("blocks", x, _dtype(x)) and x.shape[1] == 1 and not x.requires_grad
    return films and _is_filter(weight, 1, min(x.shape[2:]))


def _is_filter(weight: Tensor, channels: int, side: int) -> bool:
    """Whether ``weight`` is (out, channels, 3, 3), with 32, 64, ... filters, and a map's shorter
    side is long enough."""
    return (
        tuple(weight.shape[1:]) == (channels, 3, 3)
        and weight.shape[0] % 32 == 0
        and weight.dtype in functions.NAMES
        and weight.device.type == "cpu"
        and side >= 4
    )
