"""Augmentation by batches, a function of (seed, epoch, film) alone.

Whatever a film's augmentation is drawn from is a hash of the seed, the epoch and the film's own
number, so it depends neither on the batch nor on the place in it, nor on processes or devices.
Positions run from -1 to 1 over the film, grey values from 0 to 1, and a draw ``u`` is uniform.

``SHIFTS`` are the imitated shifts under which a finished model's validation is scored: how films
from elsewhere differ in shape, exposure, sharpness, compression and border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

# Shares of films that are blurred, sharpened, and have a rectangle cut out, where a recipe asks.
BLURRED, SHARPENED, CUT = 0.3, 0.2, 0.6
NOISE = 1 << 20


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
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} = {value}: zero or more is expected")
        if self.zoom >= 1:
            raise ValueError(f"zoom = {self.zoom}: less than 1 is expected")


def augment(
    pixels: Tensor, films: Tensor, seed: int, epoch: int | Tensor, augmentation: Augmentation
) -> Tensor:
    """Augmented copies of a batch.

    Parameters
    ----------
    pixels : (n, s, s) uint8
    films : (n,) int64, a number of each film's own
    seed, epoch : whole numbers, not negative; the epoch may be an int64 tensor on the device

    Nothing here waits for a GPU or hands it a number from the host, so that a CUDA graph can hold
    it: constants are computed where they are used, and on a GPU no film is picked by its draw.

    Returns
    -------
    (n, 1, s, s) float32 in 0 to 255
    """
    a, u = augmentation, uniform(films, 24, seed, epoch)
    x = pixels.float()
    if a.flip or a.rotation or a.zoom or a.stretch or a.shift or a.shear:
        x = _geometry(x, a, u[:, :8])
    x = x.div_(255)
    if a.blur or a.sharpen:
        x = _sharpness(x, a, u[:, 8:10])
    if a.gamma:
        x = x.clamp_(1e-3, 1).pow_(_factor(u[:, 10], a.gamma)[:, None, None])
    if a.contrast or a.field:
        x = _contrast(x, a, u[:, 11:13], films, seed, epoch)
    if a.noise:
        x = _noise(x, a.noise, u[:, 13:15], seed)
    if a.cutout:
        x = _cutout(x, a.cutout, u[:, 15:21])
    return x.clamp_(0, 1).mul_(255)[:, None]


# --- draws --------------------------------------------------------------------------------------

_GOLDEN = 0x9E3779B97F4A7C15


def uniform(films: Tensor, draws: int, seed: int, epoch: int | Tensor, stream: int = 0) -> Tensor:
    """(n, draws) float32 in (0, 1): a hash of film, draw, seed, epoch and stream (< 16).

    Counters mixed by the finaliser of SplitMix64 (Steele 2014), in whole numbers alone, so the
    same on every device.
    """
    key = _mix(films + _signed(_GOLDEN * (seed + 1)))
    turn = 16 * epoch + stream + 1
    # Products of int64 tensors wrap around as those of 64 bits do.
    turn = turn * _signed(_GOLDEN) if isinstance(turn, Tensor) else _signed(_GOLDEN * turn)
    key = _mix(key + turn)
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


def _either_way(u: Tensor) -> Tensor:
    return u * 2 - 1


def _factor(u: Tensor, strength: float) -> Tensor:
    """1 / (1 + strength) to 1 + strength, evenly in the logarithm."""
    return torch.exp(_either_way(u) * math.log1p(strength))


# --- transforms ---------------------------------------------------------------------------------


def _positions(size: int, device: torch.device) -> Tensor:
    """Centres of pixels along one axis, (size,) in -1 to 1."""
    return (torch.arange(size, device=device) + 0.5) * (2 / size) - 1


def _geometry(x: Tensor, a: Augmentation, u: Tensor) -> Tensor:
    """One affine map a film, sampled bilinearly; beyond the border the nearest pixel."""
    angle, shear = (
        _either_way(u[:, k]) * math.radians(d) for k, d in ((0, a.rotation), (4, a.shear))
    )
    stretch = _factor(u[:, 3], a.stretch)
    wide = (1 + _either_way(u[:, 1]) * a.zoom) * stretch
    high = (1 + _either_way(u[:, 2]) * a.zoom) / stretch
    if a.flip:
        wide = torch.where(u[:, 7] < 0.5, -wide, wide)
    across, down = (2 * a.shift * _either_way(u[:, k])[:, None] for k in (5, 6))
    cos, sin = angle.cos(), angle.sin()
    p = _positions(x.shape[-1], x.device)
    grid = x.new_empty(*x.shape, 2)
    rows = ((cos * shear.sin() + sin * shear.cos()) * -wide)[:, None] * p
    torch.add(((cos * wide)[:, None] * p + across)[:, None], rows[:, :, None], out=grid[..., 0])
    rows = ((cos * shear.cos() - sin * shear.sin()) * high)[:, None] * p
    torch.add(((sin * high)[:, None] * p + down)[:, None], rows[:, :, None], out=grid[..., 1])
    return functional.grid_sample(x[:, None], grid, padding_mode="border", align_corners=False)[
        :, 0
    ]


def _sharpness(x: Tensor, a: Augmentation, u: Tensor) -> Tensor:
    """Gaussian blur of some films, unsharp masking of others, by one matrix a film."""
    blur, sharpen = u[:, 0] < BLURRED * (a.blur > 0), u[:, 0] > 1 - SHARPENED * (a.sharpen > 0)
    changed = blur | sharpen
    if _runs_ahead(x):  # to pick films it would have to be told which: all are computed
        return torch.where(changed[:, None, None], _masked(x, a, blur, u[:, 1]), x)
    some = changed.nonzero()[:, 0]
    return x.index_copy(0, some, _masked(x[some], a, blur[some], u[some, 1]))


def _runs_ahead(x: Tensor) -> bool:
    """Whether the host goes on while this is computed: on a GPU it must not ask for values."""
    return x.is_cuda


def _masked(x: Tensor, a: Augmentation, blur: Tensor, strength: Tensor) -> Tensor:
    """Films blurred where ``blur`` says so, else sharpened."""
    pixel = x.shape[-1] / 128
    sigma = torch.where(blur, 0.3 + strength * a.blur * pixel, 0.6 + 1.2 * strength * pixel)
    place = torch.arange(x.shape[-1], device=x.device)
    bell = torch.exp(-(place**2) / (2 * sigma[:, None] ** 2))
    kernel = bell[:, (place[:, None] - place).abs()]
    amount = (-strength * a.sharpen).masked_fill(blur, 1.0)[:, None, None]
    kernel = kernel * (amount / kernel.sum(2, keepdim=True))
    kernel.diagonal(dim1=1, dim2=2).add_(1 - amount[:, :, 0])
    return (kernel @ x @ kernel.transpose(1, 2)).clamp_(0, 1)


def _contrast(
    x: Tensor, a: Augmentation, u: Tensor, films: Tensor, seed: int, epoch: int | Tensor
) -> Tensor:
    """Contrast about the mean, a moved mean, and smooth fields of both (low cosines)."""
    mean = x.mean((1, 2), keepdim=True)
    moved = mean + (0.3 * a.contrast * _either_way(u[:, 1]))[:, None, None]
    x = (x - mean).mul_(_factor(u[:, 0], a.contrast)[:, None, None])
    if a.field:
        p = _positions(x.shape[-1], x.device)
        waves = torch.stack([torch.cos(math.pi * k * (p + 1) / 2) for k in range(3)])
        draws = _either_way(uniform(films, 18, seed, epoch, stream=1)).view(-1, 2, 3, 3)
        fields = waves.T @ (draws * _fall(x.device) * a.field) @ waves
        x = x.mul_(torch.exp(fields[:, 0])).add_(fields[:, 1], alpha=0.25)
    return (x + moved).clamp_(0, 1)


@cache
def _fall(device: torch.device) -> Tensor:
    """How strong each pair of waves is; kept, since a graph reads it where it lies."""
    return torch.tensor([[1, 1, 0.7], [1, 0.7, 0.5], [0.7, 0.5, 0.4]], device=device)


def _noise(x: Tensor, strength: float, u: Tensor, seed: int) -> Tensor:
    """Gaussian noise: each film a stretch of one long row of draws, from a place of its own."""
    pixels = x[0].numel()
    row = noise_row(pixels, seed, x.device)
    start = (u[:, 0] * NOISE).long()
    noise = row.unfold(0, pixels, 1)[start].view_as(x)
    return x.addcmul_(noise, (u[:, 1] ** 2 * strength)[:, None, None].expand_as(x))


@lru_cache(maxsize=4)
def noise_row(pixels: int, seed: int, device: torch.device) -> Tensor:
    """The row that noise is cut from; a CUDA graph's owner holds it as long as the graph."""
    drawn = torch.randn(NOISE + pixels, generator=torch.Generator().manual_seed(seed))
    return drawn.to(device)


