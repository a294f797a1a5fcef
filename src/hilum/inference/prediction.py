"""The answer for one film: as a record, in words, as a picture."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.decision import Decision, in_words
from hilum.films.picture import blend, png
from hilum.films.radiograph import Reason


@dataclass(frozen=True)
class Prediction:
    """The answer for one film; ``as_dict`` is the record of the docs.

    Attributes
    ----------
    decision : ``positive``, ``negative``, ``refer`` (to a reader), or None where the film could
        not be read
    probability : calibrated probability of the target, None where refused or unreadable
    reasons : why it was referred, and what was odd about the film
    heat : (h, w) heat in [0, 1] where it was asked for, with ``heat_kind``
    film_view : (height, width) uint8, the film in its own shape, where heat maps were asked for
    """

    film: str
    sha256: str | None
    target: str
    decision: Decision | None
    probability: float | None
    logit: float | None
    operating_point: dict[str, Any]
    reasons: tuple[Reason, ...]
    steps: tuple[str, ...]
    model: dict[str, str]
    milliseconds: float
    error: Reason | None = None
    findings: dict[str, Any] | None = None
    heat: NDArray[np.float32] | None = field(default=None, repr=False)
    heat_kind: str | None = None
    film_view: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def words(self) -> str:
        """The answer for people."""
        return in_words(self.decision, self.target)

    def as_dict(self) -> dict[str, Any]:
        """The prediction record: one JSON line, the same over every way out."""
        return {
            "film": self.film,
            "sha256": self.sha256,
            "target": self.target,
            "decision": self.decision,
            "probability": None if self.probability is None else round(self.probability, 6),
            "operating_point": self.operating_point,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "steps": list(self.steps),
            "findings": self.findings,
            "model": self.model,
            "milliseconds": round(self.milliseconds, 1),
            "error": self.error.as_dict() if self.error else None,
        }

    def painted(self) -> NDArray[np.uint8]:
        """The film for people, under its heat map where there is one: (h, w) or (h, w, 3)."""
        if self.film_view is None:
            raise ValueError("this prediction was made without heat maps: predict(heatmaps=True)")
        return self.film_view if self.heat is None else blend(self.film_view, self.heat)

    def picture(self) -> bytes:
        """``painted`` as PNG."""
        return png(self.painted())

    def _repr_html_(self) -> str:
        probability = "" if self.probability is None else f" · probability {self.probability:.2f}"
        notes = "; ".join(escape(r.text) for r in (*self.reasons, *filter(None, [self.error])))
        image = ""
        if self.film_view is not None:
            data = base64.b64encode(self.picture()).decode()
            image = f'<img style="width:256px" src="data:image/png;base64,{data}"><br>'
        return (
            f"<div>{image}<b>{escape(self.words)}</b>{probability}<br>{escape(self.film)}"
            f"<br><small>{notes}</small></div>"
        )
