"""Pneumonia's shadows for a made-up chest: where lung holds no air."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hilum.datasets.anatomy import Canvas, Patient, Shadow, enlarged, ramp

PATTERNS = ("patchy", "lobar", "interstitial", "perihilar")
"""Scattered patches; one lobe up to its fissure; a net over both lungs; both hila."""


def opacity(patient: Patient, canvas: Canvas, pattern: str, strength: float) -> Shadow:
    """Share of lung without air, in [0, 1], on a canvas. Its place is the patient's own.

    Parameters
    ----------
    pattern : one of :data:`PATTERNS`
    strength : about 0.2 (hard to see) to 1 (plain)

    Raises
    ------
    ValueError
        There is no such pattern.
    """
    rng = patient.particular(7)
    # Drawn coarse and enlarged, for an opacity is soft.
    coarse = Canvas(-1.0, -1.0, 1.0, 1.0, 48.0)
    x, y = coarse.x, coarse.y
    n = coarse.shape[0]
    rough, fine = (enlarged(rng.standard_normal((g, g)), (n, n)) for g in (14, 40))
    side = 1.0 if rng.random() < 0.45 else -1.0
    base = patient.dome_right if side < 0 else patient.dome_left

    def spot(cx: float, cy: float, rx: float, ry: float) -> Shadow:
        return np.asarray(np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2))

    if pattern == "patchy":
        veil = np.zeros((n, n), np.float32)
        for _ in range(rng.integers(3, 7)):
            where = side if rng.random() < 0.75 else -side
            cx, cy = where * rng.uniform(0.22, 0.55), rng.uniform(-0.30, base - 0.03)
            rx, ry = rng.uniform(0.11, 0.23, 2)
            veil = np.maximum(veil, rng.uniform(0.7, 1.0) * spot(cx, cy, rx, ry))
        veil = ramp(0.15, 0.95, veil * (0.95 + 0.35 * rough + 0.12 * fine))
    elif pattern == "lobar":
        # A fissure bounds it on one side: above (a lower lobe) or below (an upper one).
        lower = rng.random() < 0.65
        fissure, slope = rng.uniform(-0.20, 0.02), rng.uniform(-0.25, 0.25)
        line = y - (fissure + slope * (np.abs(x) - 0.4))
        edge = ramp(-0.03, 0.05, line) if lower else ramp(0.03, -0.05, line)
        reach = spot(side * 0.36, fissure + (0.24 if lower else -0.24), 0.42, 0.36)
        veil = edge * ramp(0.0, 0.05, side * x) * ramp(0.12, 0.6, reach)
        veil = veil * (0.85 + 0.14 * rough + 0.05 * fine)
    elif pattern == "interstitial":
        mesh = enlarged(rng.standard_normal((30, 30)), (n, n)) * fine
        around = spot(-0.30, 0.0, 0.36, 0.50) + spot(0.32, 0.0, 0.36, 0.50)
        veil = around * (0.24 + 0.42 * np.exp(-((mesh / 0.25) ** 2))) * (1.0 + 0.30 * rough)
    elif pattern == "perihilar":
        around = spot(-0.24, -0.02, 0.24, 0.31) + spot(0.26, -0.04, 0.24, 0.31)
        veil = ramp(0.05, 1.15, around * (0.85 + 0.30 * rough + 0.22 * np.maximum(fine, -0.4)))
    else:
        raise ValueError(f"no such pattern: {pattern}. There are: {', '.join(PATTERNS)}.")

    # Cut the canvas's rectangle out of the coarse square, a little coarser than the film.
    (left, top), (h, w) = coarse.at(canvas.left, canvas.top), canvas.shape
    step = coarse.scale / canvas.scale
    shape = (max(8, round(h * step)), max(8, round(w * step)))
    data = (w * step / shape[1], 0.0, left, 0.0, h * step / shape[0], top)
    picture = Image.fromarray(np.asarray(strength * veil, np.float32))
    cut = picture.transform(shape[::-1], Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.clip(enlarged(np.asarray(cut), canvas.shape), 0.0, 1.0)
