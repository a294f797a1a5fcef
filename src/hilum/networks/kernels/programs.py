"""The programs of the GPU kernels, in Triton; ``gpu.py`` says what they compute and calls them.

Maps are channels last, so a block of pooled places and all channels lies in one piece. A place is
numbered over the batch: film, row, column of the pooled map. Winners: 0 to 3, the place within the
2 × 2 window row by row; 4, ReLU cut it off. All is computed in float32, which holds bfloat16
exactly; so does TF32 (``PRECISION``), by which its products reach the tensor cores.
"""

# Triton reads these functions itself; what their arguments are is said by who calls them.
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl


@triton.jit
def corners(places, height, width, rows, columns):
    """Index of the upper left value of each place's window in (films, height, width)."""
    film = places // (rows * columns)
    y, x = places // columns % rows, places % columns
    return (film.to(tl.int64) * height + 2 * y) * width + 2 * x


@triton.jit
def first_forward(
    x, weight, bias, y, winners, films, height, width, rows, columns,
    CHANNELS: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y, winners = pooled ReLU of a 3 × 3 convolution of one channel; ``weight`` (channels, 9)."""
    places = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    channel, tap = tl.arange(0, CHANNELS), tl.arange(0, 16)  # nine taps, framed to sixteen
    inside = places < films * rows * columns
    corner = corners(places, height, width, rows, columns)
    filters = tl.load(
        weight + channel[None, :] * 9 + tap[:, None], mask=tap[:, None] < 9, other=0.0
    ).to(tl.float32)
    offset = tl.load(bias + channel).to(tl.float32)
    best = tl.full((PLACES, CHANNELS), float("-inf"), tl.float32)
    winner = tl.zeros((PLACES, CHANNELS), tl.int32)
    for k in tl.static_range(4):
        taps = (k // 2 + tap // 3) * width + k % 2 + tap % 3
        patch = tl.load(
            x + corner[:, None] + taps[None, :],
            mask=inside[:, None] & (tap[None, :] < 9),
            other=0.0,
        ).to(tl.float32)
        found = tl.dot(patch, filters, input_precision=PRECISION) + offset[None, :]
        # Rounded as the map would be, so that what is equal there is equal here: the first wins.
        found = found.to(y.dtype.element_ty).to(tl.float32)
        better = (found > best) | (found != found)
        best, winner = tl.where(better, found, best), tl.where(better, k, winner)
    dead = best <= 0
    best, winner = tl.where(dead, 0.0, best), tl.where(dead, 4, winner)
    target = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(y + target, best.to(y.dtype.element_ty), mask=inside[:, None])
    tl.store(winners + target, winner.to(tl.uint8), mask=inside[:, None])


@triton.jit
def first_backward(
    x, dy, winners, sums, films, height, width, rows, columns, turns,
    CHANNELS: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """This program's share of the gradients: ``sums`` (programs, 16, channels), row 9 the bias's.

    Each program adds up places in their order and ``gpu.py`` the programs', so the sum is always
    the same one. ``turns`` : blocks of places of one program.
    """
    channel, tap = tl.arange(0, CHANNELS), tl.arange(0, 16)
    found = tl.zeros((16, CHANNELS), tl.float32)
    for turn in range(turns):
        block = tl.program_id(0) * turns + turn
        places = block * PLACES + tl.arange(0, PLACES)
        inside = places < films * rows * columns
        corner = corners(places, height, width, rows, columns)
        source = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        gradient = tl.load(dy + source, mask=inside[:, None], other=0.0).to(tl.float32)
        winner = tl.load(winners + source, mask=inside[:, None], other=4)
        for k in tl.static_range(4):
            taps = (k // 2 + tap // 3) * width + k % 2 + tap % 3
            patch = tl.load(
                x + corner[None, :] + taps[:, None],
                mask=inside[None, :] & (tap[:, None] < 9),
                other=0.0,
            ).to(tl.float32)
            patch = tl.where(tap[:, None] == 9, 1.0, patch)
            alive = tl.where(winner == k, gradient, 0.0)
            found = tl.dot(patch, alive, found, input_precision=PRECISION)
    target = tl.program_id(0) * 16 * CHANNELS + tap[:, None] * CHANNELS + channel[None, :]
    tl.store(sums + target, found)


@triton.jit
def pool_forward(
    x, y, winners, films, height, width, rows, columns,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """y, winners = ReLU of 2 × 2 max-pooling; ``WIDE``: a power of two, the channels or more."""
    places, channel = tl.program_id(0) * PLACES + tl.arange(0, PLACES), tl.arange(0, WIDE)
    inside = (places < films * rows * columns)[:, None] & (channel < CHANNELS)[None, :]
    corner = corners(places, height, width, rows, columns)
    best = tl.full((PLACES, WIDE), float("-inf"), tl.float32)
    winner = tl.zeros((PLACES, WIDE), tl.int32)
    for k in tl.static_range(4):
        source = (corner + (k // 2) * width + k % 2)[:, None] * CHANNELS + channel[None, :]
        found = tl.load(x + source, mask=inside, other=0.0).to(tl.float32)
        better = (found > best) | (found != found)
        best, winner = tl.where(better, found, best), tl.where(better, k, winner)
    dead = best <= 0
    best, winner = tl.where(dead, 0.0, best), tl.where(dead, 4, winner)
    target = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(y + target, best.to(y.dtype.element_ty), mask=inside)
    tl.store(winners + target, winner.to(tl.uint8), mask=inside)


@triton.jit
def pool_backward(
    dy, winners, dx, films, height, width, rows, columns,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """dx: each window's gradient at its winner, zero elsewhere in the window."""
    places, channel = tl.program_id(0) * PLACES + tl.arange(0, PLACES), tl.arange(0, WIDE)
    inside = (places < films * rows * columns)[:, None] & (channel < CHANNELS)[None, :]
    corner = corners(places, height, width, rows, columns)
    source = places.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    gradient = tl.load(dy + source, mask=inside, other=0.0).to(tl.float32)
    winner = tl.load(winners + source, mask=inside, other=4)
    for k in tl.static_range(4):
        target = (corner + (k // 2) * width + k % 2)[:, None] * CHANNELS + channel[None, :]
        value = tl.where(winner == k, gradient, 0.0).to(dx.dtype.element_ty)
        tl.store(dx + target, value, mask=inside)