def _cutout(x: Tensor, strength: float, u: Tensor) -> Tensor:
    """A rectangle of one grey over some films (DeVries 2017)."""
    p = _positions(x.shape[-1], x.device)
    half, middle = 0.1 + 0.5 * strength * u[:, 1:3, None], _either_way(u[:, 3:5, None])
    inside = (p - middle).abs() < half
    inside = inside & (u[:, :1, None] < CUT)
    rectangle = inside[:, 1, :, None] & inside[:, 0, None, :]
    return torch.where(rectangle, u[:, 5, None, None], x)


# --- imitated shifts ----------------------------------------------------------------------------


def _cropped(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """One axis, at random, loses up to a quarter and fills the film again: another shape."""
    u = uniform(films, 4, seed, 0, stream=2)
    side, keep = (u[:, 0] < 0.5).float(), 0.75 + 0.2 * u[:, 1]
    scale = torch.stack([1 - side + side * keep, side + (1 - side) * keep], 1)
    offset = _either_way(u[:, 2:4]) * (1 - scale) * 0.5
    return _resized(x, scale, offset, "border")


def _framed(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """Black bars along two opposite sides, the film squeezed between them."""
    u = uniform(films, 2, seed, 0, stream=3)
    side, squeeze = (u[:, 0] < 0.5).float(), 1 / (0.72 + 0.18 * u[:, 1])
    scale = torch.stack([1 - side + side * squeeze, side + (1 - side) * squeeze], 1)
    return _resized(x, scale, torch.zeros_like(scale), "zeros")


def _resized(x: Tensor, scale: Tensor, offset: Tensor, padding: str) -> Tensor:
    theta = torch.diag_embed(torch.cat([scale, torch.ones_like(scale[:, :1])], 1))[:, :2]
    theta[:, :, 2] = offset
    grid = functional.affine_grid(theta, [len(x), 1, *x.shape[1:]], align_corners=False)
    return functional.grid_sample(x[:, None], grid, padding_mode=padding, align_corners=False)[:, 0]


def _coarse(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """Taken down to a half of its side and back."""
    small = functional.avg_pool2d(x[:, None], 2)
    return functional.interpolate(small, size=x.shape[1:], mode="bilinear")[:, 0]


def _compressed(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """Cosine coefficients of 8 x 8 blocks rounded to coarse steps, as a hard JPEG does."""
    size, whole = x.shape[-1], -(-x.shape[-1] // 8) * 8
    x = functional.pad(x[:, None], (0, whole - size, 0, whole - size), mode="replicate")[:, 0]
    k = torch.arange(8, device=x.device).float()
    basis = torch.cos(math.pi * (2 * k + 1) * k[:, None] / 16) * 0.5
    basis[0] *= 0.5**0.5
    transform = torch.block_diag(*[basis] * (whole // 8))
    # Steps grow with frequency as in the tables of JPEG (annex K), times 0.5 to 1.5.
    steps = (12 + 6 * (k[:, None] + k)).repeat(whole // 8, whole // 8)
    steps = steps * (0.5 + uniform(films, 1, seed, 0, stream=4)[:, :, None])
    rounded = (transform @ (x - 128) @ transform.T / steps).round_() * steps
    return (transform.T @ rounded @ transform + 128)[:, :size, :size]


def _equalised(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """Each film's histogram made flat, by half to wholly."""
    grey = x.flatten(1).long()
    counts = torch.zeros(len(x), 256, device=x.device, dtype=torch.int64)
    counts.scatter_add_(1, grey, torch.ones_like(grey))
    rank = counts.cumsum(1).gather(1, grey).view_as(x)  # pixels that are no brighter
    flat = rank * (255 / x[0].numel())
    share = 0.5 + 0.5 * uniform(films, 1, seed, 0, stream=5)[:, :, None]
    return x + (flat - x) * share


def _clipped(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """Over- or under-exposed: moved by 30 to 70 grey values, what leaves the scale is lost."""
    u = uniform(films, 2, seed, 0, stream=6)[:, :, None, None]
    return x + torch.where(u[:, 0] < 0.5, -1.0, 1.0) * (30 + 40 * u[:, 1])


def _augmented(augmentation: Augmentation) -> Callable[[Tensor, Tensor, int], Tensor]:
    def shift(x: Tensor, films: Tensor, seed: int) -> Tensor:
        return augment(x.to(torch.uint8), films, seed, SHIFTED, augmentation)[:, 0]

    return shift


# Stands where an epoch stands in training, and is none of its numbers.
SHIFTED = 1 << 40

#: Imitated shifts by name: (n, s, s) float 0 to 255, film numbers and a seed, to the same shape.
#: The first four are what training imitates, only stronger or alone; training has none of the rest.
SHIFTS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "shape": _augmented(Augmentation(stretch=0.25, zoom=0.1, shift=0.05, rotation=6)),
    "exposure": _augmented(Augmentation(gamma=0.8, contrast=0.5, field=0.3)),
    "sharpness": _augmented(Augmentation(blur=2.0, sharpen=2.5, noise=0.06)),
    "crop": _cropped,
    "border": _framed,
    "resolution": _coarse,
    "compression": _compressed,
    "histogram": _equalised,
    "clipping": _clipped,
}


def imitate(pixels: Tensor, films: Tensor, shift: str, seed: int) -> Tensor:
    """Films as another place might have made them.

    Parameters
    ----------
    pixels : (n, s, s) uint8
    films : (n,) int64, a number of each film's own
    shift : a name in ``SHIFTS``

    Returns
    -------
    (n, s, s) uint8, a function of film, shift and seed alone
    """
    shifted = SHIFTS[shift](pixels.float(), films, seed)
    return shifted.round_().clamp_(0, 255).to(torch.uint8)
