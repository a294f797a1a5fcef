"""Sizes, parameters and work of a convolutional network, before one exists.

The three rules of section 3.2 of the paper (output size, "same" padding, convolution over
volume) and what follows from them: a network as a tuple of layers, and its table. Plain Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from hilum.errors import UsageError

Shape = tuple[int, ...]
"""(channels, rows, columns) of a feature map, or (features,) of a vector."""


def n_out(n_in: int, f: int, s: int = 1, p: int = 0) -> int:
    """Side of a feature map: ``floor((n_in + 2p - f) / s + 1)``.

    The square brackets of the paper's formula are the floor: a filter that would hang over the
    edge is not applied.

    Parameters
    ----------
    n_in : side of the input in pixels
    f : side of the filter
    s : step of the filter
    p : width of the frame of zeros

    Raises
    ------
    ValueError
        The filter is larger than the framed input, or a number makes no sense.

    Examples
    --------
    >>> n_out(500, f=3)
    498
    >>> n_out(249, f=2, s=2)
    124
    """
    if min(n_in, f, s) < 1 or p < 0:
        raise ValueError(f"no such layer: n_in={n_in}, f={f}, s={s}, p={p}")
    if f > n_in + 2 * p:
        raise ValueError(f"a filter of {f} does not fit into {n_in} pixels with a frame of {p}")
    return (n_in + 2 * p - f) // s + 1


def same_padding(f: int, s: int = 1) -> int:
    """Frame that keeps the size: ``p = (f - 1) / 2``.

    The paper's rule holds for odd filters and a step of 1; nothing else has one frame that fits
    on both sides.

    Raises
    ------
    ValueError
        ``f`` is even or ``s`` is not 1.

    Examples
    --------
    >>> same_padding(3), same_padding(5)
    (1, 2)
    """
    if f < 1 or f % 2 == 0:
        raise ValueError(f"the same size needs an odd filter: f={f}")
    if s != 1:
        raise ValueError(f"the same size needs a step of 1: s={s}")
    return (f - 1) // 2


def volume(image: Shape, filters: Shape, s: int = 1, p: int = 0) -> Shape:
    """Convolution over volume: ``[n, n, n_c] * [f, f, n_c]`` with ``n_f`` filters.

    Channels come first here, as in torch; the paper writes them last.

    Parameters
    ----------
    image : (n_c, rows, columns)
    filters : (n_f, n_c, f, f)

    Returns
    -------
    (n_f, rows, columns) of the result

    Raises
    ------
    ValueError
        The channels of image and filter differ, or the filter does not fit.

    Examples
    --------
    >>> volume((3, 32, 32), (16, 3, 5, 5))
    (16, 28, 28)
    """
    if image[0] != filters[1]:
        raise ValueError(f"an image of {image[0]} channels and filters of {filters[1]}")
    rows, columns = (n_out(n, f, s, p) for n, f in zip(image[1:], filters[2:], strict=True))
    return (filters[0], rows, columns)


@dataclass(frozen=True)
class Convolution:
    """``filters`` square filters of side ``size`` with a bias each, then ReLU."""

    name: str
    filters: int
    size: int = 3
    step: int = 1
    padding: int = 0


@dataclass(frozen=True)
class MaxPooling:
    """The largest of each ``size`` × ``size`` region, regions side by side."""

    name: str
    size: int = 2


@dataclass(frozen=True)
class Flatten:
    """A feature map as a vector: channel by channel, row by row."""

    name: str = "flatten"


@dataclass(frozen=True)
class Dense:
    """``units`` sums over all inputs, each with a bias; ReLU behind all but the last."""

    name: str
    units: int


Description = tuple[Convolution | MaxPooling | Flatten | Dense, ...]


def paper_network(
    filters: Sequence[int] = (32, 32, 32, 64, 64), units: Sequence[int] = (128, 64)
) -> Description:
    """Figure 4 of the paper: blocks of convolution and pooling, then dense layers to one output.

    Parameters
    ----------
    filters : of each block's convolution
    units : of each hidden dense layer

    Other numbers than the paper's make a smaller network of the same kind, for tests.
    """
    blocks = [
        layer
        for i, count in enumerate(filters, 1)
        for layer in (Convolution(f"conv{i}", count), MaxPooling(f"pool{i}"))
    ]
    dense = [Dense(f"dense{i}", count) for i, count in enumerate((*units, 1), 1)]
    return (*blocks, Flatten(), *dense)


@dataclass(frozen=True)
class Layer:
    """One row of a layer table.

    Attributes
    ----------
    name, kind : of the layer
    shape : what comes out for one film
    parameters : weights and biases
    multiply_adds : of one film on the way forward
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    multiply_adds: int


