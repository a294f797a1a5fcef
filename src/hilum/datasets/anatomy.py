"""A made-up child's chest as shadows: what a phantom film is drawn from.

Everything is drawn in body units, seen as a film is hung: x grows to the right of the picture
(the patient's left), y downwards, (0, 0) lies in the middle of the chest, the rib cage is about
1.5 wide. A film adds attenuations: soft tissue by its depth, bone on top, air in the lungs taken
away. An opacity is lung that holds no air, so it can veil vessels and the borders of heart and
diaphragm but never outshine the tissue around it.

Nothing here is a model of radiation; it is a schematic picture that a network can learn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Shadow = NDArray[np.float32]

_RANGES: dict[str, tuple[float, float]] = {
    "width": (0.70, 0.80),  # greatest half-width of the rib cage
    "apex": (-0.68, -0.58),  # top of the lungs
    "dome_right": (0.24, 0.40),  # top of the diaphragm, picture left
    "dome_lower": (0.02, 0.09),  # how much lower the other dome lies
    "heart": (0.88, 1.20),  # size of the heart
    "thymus": (0.0, 1.0),  # the broad upper mediastinum of small children
    "rib_gap": (0.112, 0.136),  # from rib to rib
    "rib_tilt": (0.20, 0.32),  # how far a rib falls from back to side
    "bone": (0.8, 1.2),  # density of bone
    "flesh": (0.04, 0.11),  # soft tissue outside the ribs
    "vessels": (0.6, 1.3),  # strength of the lung's markings
    "depth": (0.9, 1.1),  # depth of the chest
    "bubble": (0.0, 1.0),  # gas in the stomach
    "arms": (0.0, 1.0),  # 0 at the sides, 1 raised
}


@dataclass(frozen=True)
class Patient:
    """One child's anatomy: lengths in body units, strengths around 1.

    ``texture`` seeds what is particular in the child: vessels, ribs, and the place and kind of
    an opacity. Films of one patient share it. Draw one with :meth:`drawn`.
    """

    width: float
    apex: float
    dome_right: float
    dome_lower: float
    heart: float
    thymus: float
    rib_gap: float
    rib_tilt: float
    bone: float
    flesh: float
    vessels: float
    depth: float
    bubble: float
    arms: float
    texture: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Patient:
        """A patient by chance."""
        drawn = {
            f.name: float(rng.uniform(*_RANGES[f.name])) for f in fields(cls) if f.name in _RANGES
        }
        return cls(**drawn, texture=int(rng.integers(2**31)))

    @property
    def dome_left(self) -> float:
        """Top of the diaphragm on the picture's right."""
        return self.dome_right + self.dome_lower

    @property
    def shoulder(self) -> tuple[float, float]:
        """The shoulder joint on the picture's right."""
        return self.width + 0.10, self.apex + 0.07 - 0.10 * self.arms

    def particular(self, what: int) -> np.random.Generator:
        """The same random stream each time for one feature of this patient."""
        return np.random.default_rng([self.texture, what])


