"""Imitated shifts: films as another hospital might have made them.

``SHIFTS`` are those under which a finished model's validation is scored: how films from elsewhere
differ in shape, exposure, sharpness, compression and border.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from hilum.training.augment import Augmentation, augment, either_way, uniform


def _cropped(x: Tensor, films: Tensor, seed: int) -> Tensor:
    """One axis, at random, loses up to a quarter and fills the film again: another shape."""
    u = uniform(films, 4, seed, 0, stream=2)
    side, keep = (u[:, 0] < 0.5).float(), 0.75 + 0.2 * u[:, 1]
    scale = torch.stack([1 - side + side * keep, side + (1 - side) * keep], 1)
    offset = either_way(u[:, 2:4]) * (1 - scale) * 0.5
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
