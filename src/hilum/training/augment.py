"""Augmentation by batches, a function of (seed, epoch, film) alone.

Whatever a film's augmentation is drawn from is a hash of the seed, the epoch and the film's own
number, so it depends neither on the batch nor on the place in it, nor on processes or devices.
Positions run from -1 to 1 over the film, grey values from 0 to 1, and a draw ``u`` is uniform.

:func:`draw` says what happens to each film, by small tensors; the films themselves are changed by
a kernel where there are some for this processor, else by torch, transform by transform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hilum.networks import kernels
from hilum.networks.kernels import gpu

# Shares of films that are blurred, sharpened, and have a rectangle cut out, where a recipe asks.
BLURRED, SHARPENED, CUT = 0.3, 0.2, 0.6
NOISE = 1 << 20
MOST = 1000  # of any strength


@dataclass(frozen=True)
class Augmentation:
    """How strongly films are changed; all zero: not at all.

    Attributes
    ----------
    flip : half of the films mirrored left to right
    rotation : degrees, at most, either way
    zoom : share by which each axis is scaled, independently: 1 - zoom to 1 + zoom
    stretch : share by which the width, and inversely the height, is scaled: 1 / (1 + stretch) to
        1 + stretch, evenly in the logarithm
    shift : share of the side, each axis
    shear : degrees, at most, either way
    blur : largest standard deviation of a Gaussian, in pixels of a film of 128
    sharpen : largest amount of unsharp masking
    gamma : exponents from 1 / (1 + gamma) to 1 + gamma, evenly in the logarithm
    contrast : factors about the film's mean, from 1 / (1 + contrast) to 1 + contrast, likewise,
        with the mean moved by up to 0.3 · contrast
    field : strength of smooth fields of contrast and brightness across the film
    noise : largest standard deviation, of a full scale of 1
    cutout : a rectangle of one grey, each side 0.1 to 0.1 + 0.5 · cutout of the film's
    """

    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    field: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= MOST:
                raise ValueError(f"{name} = {value}: 0 to {MOST} is expected")
        if self.zoom >= 1:
            raise ValueError(f"zoom = {self.zoom}: less than 1 is expected")


def augment(
    pixels: Tensor, films: Tensor, seed: int, epoch: int, augmentation: Augmentation
) -> Tensor:
    """Augmented copies of a batch.

    Parameters
    ----------
    pixels : (n, s, s) uint8
    films : (n,) int64, a number of each film's own
    seed, epoch : whole numbers, not negative

    Returns
    -------
    (n, 1, s, s) float32 in 0 to 255
    """
    return changed(pixels, draw(films, seed, epoch, augmentation, pixels.shape[-1]), seed)


def changed(pixels: Tensor, drawn: Drawn, seed: int) -> Tensor:
    """Films (n, s, s) uint8 as their draws say, (n, 1, s, s) float32 in 0 to 255.

    Nothing here waits for a GPU or hands it a number from the host, so that a CUDA graph can hold
    it: constants are computed where they are used, and on a GPU no film is picked by its draw.
    """
    if kernels.takes_films(pixels):
        noise = drawn.noise is not None
        row = noise_row(pixels.shape[1] ** 2, seed, pixels.device) if noise else None
        return kernels.augmented(pixels, *drawn, row)
    x = pixels.float() if drawn.affine is None else _placed(pixels, drawn.affine)
    if all(one is None for one in drawn[1:]):
        return x[:, None]
    x = x.div_(255)
    if drawn.sharpness is not None:
        x = _sharpness(x, drawn.sharpness)
    if drawn.gamma is not None:
        x = x.clamp_(1e-3, 1).pow_(drawn.gamma[:, None])
    if drawn.contrast is not None:
        x = _contrast(x, drawn.contrast, drawn.field)
    if drawn.noise is not None:
        x = _noise(x, drawn.noise, seed)
    if drawn.cutout is not None:
        x = _cutout(x, drawn.cutout)
    return x.clamp_(0, 1).mul_(255)[:, None]


# --- draws --------------------------------------------------------------------------------------

_GOLDEN = 0x9E3779B97F4A7C15


def uniform(films: Tensor, draws: int, seed: int, epoch: int, stream: int = 0) -> Tensor:
    """(n, draws) float32, 0 to 1: a hash of film, draw, seed, epoch and stream (< 16).

    Counters mixed by the finaliser of SplitMix64 (Steele 2014), in whole numbers alone, so the
    same on every device.
    """
    # Products of int64 tensors wrap around as those of 64 bits do.
    key = _mix(films + _signed(_GOLDEN * (seed + 1)))
    key = _mix(key + _signed(_GOLDEN * (16 * epoch + stream + 1)))
    steps = torch.arange(1, draws + 1, device=films.device) * _signed(_GOLDEN)
    bits = _mix(key[:, None] + steps)
    return _shifted(bits, 40).float() * 2.0**-24 + 2.0**-25


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Logical shift to the right of int64."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    """64 bits as torch's int64 holds them."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def either_way(u: Tensor) -> Tensor:
    """-1 to 1."""
    return u * 2 - 1


