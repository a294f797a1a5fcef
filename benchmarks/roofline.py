"""What a training step of the paper's network has to compute and to move, and what is reached.

Plain counts, no machine: operations of the sums as they are written down, and the bytes that cross
the GPU's memory if every map is written once by who makes it and read once by each who needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hilum.networks.arithmetic import Convolution, layer_table, paper_network

SIZE, BATCH = 500, 16
FLOAT32, BFLOAT16 = 4, 2


def gflop_a_step(batch: int = BATCH, size: int = SIZE) -> float:
    """10⁹ operations forward and backward."""
    return sum(gflop_by_part(batch, size).values())


def gflop_by_part(batch: int = BATCH, size: int = SIZE) -> dict[str, float]:
    """Those of ``convolution`` and ``dense``; the first layer's films want no gradient."""
    table = [layer for layer in layer_table(paper_network(), size) if layer.multiply_adds]
    passes = [2, *[3] * (len(table) - 1)]  # forward, to the weights, to the input
    found = {"convolution": 0.0, "dense": 0.0}
    for layer, count in zip(table, passes, strict=True):
        part = "dense" if layer.kind.startswith("dense") else "convolution"
        found[part] += 2 * batch * count * layer.multiply_adds / 1e9
    return found


def gigabytes_a_step(
    width: int, batch: int = BATCH, size: int = SIZE, *, own: bool = True
) -> float:
    """10⁹ bytes of maps, forward and backward.

    A convolution's map: written, read by pooling; its gradient: written by pooling, read twice (for
    the input, for the weights). The pooled map: written, read by the next convolution forward and
    for its weights' gradient; its gradient: written and read. Films: float32, written, read twice.
    Weights and the optimiser are small beside that and left out.

    Parameters
    ----------
    width : bytes of a value: 4, or 2 in bfloat16
    own : with hilum's kernels: the first block's map stays in registers, a winner takes one byte;
        without, ReLU reads and writes the pooled map once more and winners take eight
    """
    described = paper_network()
    convolutions = [layer for layer in described if isinstance(layer, Convolution)]
    total, side = 3.0 * FLOAT32 * size**2, size
    for number, layer in enumerate(convolutions):
        side = side - layer.size + 1
        full, pooled = layer.filters * side**2, layer.filters * (side // 2) ** 2
        fused = own and number == 0
        total += 0 if fused else 5 * width * full  # map 2, gradient 3
        total += 5 * width * pooled  # map 3, gradient 2
        total += 2 * pooled * (1 if own else 8)  # winners
        total += 0 if own else 5 * width * pooled  # ReLU: reads 1 + 2, writes 1 + 1
        side //= 2
    return batch * total / 1e9


@dataclass(frozen=True)
class Limits:
    """What the device reaches at best, measured in the same run.

    Attributes
    ----------
    tflops : 10¹² operations a second of large matrix products in the step's precision
    gigabytes : 10⁹ bytes a second of a large copy, read and written counted
    """

    tflops: float
    gigabytes: float


def shares(ms: float, limits: Limits, gflop: float, gigabytes: float) -> dict[str, float | str]:
    """How far a step of ``ms`` is from either limit, and from the one that binds.

    Returns
    -------
    ``tensor_cores`` and ``bandwidth``, the times at each limit over ``ms``; ``limit_ms``, the
    larger of the two times; ``of_limit``, that over ``ms``; ``bound_by``, its name
    """
    compute, memory = gflop / limits.tflops, 1e3 * gigabytes / limits.gigabytes
    least = max(compute, memory)
    return {
        "tensor_cores": round(compute / ms, 4),
        "bandwidth": round(memory / ms, 4),
        "limit_ms": round(least, 4),
        "of_limit": round(least / ms, 4),
        "bound_by": "tensor cores" if compute > memory else "bandwidth",
    }
