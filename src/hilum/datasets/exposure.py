"""A made-up chest becomes a film: posed, exposed, developed, marked.

The class is in the lungs alone: nothing here depends on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hilum.datasets.anatomy import Canvas, Patient, Shadow, chest
from hilum.datasets.opacity import PATTERNS, opacity


def draw(
    seed: int | np.random.Generator,
    *,
    positive: bool,
    size: tuple[int, int] = (160, 200),
    patient: Patient | None = None,
    pattern: str | None = None,
    strength: float | None = None,
) -> NDArray[np.uint8]:
    """One made-up chest film.

    Parameters
    ----------
    seed : a number, or a generator that is drawn from; the same seed gives the same film
    positive : with an opacity as of pneumonia, or without
    size : (height, width) in pixels
    patient : whose chest; another seed then gives another film of the same child
    pattern : ``patchy``, ``lobar``, ``interstitial`` or ``perihilar``; the patient's own
        where not said
    strength : of the opacity, about 0.2 (hard to see) to 1 (plain); by chance where not said

    Returns
    -------
    (height, width) uint8, bright is dense
    """
    film = expose(
        seed, positive=positive, size=size, patient=patient, pattern=pattern, strength=strength
    )
    return grey(film)


def expose(
    seed: int | np.random.Generator,
    *,
    positive: bool,
    size: tuple[int, int] = (160, 200),
    patient: Patient | None = None,
    pattern: str | None = None,
    strength: float | None = None,
) -> Shadow:
    """The film of :func:`draw` before it is cut into grey levels: float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    patient = patient or Patient.drawn(rng)
    pattern = pattern or own_pattern(patient)
    drawn_strength = float(rng.triangular(0.40, 1.2, 1.3))
    body = _posed(
        rng,
        patient,
        size,
        pattern=pattern if positive else None,
        strength=drawn_strength if strength is None else strength,
    )
    return _developed(rng, body)


def grey(film: Shadow) -> NDArray[np.uint8]:
    """A film in [0, 1] as 256 grey levels."""
    return (film * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)


def own_pattern(patient: Patient) -> str:
    """The kind of opacity that this patient has whenever a film of theirs is positive."""
    return PATTERNS[patient.particular(4).integers(len(PATTERNS))]


