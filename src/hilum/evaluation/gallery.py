"""Films with their answers: the paper's figure 9, and all the worst errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import in_words
from hilum.evaluation.measure import Measured

if TYPE_CHECKING:
    from hilum.inference.model import Model

#: Errors that are shown; the rest are in scores.csv. All missed positives come first.
MOST_ERRORS = 96
#: Occlusion costs a hundred runs a film, so only so many films get such a map.
MOST_OCCLUSIONS = 16


@dataclass(frozen=True)
class Shown:
    """One film for people.

    Attributes
    ----------
    row : its row in the scores
    answer : ``"pneumonia suspected"``, ...; right : whether that agrees with the label
    film : (h, w) uint8 as the network saw it; painted : (h, w, 3) with its heat map, or None
    heat_kind : how the heat map was made
    """

    row: int
    name: str
    label: str
    answer: str
    probability: float
    right: bool
    film: NDArray[np.uint8]
    painted: NDArray[np.uint8] | None = None
    heat_kind: str | None = None


def sample(measured: Measured) -> NDArray[np.int64]:
    """Rows of a fair sample: twelve of the answered films at random, both classes alike."""
    rng = np.random.default_rng(0)
    answered = ~np.isnan(measured.scores.probability)
    chosen: list[int] = []
    for label in (0, 1):
        rows = np.flatnonzero(answered & (measured.scores.label == label))
        chosen += rng.permutation(rows)[:6].tolist()
    return np.array(sorted(chosen), np.int64)


def errors(measured: Measured, point: str) -> NDArray[np.int64]:
    """Rows of all wrong answers: missed positives from the surest, then false alarms likewise."""
    decision = measured.points[point].decision
    p, label = measured.scores.probability, measured.scores.label
    missed = np.flatnonzero((label == 1) & (decision == "negative"))
    alarms = np.flatnonzero((label == 0) & (decision == "positive"))
    return np.concatenate(
        [
            missed[np.argsort(p[missed], kind="stable")],
            alarms[np.argsort(-p[alarms], kind="stable")],
        ]
    )


def shown(
    model: Model,
    measured: Measured,
    point: str,
    rows: NDArray[np.int64],
    pixels: Any,
    classes: tuple[str, str],
    *,
    heat: bool = False,
) -> Iterator[Shown]:
    """The films of these rows of ``measured.scores``.

    Parameters
    ----------
    pixels : ``pixels(row)`` gives (s, s) uint8 as the network saw the film
    heat : make heat maps where the model can
    """
    from hilum.films.picture import blend
    from hilum.inference.heatmap import heat as heat_map

    scores, decision = measured.scores, measured.points[point].decision
    engine = model.engine if heat else None
    for k, row in enumerate(rows.tolist()):
        film = np.asarray(pixels(row))
        painted, kind = None, None
        if engine is not None and (engine.has_cam or k < MOST_OCCLUSIONS):
            values, kind = heat_map(engine, film)
            painted = _halved(blend(film, values))
        label = int(scores.label[row])
        yield Shown(
            row=row,
            name=scores.film[row],
            label=classes[label],
            answer=in_words(decision[row], model.bundle.target),
            probability=float(scores.probability[row]),
            right=str(decision[row]) == ("negative", "positive")[label],
            film=_halved(film),
            painted=painted,
            heat_kind=kind,
        )


def _halved(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The film at 300 pixels or fewer a side, by means of whole blocks."""
    factor = -(-film.shape[0] // 300)
    if factor == 1:
        return film
    side = film.shape[0] // factor * factor
    blocks = film[:side, :side].reshape(
        side // factor, factor, side // factor, factor, *film.shape[2:]
    )
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
