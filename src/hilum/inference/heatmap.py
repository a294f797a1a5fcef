"""Where the evidence lies: exact class activation, or occlusion where there is none."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hilum.inference.engine import Engine

Kind = Literal["class activation", "occlusion"]

# Evidence (in logits) that is drawn at full strength at least: weak evidence stays pale.
FULL_STRENGTH = 4.0


def class_activation(cam: NDArray[np.floating]) -> NDArray[np.float32]:
    """Positive evidence as heat in [0, 1] from a class activation map in logits.

    With global average pooling before a linear head the map is exact: its mean plus the bias is
    the logit (Zhou et al. 2016). Evidence against the target is not drawn.
    """
    scale = max(FULL_STRENGTH, float(cam.max(initial=0.0)))
    return (np.clip(cam, 0.0, None) / scale).astype(np.float32)


def occlusion(engine: Engine, film: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far the logit falls when a window is covered by the film's mean (Zeiler 2014).

    Parameters
    ----------
    film : (s, s) uint8

    Returns
    -------
    (12, 12) float32 heat in [0, 1], a cell each; windows are two cells wide, so neighbours overlap
    """
    size, cells = film.shape[0], 12
    edges = np.linspace(0, size, cells + 1).round().astype(int)
    half = size // (2 * cells)
    covered = np.repeat(film[None], cells * cells, axis=0)
    for k in range(cells * cells):
        row, column = divmod(k, cells)
        covered[
            k,
            max(0, edges[row] - half) : edges[row + 1] + half,
            max(0, edges[column] - half) : edges[column + 1] + half,
        ] = int(film.mean())
    logits, _ = engine.run(np.concatenate([film[None], covered]))
    fall = (logits[0] - logits[1:]).reshape(cells, cells)
    return class_activation(fall)


def heat(engine: Engine, film: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Kind]:
    """The heat map of one film (s, s) and how it was made."""
    if engine.has_cam:
        _, cams = engine.run(film[None], cam=True)
        assert cams is not None
        return class_activation(cams[0]), "class activation"
    return occlusion(engine, film), "occlusion"