def layer_table(description: Description, size: int, channels: int = 1) -> list[Layer]:
    """Every layer of a network for films of ``size`` × ``size`` pixels.

    Raises
    ------
    UsageError
        The films are too small; the first layer that has no room is named, and the least size.

    Examples
    --------
    >>> rows = layer_table(paper_network(), 500)
    >>> sum(row.parameters for row in rows)
    1467137
    """
    try:
        return _rows(description, size, channels)
    except _NoRoom as error:
        least = size + 1
        while not _fits(description, least, channels):
            least += 1
        raise UsageError(
            f"films of {size} × {size} pixels are too small for the network: {error} has no room. "
            f"Use {least} or more."
        ) from None


class _NoRoom(Exception):
    """The name of the layer that its input does not fill."""


def _fits(description: Description, size: int, channels: int) -> bool:
    try:
        return bool(_rows(description, size, channels))
    except _NoRoom:
        return False


def _rows(description: Description, size: int, channels: int) -> list[Layer]:
    shape: Shape = (channels, size, size)
    rows = [Layer("films", "input", shape, 0, 0)]
    for layer in description:
        parameters = work = 0
        try:
            if isinstance(layer, Convolution):
                weights = (layer.filters, shape[0], layer.size, layer.size)
                shape = volume(shape, weights, layer.step, layer.padding)
                parameters = prod(weights) + layer.filters
                work = prod(shape) * prod(weights[1:])
                kind = f"convolution {layer.size}×{layer.size}, ReLU"
            elif isinstance(layer, MaxPooling):
                side = layer.size
                shape = (shape[0], *(n_out(n, side, side) for n in shape[1:]))
                kind = f"max-pooling {side}×{side}"
            elif isinstance(layer, Flatten):
                shape = (prod(shape),)
                kind = "flatten"
            else:
                work = shape[0] * layer.units
                parameters = work + layer.units
                shape = (layer.units,)
                kind = "dense, sigmoid" if layer is description[-1] else "dense, ReLU"
        except ValueError:
            raise _NoRoom(layer.name) from None
        rows.append(Layer(layer.name, kind, shape, parameters, work))
    return rows


def parameter_shapes(description: Description, size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights and biases, in order, as torch names and shapes them."""
    shapes: dict[str, tuple[int, ...]] = {}
    table = layer_table(description, size)
    for layer, before in zip(description, table, strict=False):
        if isinstance(layer, Convolution):
            weights: Shape = (layer.filters, before.shape[0], layer.size, layer.size)
        elif isinstance(layer, Dense):
            weights = (layer.units, before.shape[0])
        else:
            continue
        shapes[f"{layer.name}.weight"] = weights
        shapes[f"{layer.name}.bias"] = weights[:1]
    return shapes


def fans(weights: Shape) -> tuple[int, int]:
    """Inputs and outputs that one weight's neuron sees, over the receptive field, as Keras
    counts them for its Glorot initialisation.

    Examples
    --------
    >>> fans((32, 1, 3, 3)), fans((128, 10816))
    ((9, 288), (10816, 128))
    """
    field = prod(weights[2:])
    return weights[1] * field, weights[0] * field


def text(table: Sequence[Layer]) -> str:
    """The table for people: one line a layer, totals below.

    Examples
    --------
    >>> print(text(layer_table(paper_network(filters=(4,), units=(3,)), 8)))
    layer   kind                   output     parameters  multiply-adds
    films   input                  1 × 8 × 8           –              –
    conv1   convolution 3×3, ReLU  4 × 6 × 6          40          1,296
    pool1   max-pooling 2×2        4 × 3 × 3           –              –
    flatten flatten                36                  –              –
    dense1  dense, ReLU            3                 111            108
    dense2  dense, sigmoid         1                   4              3
    total                                            155          1,407
    """

    def number(value: int) -> str:
        return f"{value:,}" if value else "–"

    cells = [("layer", "kind", "output", "parameters", "multiply-adds")]
    cells += [
        (
            row.name,
            row.kind,
            " × ".join(f"{n:,}" for n in row.shape),
            number(row.parameters),
            number(row.multiply_adds),
        )
        for row in table
    ]
    parameters, work = sum(r.parameters for r in table), sum(r.multiply_adds for r in table)
    cells.append(("total", "", "", number(parameters), number(work)))
    width = [max(len(row[i]) for row in cells) for i in range(5)]
    lines = (
        f"{a:<{width[0]}} {b:<{width[1]}}  {c:<{width[2]}}  {d:>{width[3]}}  {e:>{width[4]}}"
        for a, b, c, d, e in cells
    )
    return "\n".join(lines)