def _posed(
    rng: np.random.Generator,
    patient: Patient,
    size: tuple[int, int],
    *,
    pattern: str | None,
    strength: float,
) -> Shadow:
    """The body's attenuation on the film: turned, leaning, off centre, near or far."""
    height, width = size
    aspect = width / height
    # A wide film shows less of neck and belly, a tall one more.
    half_h = rng.uniform(0.80, 1.0) / aspect**0.55
    half_w = half_h * aspect
    breath = rng.uniform(-0.08, 0.07)
    turn, lean = rng.normal(0, np.deg2rad(2.5)), float(rng.normal(0, 0.02))
    cx, cy = float(rng.normal(0, 0.04)), float(rng.normal(-0.10, 0.05))

    c, s = float(np.cos(turn)), float(np.sin(turn))
    reach_x = half_w * c + half_h * abs(lean - s)
    reach_y = half_h * c + half_w * abs(s)
    scale = 0.95 * height / (2 * half_h)
    canvas = Canvas(cx - reach_x, cy - reach_y, cx + reach_x, cy + reach_y, scale)
    veil = opacity(patient, canvas, pattern, strength) if pattern else None
    body = chest(patient, canvas, veil=veil, breath=breath)

    unit = 2 * half_h / height * canvas.scale  # canvas pixels a film pixel
    a, b, d, e = c * unit, (lean - s) * unit, s * unit, c * unit
    x0, y0 = canvas.at(cx, cy)
    data = (a, b, x0 - (a * width + b * height) / 2, d, e, y0 - (d * width + e * height) / 2)
    turned = Image.fromarray(body).transform(
        (width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return np.asarray(turned)


def _developed(rng: np.random.Generator, body: Shadow) -> Shadow:
    """Attenuation becomes grey: scatter, exposure, curve, grain, what lies on the film."""
    height, width = body.shape
    f = np.float32
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    small = Image.fromarray(body).resize((16, 16), Image.Resampling.BOX)
    scatter = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    film: NDArray[Any] = body + f(rng.uniform(0.02, 0.14)) * scatter
    film *= f(1 / rng.uniform(0.98, 1.25)) * (f(rng.normal(0, 0.05)) * x + 1)  # the anode's heel
    film *= f(rng.normal(0, 0.05)) * y + 1
    # The curve of film or display: an exponent, and a shoulder so that bone does not burn out.
    ends = np.linspace(0.0, 2.5, 1024)
    curve = ends ** rng.uniform(0.75, 1.30)
    curve = np.where(curve > 0.75, 0.75 + 0.25 * np.tanh(4.0 * (curve - 0.75)), curve)
    low, high = rng.uniform(0.0, 0.05), rng.uniform(0.82, 0.97)
    grey = (low + (high - low) * curve).astype(np.float32)
    film = grey.take((film * f(1023 / 2.5)).astype(np.int32), mode="clip")
    grain = rng.standard_normal((height, width), dtype=np.float32)
    film += f(rng.uniform(0.004, 0.018)) * (film + f(0.4)) * grain

    if rng.random() < 0.15:
        film += 0.16 * _lead(rng, film.shape)
    if rng.random() < 0.75:
        _mark(rng, film)
    if rng.random() < 0.40:
        _collimate(rng, film)
    return np.clip(film, 0.0, 1.0)


def _lead(rng: np.random.Generator, shape: tuple[int, ...]) -> Shadow:
    """A wire or tube across the chest, in [0, 1]."""
    height, width = shape
    layer = Image.new("L", (width, height))
    t = np.linspace(0, 1, 24)
    start, end = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.9, 2)
    wave = rng.uniform(-0.12, 0.12, 2)[:, None] * np.sin(np.pi * np.outer([1.0, 2.0], t))
    x = (start[0] + (end[0] - start[0]) * t + wave[0]) * width
    y = (end[1] * t + wave[1]) * height
    thick = max(1, round(0.007 * height))
    ImageDraw.Draw(layer).line(np.stack([x, y], 1).ravel().tolist(), fill=255, width=thick)
    return np.asarray(layer) * np.float32(1 / 255)


_LETTERS: dict[str, list[list[tuple[float, float]]]] = {  # strokes on a unit square, y down
    "R": [
        [(0, 1), (0, 0), (0.6, 0), (0.8, 0.12), (0.8, 0.4), (0.6, 0.52), (0, 0.52)],
        [(0.4, 0.52), (0.85, 1)],
    ],
    "L": [[(0, 0), (0, 1), (0.75, 1)]],
}


def _mark(rng: np.random.Generator, film: NDArray[Any]) -> None:
    """The lead letter: R on the patient's right (the picture's left), L on the other side."""
    height, width = film.shape
    tall = max(6, round(rng.uniform(0.035, 0.075) * height))
    letter = "R" if rng.random() < 0.8 else "L"
    fine = 4 * tall  # drawn large and shrunk, for smooth edges
    large = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(large)
    for stroke in _LETTERS[letter]:
        points = [((0.1 + 0.75 * px) * fine, (0.1 + 0.8 * py) * fine) for px, py in stroke]
        pen.line(points, fill=255, width=round(0.14 * fine), joint="curve")
    layer = large.resize((tall, tall), Image.Resampling.BOX)
    side = rng.uniform(0.02, 0.10)
    left = int((side if letter == "R" else 0.93 - side) * width)
    top = int(rng.uniform(0.02, 0.45) * height)
    spot = film[top : top + tall, left : left + tall]
    ink = np.asarray(layer)[: spot.shape[0], : spot.shape[1]] * np.float32(0.96 / 255)
    np.maximum(spot, ink, out=spot)


def _collimate(rng: np.random.Generator, film: NDArray[Any]) -> None:
    """Black edges where the beam was cut off."""
    height, width = film.shape
    top, bottom = (np.clip(rng.normal(0.01, 0.03, 2), 0, 0.09) * height).astype(int)
    left, right = (np.clip(rng.normal(0.02, 0.03, 2), 0, 0.09) * width).astype(int)
    edge = np.float32(rng.uniform(0.0, 0.04))
    film[:top] = film[height - bottom :] = edge
    film[:, :left] = film[:, width - right :] = edge