def _factor(u: Tensor, strength: float) -> Tensor:
    """1 / (1 + strength) to 1 + strength, evenly in the logarithm."""
    return torch.exp(either_way(u) * math.log1p(strength))


class Drawn(NamedTuple):
    """What is done to each film, float32; None where a recipe leaves it out."""

    #: (n, 6) where a pixel of the result lies in the film: across = a · column + b + c · row, then
    #: down likewise.
    affine: Tensor | None
    #: (n, 2) standard deviation of a Gaussian, in pixels, and how much of the film becomes its
    #: blur: 0 nothing, 1 all, less than 0 unsharp masking.
    sharpness: Tensor | None
    #: (n, 1) exponent.
    gamma: Tensor | None
    #: (n, 2) factor about the mean, and by how much the mean is moved.
    contrast: Tensor | None
    #: (n, 18) weights of 3 × 3 products of cosines: for the logarithm of contrast, for brightness.
    field: Tensor | None
    #: (n, 2) where in the row of noise a film's begins, and its standard deviation.
    noise: Tensor | None
    #: (n, 6) half the width and height of a rectangle, its middle by column and row, 1 where there
    #: is one, its grey.
    cutout: Tensor | None

    def of(self, films: Tensor) -> Drawn:
        """Those of the films at these indices (k,)."""
        return Drawn(*(None if drawn is None else drawn[films] for drawn in self))


def draw(films: Tensor, seed: int, epoch: int, a: Augmentation, size: int) -> Drawn:
    """What the numbers of films (n,) say for films of ``size``."""
    u = uniform(films, 24, seed, epoch)
    moves = a.flip or a.rotation or a.zoom or a.stretch or a.shift or a.shear
    return Drawn(
        affine=_affine(u[:, :8], a) if moves else None,
        sharpness=_sharpened(u[:, 8:10], a, size / 128) if a.blur or a.sharpen else None,
        gamma=_factor(u[:, 10:11], a.gamma) if a.gamma else None,
        contrast=torch.stack(
            [_factor(u[:, 11], a.contrast), either_way(u[:, 12]) * (0.3 * a.contrast)], 1
        )
        if a.contrast or a.field
        else None,
        field=either_way(uniform(films, 18, seed, epoch, stream=1)) * (_fall(u.device) * a.field)
        if a.field
        else None,
        noise=torch.stack([(u[:, 13] * NOISE).floor(), u[:, 14] ** 2 * a.noise], 1)
        if a.noise
        else None,
        cutout=_rectangle(u[:, 15:21], a.cutout) if a.cutout else None,
    )


def _affine(u: Tensor, a: Augmentation) -> Tensor:
    angle, shear = (
        either_way(u[:, k]) * math.radians(d) for k, d in ((0, a.rotation), (4, a.shear))
    )
    stretch = _factor(u[:, 3], a.stretch)
    wide = (1 + either_way(u[:, 1]) * a.zoom) * stretch
    high = (1 + either_way(u[:, 2]) * a.zoom) / stretch
    if a.flip:
        wide = torch.where(u[:, 7] < 0.5, -wide, wide)
    across, down = (2 * a.shift * either_way(u[:, k]) for k in (5, 6))
    turned = angle + shear
    return torch.stack(
        [
            *(angle.cos() * wide, across, turned.sin() * -wide),
            *(angle.sin() * high, down, turned.cos() * high),
        ],
        1,
    )


def _sharpened(u: Tensor, a: Augmentation, pixel: float) -> Tensor:
    """Some films are blurred, others sharpened."""
    blur, sharpen = u[:, 0] < BLURRED * (a.blur > 0), u[:, 0] > 1 - SHARPENED * (a.sharpen > 0)
    sigma = torch.where(blur, 0.3 + u[:, 1] * (a.blur * pixel), 0.6 + u[:, 1] * (1.2 * pixel))
    return torch.stack([sigma, blur.float() - sharpen * (u[:, 1] * a.sharpen)], 1)


@cache
def _fall(device: torch.device) -> Tensor:
    """How strong each product of waves is."""
    fall = [1, 1, 0.7, 1, 0.7, 0.5, 0.7, 0.5, 0.4]
    return torch.tensor([*fall, *fall], device=device)


