"""The programs of the GPU kernels, in Triton; ``gpu.py`` says what they compute and calls them.

Maps are channels last, so a block of places and all channels lies in one piece. A place is numbered
over the batch: film, row, column of the smaller map. Winners: 0 to 3, the place within the 2 × 2
window row by row; 4, ReLU cut it off. Sums are float32; products are of the maps' own values, in
TF32 where these are float32 (``PRECISION``). Every sum has one order.
"""

# Triton reads these functions itself; what their arguments are is said by who calls them.
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl


@triton.jit
def corners(places, height, width, rows, columns, STRIDE: tl.constexpr):
    """Index of the upper left value of each place's window in (films, height, width)."""
    film = places // (rows * columns)
    y, x = places // columns % rows, places % columns
    return (film.to(tl.int64) * height + STRIDE * y) * width + STRIDE * x


@triton.jit
def first_forward(
    x, weight, bias, y, winners, films, height, width, rows, columns,
    CHANNELS: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y, winners = pooled ReLU of a 3 × 3 convolution of one channel.

    The four convolutions of a pooled place see 4 × 4 values together: they are read once, and
    ``weight`` (4, 16, channels) holds the filters for each of the four, framed with zeros.
    """
    channel, tap = tl.arange(0, CHANNELS), tl.arange(0, 16)
    places = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    inside = places < films * rows * columns
    corner = corners(places, height, width, rows, columns, 2)
    seen = tap // 4 * width + tap % 4
    patch = tl.load(x + corner[:, None] + seen[None, :], mask=inside[:, None], other=0.0)
    at = tap[:, None] * CHANNELS + channel[None, :]
    best = tl.full((PLACES, CHANNELS), float("-inf"), tl.float32)
    winner = tl.zeros((PLACES, CHANNELS), tl.int32)
    for k in tl.static_range(4):
        filters = tl.load(weight + k * 16 * CHANNELS + at)
        found = tl.dot(patch, filters, input_precision=PRECISION)
        winner = tl.where(found > best, k, winner)
        best = tl.maximum(best, found, propagate_nan=tl.PropagateNan.ALL)
    # Once for all four: the largest sum is that of the largest product.
    best += tl.load(bias + channel).to(tl.float32)[None, :]
    dead = best <= 0
    best, winner = tl.where(dead, 0.0, best), tl.where(dead, 4, winner)
    target = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(y + target, best.to(y.dtype.element_ty), mask=inside[:, None])
    tl.store(winners + target, winner.to(tl.uint8), mask=inside[:, None])


@triton.jit
def first_backward(
    x, dy, winners, sums, offsets, films, height, width, rows, columns, turns,
    CHANNELS: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """This program's share of the gradients of a first block.

    ``sums`` (programs, 16, 4, channels): of each of the 4 × 4 values by each of the four
    convolutions. ``offsets`` (programs, channels): of the bias.
    """
    channel, tap, window = tl.arange(0, CHANNELS), tl.arange(0, 16), tl.arange(0, 4)
    seen = tap // 4 * width + tap % 4
    found = tl.zeros((16, 4 * CHANNELS), tl.float32)
    offset = tl.zeros((PLACES, CHANNELS), tl.float32)
    for turn in range(turns):
        block = tl.program_id(0) * turns + turn
        places = block * PLACES + tl.arange(0, PLACES)
        inside = places < films * rows * columns
        corner = corners(places, height, width, rows, columns, 2)
        patch = tl.load(x + corner[None, :] + seen[:, None], mask=inside[None, :], other=0.0)
        source = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        gradient = tl.load(dy + source, mask=inside[:, None], other=0.0)
        winner = tl.load(winners + source, mask=inside[:, None], other=4)
        offset += tl.where(winner < 4, gradient, 0.0).to(tl.float32)
        won = winner[:, None, :] == window[None, :, None]
        alive = tl.where(won, gradient[:, None, :], 0.0).to(gradient.dtype)
        alive = tl.reshape(alive, (PLACES, 4 * CHANNELS))
        found = tl.dot(patch, alive, found, input_precision=PRECISION)
    wide = tl.arange(0, 4 * CHANNELS)
    target = tl.program_id(0) * 64 * CHANNELS + tap[:, None] * 4 * CHANNELS + wide[None, :]
    tl.store(sums + target, found)
    tl.store(offsets + tl.program_id(0) * CHANNELS + channel, tl.sum(offset, 0))


@triton.jit
def pool_forward(
    x, bias, y, winners, films, height, width, rows, columns,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """y, winners = ReLU of 2 × 2 max-pooling of x + bias; ``WIDE``: a power of two, the channels
    or more."""
    places, channel = tl.program_id(0) * PLACES + tl.arange(0, PLACES), tl.arange(0, WIDE)
    inside = (places < films * rows * columns)[:, None] & (channel < CHANNELS)[None, :]
    corner = corners(places, height, width, rows, columns, 2)
    offset = tl.load(bias + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    best = tl.full((PLACES, WIDE), float("-inf"), tl.float32)
    winner = tl.zeros((PLACES, WIDE), tl.int32)
    for k in tl.static_range(4):
        source = (corner + (k // 2) * width + k % 2)[:, None] * CHANNELS + channel[None, :]
        found = tl.load(x + source, mask=inside, other=0.0).to(tl.float32) + offset[None, :]
        found = found.to(y.dtype.element_ty).to(tl.float32)
        better = (found > best) | (found != found)
        best, winner = tl.where(better, found, best), tl.where(better, k, winner)
    dead = best <= 0
    best, winner = tl.where(dead, 0.0, best), tl.where(dead, 4, winner)
    target = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(y + target, best.to(y.dtype.element_ty), mask=inside)
    tl.store(winners + target, winner.to(tl.uint8), mask=inside)


@triton.jit
def pool_backward(
    dy, winners, dx, offsets, films, height, width, rows, columns, turns,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """dx: each window's gradient at its winner, zero elsewhere in the window; ``offsets``
    (programs, channels): this program's share of the bias's gradient."""
    channel = tl.arange(0, WIDE)
    offset = tl.zeros((PLACES, WIDE), tl.float32)
    for turn in range(turns):
        block = tl.program_id(0) * turns + turn
        places = block * PLACES + tl.arange(0, PLACES)
        inside = (places < films * rows * columns)[:, None] & (channel < CHANNELS)[None, :]
        corner = corners(places, height, width, rows, columns, 2)
        source = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        gradient = tl.load(dy + source, mask=inside, other=0.0).to(tl.float32)
        winner = tl.load(winners + source, mask=inside, other=4)
        offset += tl.where(winner < 4, gradient, 0.0)
        for k in tl.static_range(4):
            target = (corner + (k // 2) * width + k % 2)[:, None] * CHANNELS + channel[None, :]
            value = tl.where(winner == k, gradient, 0.0).to(dx.dtype.element_ty)
            tl.store(dx + target, value, mask=inside)
    sums = offsets + tl.program_id(0) * CHANNELS + channel
    tl.store(sums, tl.sum(offset, 0), mask=channel < CHANNELS)


@triton.jit
def weight_backward(
    x, dy, sums, films, height, width, rows, columns, turns,
    INPUTS: tl.constexpr, OUT: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """This program's share of the gradient of a 3 × 3 convolution's weights: ``sums``
    (programs, 3, 4 · inputs, out), a row of taps after the other.

    The three taps of a row lie side by side in memory, so each row is one product; its fourth
    quarter is nought, since sides of a block are powers of two.
    """
    out, wide = tl.arange(0, OUT), tl.arange(0, 4 * INPUTS)
    upper = tl.zeros((4 * INPUTS, OUT), tl.float32)
    middle, lower = upper, upper
    for turn in range(turns):
        block = tl.program_id(0) * turns + turn
        places = block * PLACES + tl.arange(0, PLACES)
        inside = places < films * rows * columns
        source = places.to(tl.int64)[:, None] * OUT + out[None, :]
        gradient = tl.load(dy + source, mask=inside[:, None], other=0.0)
        corner = corners(places, height, width, rows, columns, 1)
        seen = corner[:, None] * INPUTS + wide[None, :]
        used = inside[:, None] & (wide < 3 * INPUTS)[None, :]
        values = tl.load(x + seen, mask=used, other=0.0)
        upper = tl.dot(tl.trans(values), gradient, upper, input_precision=PRECISION)
        values = tl.load(x + seen + width * INPUTS, mask=used, other=0.0)
        middle = tl.dot(tl.trans(values), gradient, middle, input_precision=PRECISION)
        values = tl.load(x + seen + 2 * width * INPUTS, mask=used, other=0.0)
        lower = tl.dot(tl.trans(values), gradient, lower, input_precision=PRECISION)
    whole: tl.constexpr = 4 * INPUTS * OUT
    target = sums + tl.program_id(0) * 3 * whole + wide[:, None] * OUT + out[None, :]
    tl.store(target, upper)
    tl.store(target + whole, middle)
    tl.store(target + 2 * whole, lower)


@triton.jit
def tap(
    found, gradient, x, corner, inside, places, INPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``found`` (out, inputs) and what one tap of a 3 × 3 convolution adds to it."""
    source = (corner + places)[:, None] * INPUTS + tl.arange(0, INPUTS)[None, :]
    values = tl.load(x + source, mask=inside[:, None], other=0.0)
    return tl.dot(gradient, values, found, input_precision=PRECISION)


@triton.jit
def weight_backward_by_tap(
    x, dy, sums, films, height, width, rows, columns, turns,
    INPUTS: tl.constexpr, OUT: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The same as ``weight_backward``, tap by tap, which is quicker in float32: ``sums``
    (programs, 9, out, inputs)."""
    out, inputs = tl.arange(0, OUT), tl.arange(0, INPUTS)
    a = tl.zeros((OUT, INPUTS), tl.float32)
    b, c, d, e, f, g, h, i = a, a, a, a, a, a, a, a
    for turn in range(turns):
        block = tl.program_id(0) * turns + turn
        places = block * PLACES + tl.arange(0, PLACES)
        inside = places < films * rows * columns
        at = corners(places, height, width, rows, columns, 1)
        source = places.to(tl.int64)[None, :] * OUT + out[:, None]
        gradient = tl.load(dy + source, mask=inside[None, :], other=0.0)
        a = tap(a, gradient, x, at, inside, 0, INPUTS, PRECISION)
        b = tap(b, gradient, x, at, inside, 1, INPUTS, PRECISION)
        c = tap(c, gradient, x, at, inside, 2, INPUTS, PRECISION)
        d = tap(d, gradient, x, at, inside, width, INPUTS, PRECISION)
        e = tap(e, gradient, x, at, inside, width + 1, INPUTS, PRECISION)
        f = tap(f, gradient, x, at, inside, width + 2, INPUTS, PRECISION)
        g = tap(g, gradient, x, at, inside, 2 * width, INPUTS, PRECISION)
        h = tap(h, gradient, x, at, inside, 2 * width + 1, INPUTS, PRECISION)
        i = tap(i, gradient, x, at, inside, 2 * width + 2, INPUTS, PRECISION)
    whole: tl.constexpr = OUT * INPUTS
    target = sums + tl.program_id(0) * 9 * whole + out[:, None] * INPUTS + inputs[None, :]
    tl.store(target, a)
    tl.store(target + whole, b)
    tl.store(target + 2 * whole, c)
    tl.store(target + 3 * whole, d)
    tl.store(target + 4 * whole, e)
    tl.store(target + 5 * whole, f)
    tl.store(target + 6 * whole, g)
    tl.store(target + 7 * whole, h)
    tl.store(target + 8 * whole, i)


@triton.jit
def placed(films, affine, moved, side, PIXELS: tl.constexpr):
    """Films sampled bilinearly where ``affine`` (films, 6) says, as ``hilum.training.augment``
    defines it; beyond the border the nearest pixel."""
    film = tl.program_id(1)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < side * side
    row, column = (pixel // side).to(tl.float32), (pixel % side).to(tl.float32)
    down, across = (row + 0.5) * (2 / side) - 1, (column + 0.5) * (2 / side) - 1
    a = affine + film * 6
    x = tl.load(a) * across + tl.load(a + 1) + tl.load(a + 2) * down
    y = tl.load(a + 3) * across + tl.load(a + 4) + tl.load(a + 5) * down
    last = (side - 1).to(tl.float32)
    x = tl.minimum(tl.maximum(((x + 1) * side - 1) * 0.5, 0.0), last)
    y = tl.minimum(tl.maximum(((y + 1) * side - 1) * 0.5, 0.0), last)
    left, top = tl.floor(x), tl.floor(y)
    wide, high = x - left, y - top
    left, top = left.to(tl.int32), top.to(tl.int32)
    right, below = tl.minimum(left + 1, side - 1), tl.minimum(top + 1, side - 1)
    source = films + film.to(tl.int64) * side * side
    upper = _between(source, top * side + left, top * side + right, wide, inside)
    lower = _between(source, below * side + left, below * side + right, wide, inside)
    target = moved + film.to(tl.int64) * side * side + pixel
    tl.store(target, upper + (lower - upper) * high, mask=inside)


@triton.jit
def _between(source, one, other, share, inside):
    a = tl.load(source + one, mask=inside, other=0).to(tl.float32)
    b = tl.load(source + other, mask=inside, other=0).to(tl.float32)
    return a + (b - a) * share