class Canvas:
    """A rectangle of the body plane in pixels.

    Parameters
    ----------
    left, top, right, bottom : its edges in body units
    scale : pixels a body unit
    """

    def __init__(self, left: float, top: float, right: float, bottom: float, scale: float) -> None:
        self.left, self.top, self.scale = left, top, scale
        self.shape = (max(8, round((bottom - top) * scale)), max(8, round((right - left) * scale)))
        h, w = self.shape
        self.x = (left + (np.arange(w, dtype=np.float32) + 0.5) / np.float32(scale))[None, :]
        self.y = (top + (np.arange(h, dtype=np.float32) + 0.5) / np.float32(scale))[:, None]

    def at(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Pixel coordinates of a point (or of arrays of points)."""
        return (x - self.left) * self.scale, (y - self.top) * self.scale

    def around(
        self, left: float, top: float, right: float, bottom: float
    ) -> tuple[tuple[slice, slice], Shadow, Shadow]:
        """Slices of the pixels in a box, with their x and y: draw a part where it is."""
        h, w = self.shape
        (x0, y0), (x1, y1) = self.at(left, top), self.at(right, bottom)
        rows = slice(int(np.clip(y0, 0, h)), int(np.clip(y1 + 1, 0, h)))
        cols = slice(int(np.clip(x0, 0, w)), int(np.clip(x1 + 1, 0, w)))
        return (rows, cols), self.x[:, cols], self.y[rows]

    def both_sides(
        self, inner: float, top: float, outer: float, bottom: float
    ) -> Iterator[tuple[tuple[slice, slice], Shadow, Shadow]]:
        """A box and its mirror image as ``around``, with the distance from the middle for x."""
        for left, right in ((inner, outer), (-outer, -inner)):
            part, x, y = self.around(left, top, right, bottom)
            yield part, np.abs(x), y


def ramp(low: float, high: float, x: Any) -> Any:
    """0 below ``low``, 1 above ``high``, smooth between; falls where low > high."""
    t = (x - np.float32(low)) * np.float32(1.0 / (high - low))
    t = np.minimum(np.maximum(t, np.float32(0.0)), np.float32(1.0))  # clip() is slow to call
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)


def enlarged(small: NDArray[Any], shape: tuple[int, int]) -> Shadow:
    """A coarse shadow at a larger shape, bicubic."""
    picture = Image.fromarray(np.ascontiguousarray(small, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC))


def chest(
    patient: Patient, canvas: Canvas, *, veil: Shadow | None = None, breath: float = 0.0
) -> Shadow:
    """Attenuation of the chest on a canvas, float32: 0 is air outside, about 1 the mediastinum.

    Parameters
    ----------
    veil : share of lung that holds no air, in [0, 1], the shape of the canvas; None for clear
        lungs (:func:`hilum.datasets.opacity.opacity` draws one)
    breath : how much lower the diaphragm stands (0.1: a deep breath)
    """
    x, y = canvas.x, canvas.y
    u = np.abs(x / _rib_cage(patient, y))
    wall = np.sqrt(np.maximum(1.0 - u * u, 0.0))
    below = ramp(-0.012, 0.018, y - _domes(patient, x, breath))
    shadow = _soft_tissue(patient, canvas)
    heart, middle = _mediastinum(patient, canvas, breath)
    vessels = _vessels(patient, canvas)

    lung = np.sqrt(wall) * ramp(1.0, 0.94, u) * ramp(patient.apex, patient.apex + 0.22, y)
    lung *= (1.0 - below) * (1.0 - 0.95 * middle)
    air = lung
    if veil is not None:
        air = lung * (1.0 - 0.92 * veil)
    # Vessels show against air alone; in dense lung the bronchi stay, as faint dark twigs.
    shadow += vessels * ((0.30 * patient.vessels + 0.06) * air - 0.06 * lung)
    shadow -= 0.56 * patient.depth * air
    shadow += 0.06 * heart
    shadow += (0.13 * below) * np.minimum(shadow, 1.0)
    shadow *= 1.0 - 0.26 * _airways(patient, canvas, breath)
    shadow += np.float32(patient.bone) * _ribs(patient, x, y, u, wall) * (1.0 - 0.35 * below)
    _add_spine(patient, canvas, shadow)
    _add_shoulders(patient, canvas, shadow)
    return np.maximum(shadow, np.float32(0.0))


def _rib_cage(patient: Patient, y: Shadow) -> Shadow:
    """Half-width of the rib cage at each height: a bell that closes above the lungs."""
    top = patient.apex - 0.06
    t = np.clip((0.50 - y) / (0.50 - top), -1.0, 0.985)
    bell = (1.0 - np.abs(t) ** 2.6) ** (1 / 2.1)
    return np.asarray(patient.width * np.where(t > 0, bell, 1.0 - 0.06 * t * t), np.float32)


def _soft_tissue(patient: Patient, canvas: Canvas) -> Shadow:
    """Depth of the body seen from the front: trunk, neck, upper arms."""
    x, y = np.abs(canvas.x), canvas.y
    top = patient.apex
    trunk = patient.flesh + np.maximum(_rib_cage(patient, y), 0.90 * patient.width)
    broad = ramp(top - 0.30, top + 0.06, y)
    half = 0.21 + 0.06 * ramp(top - 0.45, top - 0.75, y) + broad * (trunk - 0.21)
    ratio = x / half
    body = np.sqrt(np.sqrt(np.maximum(1.0 - ratio * ratio, 0.0)))
    body *= 0.66 + 0.14 * ramp(top - 0.2, 0.1, y) + 0.05 * ramp(0.2, 0.7, y)
    for part, ax, ay in canvas.both_sides(patient.shoulder[0] - 0.3, -9.0, 9.0, 9.0):
        off = _from_arm(patient, ax, ay) * np.float32(1 / 0.19)
        limb = 0.46 * np.sqrt(np.maximum(1.0 - off * off, 0.0))
        body[part] = np.sqrt(body[part] ** 2 + limb**2)
    # The chin looks in from above: a rounded jaw, brightest at its rim.
    part, hx, hy = canvas.around(-0.5, -9.0, 0.5, top)
    jaw = (hx / 0.36) ** 2 + ((hy - top + 0.80) / 0.46) ** 2
    body[part] += 0.26 * ramp(1.0, 0.90, jaw) * ramp(0.55, 0.95, jaw) + 0.14 * ramp(1.0, 0.6, jaw)
    return np.asarray(body, np.float32)


def _from_arm(patient: Patient, x: Shadow, y: Shadow) -> Shadow:
    """Distance from the axis of the upper arm on the positive side."""
    px, py = patient.shoulder
    angle = np.deg2rad(82 - 150 * patient.arms)  # from the horizontal, downwards
    dx, dy = np.float32(1.3 * np.cos(angle)), np.float32(1.3 * np.sin(angle))
    along = np.clip(((x - px) * dx + (y - py) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return np.asarray(np.hypot(x - px - along * dx, y - py - along * dy))


def _domes(patient: Patient, x: Shadow, breath: float) -> Shadow:
    """Height of the diaphragm over each x."""

    def dome(middle: float, top: float) -> Shadow:
        away = np.abs(x - middle) / (patient.width * 0.62)
        fall = 0.12 * away**2 + 0.20 * np.maximum(away - 0.4, 0.0) ** 2
        outer = np.abs(x) > abs(middle)
        return np.asarray(top + breath + np.where(outer, fall, 0.45 * fall), np.float32)

    left = ramp(-0.08, 0.08, x)
    return np.asarray(
        (1.0 - left) * dome(-0.33, patient.dome_right) + left * dome(0.36, patient.dome_left)
    )


def _mediastinum(patient: Patient, canvas: Canvas, breath: float) -> tuple[Shadow, Shadow]:
    """Depth of the heart, and where the middle holds no lung; both in [0, 1]."""
    size = patient.heart
    cy = patient.dome_left + breath - 0.20 * size
    heart = np.zeros(canvas.shape, np.float32)
    middle = np.zeros(canvas.shape, np.float32)
    part, x, y = canvas.around(-0.5, -2.0, 0.7, 2.0)

    def ball(bx: float, by: float, rx: float, ry: float, turn: float) -> Shadow:
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        a = ((x - bx) * c + (y - by) * s) * np.float32(1 / rx)
        b = ((y - by) * c - (x - bx) * s) * np.float32(1 / ry)
        return np.asarray(a * a + b * b)

    near = ball(0.12 * size, cy, 0.36 * size, 0.235 * size, 0.70)  # ventricles
    near = np.minimum(near, ball(-0.06 * size, cy + 0.02, 0.17 * size, 0.25 * size, 0.0))
    near = np.minimum(near, ball(0.055, cy - 0.27 * size, 0.125 * size, 0.26 * size, 0.15))
    heart[part] = np.sqrt(np.maximum(1.0 - near, 0.0))
    broad = 0.10 + 0.07 * patient.thymus * np.exp(-(((y + 0.36) / 0.15) ** 2))
    broad = broad + 0.06 * ramp(cy, cy + 0.2, y)  # the angles between heart and diaphragm
    column = ramp(0.025, -0.025, np.abs(x - 0.01) - broad)
    middle[part] = np.maximum(column, ramp(1.08, 0.90, near))
    return heart, middle


def _ribs(patient: Patient, x: Shadow, y: Shadow, u: Shadow, wall: Shadow) -> Shadow:
    """Ribs behind and in front.

    A rib is a tilted ring round the chest: with u = cos θ its back runs at height −tilt·sin θ
    and its front at +tilt·sin θ. One table over the height of the ring draws them all.
    """
    rng = patient.particular(1)
    fine = 48  # samples a rib
    turn = (np.arange(14 * fine) + 0.5) / fine
    off = np.abs(turn % 1.0 - 0.5)

    def table(thick: float, first: float, last: float) -> Shadow:
        band = ramp(thick + 0.04, thick - 0.04, off) * (0.70 + 0.5 * ramp(0.4 * thick, thick, off))
        each = np.repeat(rng.uniform(0.85, 1.15, 14), fine)
        ends = ramp(first - 0.1, first + 0.2, turn) * ramp(last, last - 1.0, turn)
        return np.asarray(band * each * ends, np.float32)

    step = np.float32(fine / patient.rib_gap)
    start = np.float32(patient.apex - 0.02)
    tilt = np.float32(patient.rib_tilt)
    lopsided = np.where(x > 0, *rng.uniform(-0.02, 0.02, 2).astype(np.float32))

    def ring(height: NDArray[Any], values: Shadow) -> Shadow:
        place = ((height - start) * step).astype(np.int32)
        return values.take(place, mode="clip")

    back = ring(y + tilt * wall + lopsided * u, table(0.22, 0.0, 11.5))
    back *= ramp(0.09, 0.15, np.abs(x))
    front = ring(y - (0.85 * tilt) * wall + lopsided, table(0.25, 0.0, 8.5))
    front *= ramp(0.40, 0.60, u)
    edge = np.clip(1.0 / (wall + 0.36), 0.8, 2.2) * ramp(1.02, 0.985, u)
    edge *= ramp(patient.apex - 0.02, patient.apex + 0.10, y)
    return np.asarray((0.135 * back + 0.085 * front) * edge)


def _add_spine(patient: Patient, canvas: Canvas, shadow: Shadow) -> None:
    """Vertebrae: bodies with plates, dark discs between, pedicles, spinous processes."""
    part, x, y = canvas.around(-0.12, -9.0, 0.12, 9.0)
    x = np.abs(x)
    turn = (y + 1.3) / (0.80 * patient.rib_gap)
    level = np.abs(turn % 1.0 - 0.5)
    body = ramp(0.47, 0.40, level) * (0.75 + 0.35 * ramp(0.25, 0.40, level))
    across = ramp(0.088, 0.074, x) * (0.85 + 0.30 * ramp(0.050, 0.075, x))
    knob = ((x - 0.046) / 0.017) ** 2 + ((level - 0.12) / 0.17) ** 2
    spine = across * (0.07 + 0.075 * body) + 0.05 * ramp(1.2, 0.7, knob)
    shadow[part] += np.float32(patient.bone) * (spine + 0.04 * ramp(0.016, 0.008, x) * body)


def _add_shoulders(patient: Patient, canvas: Canvas, shadow: Shadow) -> None:
    """Clavicles, shoulder blades and the heads and shafts of the humeri."""
    px, py = patient.shoulder
    bone = np.float32(patient.bone)

    inner, outer, low = 0.07, px - 0.08, patient.apex + 0.10
    for part, x, y in canvas.both_sides(inner, py - 0.15, outer, low + 0.1):
        t = (x - inner) / (outer - inner)
        line = low - (low - py + 0.02) * t + 0.022 * np.sin(2 * np.pi * t)
        off = np.abs(y - line) / (0.030 - 0.010 * np.sin(np.pi * np.clip(t, 0, 1)))
        clavicle = ramp(1.1, 0.85, off) * (0.11 + 0.08 * ramp(0.3, 0.95, off))
        shadow[part] += bone * clavicle * ramp(0.0, 0.03, t) * ramp(1.0, 0.97, t)

    # The blade is a thin triangle; only its outer border is thick enough to be seen well.
    for part, x, y in canvas.both_sides(px - 0.34, py - 0.06, px + 0.02, py + 0.48):
        down = (y - py + 0.04) / 0.50
        off = px - 0.03 - 0.16 * down + 0.05 * np.sin(3.0 * down) - x
        inside = ramp(0.0, 0.012, off) * ramp(0.30, 0.22, off + 0.2 * down)
        rim = ramp(0.045, 0.012, off) * inside
        ends = ramp(0.0, 0.1, down) * ramp(1.0, 0.9, down)
        shadow[part] += bone * (0.02 * inside + 0.07 * rim) * ends

    for part, x, y in canvas.both_sides(px - 0.12, -9.0, 9.0, 9.0):
        off = _from_arm(patient, x, y)
        shaft = ramp(0.058, 0.050, off) * (0.14 + 0.10 * ramp(0.025, 0.048, off))
        from_joint = np.hypot(x - px, y - py)
        head = ramp(0.085, 0.075, from_joint) * (0.19 + 0.05 * ramp(0.05, 0.075, from_joint))
        shadow[part] += bone * np.maximum(shaft, head)


def _vessels(patient: Patient, canvas: Canvas) -> Shadow:
    """The tree of vessels that spreads from each hilum, in [0, 1]."""
    rng = patient.particular(2)
    layer = Image.new("L", canvas.shape[::-1])
    pen = ImageDraw.Draw(layer)
    spread = np.array([-1.2, -0.6, 0.0, 0.6, 1.15])
    x = np.repeat([-0.12, 0.15], 5)
    y = np.tile(-0.08 + 0.06 * spread, 2)
    angle = np.concatenate([np.pi - spread, spread]) + rng.normal(0, 0.15, 10)
    length, width = rng.uniform(0.13, 0.18, 10), 0.025
    for _ in range(4):  # generations, each forking into two
        path = np.empty((len(x), 4, 2))
        for joint in range(4):
            path[:, joint] = np.stack(canvas.at(x, y), axis=1)
            if joint < 3:
                angle = angle + rng.normal(0, 0.16, len(x))
                x, y = x + length / 3 * np.cos(angle), y + length / 3 * np.sin(angle)
        ink, thick = int(255 * min(1.0, 0.22 + width / 0.034)), round(width * canvas.scale)
        for line in path.reshape(len(x), 8).tolist():
            pen.line(line, fill=ink, width=max(1, thick))
        fork = rng.uniform(0.25, 0.65, (2, len(x)))
        angle = np.concatenate([angle + fork[0], angle - fork[1]])
        x, y, length = np.tile([x, y, 0.8 * length], 2)
        width *= 0.62
    soft = layer.filter(ImageFilter.GaussianBlur(0.007 * canvas.scale))
    return np.asarray(soft) * np.float32(1 / 255)


def _airways(patient: Patient, canvas: Canvas, breath: float) -> Shadow:
    """Air in windpipe, main bronchi, stomach and bowel, in [0, 1]."""
    rng = patient.particular(3)
    coarse = Canvas(
        canvas.left,
        canvas.top,
        canvas.left + canvas.shape[1] / canvas.scale,
        canvas.top + canvas.shape[0] / canvas.scale,
        min(80.0, canvas.scale),
    )
    layer = Image.new("L", coarse.shape[::-1])
    pen = ImageDraw.Draw(layer)
    shift, tube = float(rng.uniform(-0.04, 0.0)), max(1, round(0.055 * coarse.scale))
    carina = coarse.at(shift, -0.22)
    pen.line([coarse.at(0.0, -1.6), carina], fill=220, width=tube)
    for end in (-0.13, 0.15):
        pen.line([carina, coarse.at(end, -0.09)], fill=130, width=max(1, tube * 2 // 3))

    def bubble(x: float, y: float, rx: float, ry: float, ink: int) -> None:
        pen.ellipse((*coarse.at(x - rx, y - ry), *coarse.at(x + rx, y + ry)), fill=ink)

    if patient.bubble > 0.35:
        size = 0.05 + 0.09 * patient.bubble
        x, y = 0.38, patient.dome_left + breath + 0.12 + size
        bubble(x, y, 1.5 * size, 0.85 * size, int(60 + 150 * patient.bubble))
        for dx, dy, r in zip(
            rng.normal(0, 0.25, 5),
            rng.uniform(0.15, 0.4, 5),
            rng.uniform(0.03, 0.08, 5),
            strict=True,
        ):
            bubble(x + dx, y + dy, r, 0.8 * r, 80)
    soft = layer.filter(ImageFilter.GaussianBlur(0.013 * coarse.scale))
    return enlarged(np.asarray(soft) * np.float32(1 / 255), canvas.shape)