def _rectangle(u: Tensor, strength: float) -> Tensor:
    half = 0.1 + 0.5 * strength * u[:, 1:3]
    return torch.cat([half, either_way(u[:, 3:5]), (u[:, :1] < CUT).float(), u[:, 5:]], 1)


# --- transforms ---------------------------------------------------------------------------------


def _positions(size: int, device: torch.device) -> Tensor:
    """Centres of pixels along one axis, (size,) in -1 to 1."""
    return (torch.arange(size, device=device) + 0.5) * (2 / size) - 1


def _placed(pixels: Tensor, affine: Tensor) -> Tensor:
    return (
        gpu.placed(pixels, affine) if gpu.takes_films(pixels) else sampled(pixels.float(), affine)
    )


def sampled(x: Tensor, affine: Tensor) -> Tensor:
    """One affine map a film, sampled bilinearly; beyond the border the nearest pixel."""
    p = _positions(x.shape[-1], x.device)
    grid = x.new_empty(*x.shape, 2)
    for axis in (0, 1):
        by_column, alone, by_row = affine[:, 3 * axis : 3 * axis + 3, None].unbind(1)
        columns, rows = by_column * p + alone, by_row * p
        torch.add(columns[:, None], rows[:, :, None], out=grid[..., axis])
    return functional.grid_sample(x[:, None], grid, padding_mode="border", align_corners=False)[
        :, 0
    ]


def _sharpness(x: Tensor, drawn: Tensor) -> Tensor:
    """Gaussian blur of some films, unsharp masking of others, by one matrix a film."""
    changed = drawn[:, 1] != 0
    if _runs_ahead(x):  # to pick films it would have to be told which: all are computed
        return torch.where(changed[:, None, None], _masked(x, drawn), x)
    some = changed.nonzero()[:, 0]
    return x.index_copy(0, some, _masked(x[some], drawn[some]))


def _runs_ahead(x: Tensor) -> bool:
    """Whether the host goes on while this is computed: on a GPU it must not ask for values."""
    return x.is_cuda


def _masked(x: Tensor, drawn: Tensor) -> Tensor:
    sigma, amount = drawn[:, 0, None], drawn[:, 1, None, None]
    place = torch.arange(x.shape[-1], device=x.device)
    bell = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = bell[:, (place[:, None] - place).abs()]
    kernel = kernel * (amount / kernel.sum(2, keepdim=True))
    kernel.diagonal(dim1=1, dim2=2).add_(1 - amount[:, :, 0])
    return (kernel @ x @ kernel.transpose(1, 2)).clamp_(0, 1)


def _contrast(x: Tensor, drawn: Tensor, field: Tensor | None) -> Tensor:
    """Contrast about the mean, a moved mean, and smooth fields of both (low cosines)."""
    mean = x.mean((1, 2), keepdim=True)
    moved = mean + drawn[:, 1, None, None]
    x = (x - mean).mul_(drawn[:, 0, None, None])
    if field is not None:
        p = _positions(x.shape[-1], x.device)
        waves = torch.stack([torch.cos(math.pi * k * (p + 1) / 2) for k in range(3)])
        fields = waves.T @ field.view(-1, 2, 3, 3) @ waves
        x = x.mul_(torch.exp(fields[:, 0])).add_(fields[:, 1], alpha=0.25)
    return (x + moved).clamp_(0, 1)


def _noise(x: Tensor, drawn: Tensor, seed: int) -> Tensor:
    """Gaussian noise: each film a stretch of one long row of draws, from a place of its own."""
    pixels = x.shape[1] * x.shape[2]
    noise = noise_row(pixels, seed, x.device).unfold(0, pixels, 1)[drawn[:, 0].long()].view_as(x)
    return x.addcmul_(noise, drawn[:, 1, None, None].expand_as(x))


@lru_cache(maxsize=4)
def noise_row(pixels: int, seed: int, device: torch.device) -> Tensor:
    """The row that noise is cut from; a CUDA graph's owner holds it as long as the graph."""
    drawn = torch.randn(NOISE + pixels, generator=torch.Generator().manual_seed(seed))
    return drawn.to(device)


def _cutout(x: Tensor, drawn: Tensor) -> Tensor:
    """A rectangle of one grey over some films (DeVries 2017)."""
    p = _positions(x.shape[-1], x.device)
    inside = (p - drawn[:, 2:4, None]).abs() < drawn[:, :2, None]
    inside = inside & (drawn[:, 4, None, None] > 0)
    rectangle = inside[:, 1, :, None] & inside[:, 0, None, :]
    return torch.where(rectangle, drawn[:, 5, None, None], x)
