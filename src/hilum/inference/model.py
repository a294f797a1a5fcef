"""``Model.predict``: a film in, a decision with its reasons out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import machine, names
from hilum.bundle import Bundle
from hilum.decision import Decision, OperatingPoint, decide
from hilum.errors import BundleRefused, UnreadableFilm
from hilum.films.picture import view
from hilum.films.preprocess import Preprocessing, described
from hilum.films.radiograph import Radiograph, Reason
from hilum.films.read import read
from hilum.films.workers import Workers
from hilum.inference.engine import BATCH, Engine
from hilum.inference.heatmap import heat
from hilum.inference.prediction import Prediction
from hilum.progress import SILENT, Progress

SHIPPED = Path(__file__).parent.parent / "models" / "pneumonia.hilum"

Film = str | Path | bytes | Radiograph | NDArray[Any]


@dataclass(frozen=True)
class Prepared:
    """A film on its way to the graph: what a decoding worker sends back."""

    name: str
    sha256: str
    pixels: NDArray[np.uint8] | None
    steps: tuple[str, ...]
    reasons: tuple[Reason, ...]
    refusals: tuple[Reason, ...]
    age: float | None
    view: str | None
    modality: str | None
    seconds: float
    picture: NDArray[np.uint8] | None


def prepare(film: Film, preprocessing: Preprocessing, pictures: bool = False) -> Prepared:
    """Read one film and make its pixels; raises ``UnreadableFilm``. Runs in a worker.

    ``pictures``: keep a view of the film for people as well.
    """
    start = time.perf_counter()
    radiograph = film if isinstance(film, Radiograph) else read(film)
    header = radiograph.header
    pixels: NDArray[np.uint8] | None = None
    steps: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    if not radiograph.refusals:  # what the header refuses needs no pixels, and may have none
        pixels, steps, reasons = described(radiograph, preprocessing)
    return Prepared(
        radiograph.name,
        radiograph.sha256,
        pixels,
        steps,
        tuple(reason for reason in reasons if not reason.refers),
        (*radiograph.refusals, *(reason for reason in reasons if reason.refers)),
        header.age,
        header.view,
        header.modality,
        time.perf_counter() - start,
        view(radiograph) if pictures and pixels is not None else None,
    )


def _old(age: float) -> str:
    """An age for people: in months under two years."""
    return f"{math.floor(12 * age)} months" if age < 2 else f"{math.floor(age)} years"


def _within(age: float, youngest: float, oldest: float) -> bool:
    """Whether an age lies between two, as people count from two years on: who is five and a half
    is five, whether the header says 005Y or 066M."""
    low = math.floor(youngest) if youngest >= 2 else youngest
    return low <= age < math.floor(oldest) + 1


class Model:
    """A sealed bundle that answers films.

    Parameters
    ----------
    bundle : the model
    threads : of ONNX Runtime; all granted cores where None
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self._threads = threads

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.bundle, self._threads)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n,) logits of films (n, s, s) as ``preprocess`` makes them."""
        return self.engine.run(pixels)[0]

    def probability(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities of logits."""
        return self.bundle.calibration.probability(logits)

    def predict(
        self,
        films: Film | Sequence[Film],
        *,
        operating_point: str | None = None,
        heatmaps: bool = False,
        workers: int | None = None,
        beyond_intended_use: bool = False,
    ) -> list[Prediction]:
        """Answer films: paths, bytes, arrays or radiographs, one or several.

        The answers come in the order of the films; one that cannot be read has an ``error``.
        See :meth:`answers` for the parameters.
        """
        single = isinstance(films, (str, Path, bytes, Radiograph, np.ndarray))
        return list(
            self.answers(
                [films] if single else films,  # type: ignore[list-item, arg-type]
                operating_point=operating_point,
                heatmaps=heatmaps,
                workers=workers,
                beyond_intended_use=beyond_intended_use,
            )
        )

    def answers(
        self,
        films: Iterable[Film],
        *,
        operating_point: str | None = None,
        heatmaps: bool = False,
        workers: int | None = None,
        beyond_intended_use: bool = False,
        progress: Progress = SILENT,
    ) -> Iterator[Prediction]:
        """Answer films one by one, in order, while others are being decoded.

        Parameters
        ----------
        operating_point : by name; the bundle's default where None
        heatmaps : keep the film's pixels and make a heat map
        workers : decoding processes; the granted cores where None
        beyond_intended_use : answer films outside the model's ages and views, and say so
        """
        point = self.bundle.point(operating_point)
        listed = list(films)
        batch: list[tuple[int, Prepared]] = []
        answered: dict[int, Prediction] = {}
        upcoming = 0
        source = self._prepared(listed, workers, heatmaps)
        with progress.stage("films", len(listed)) as advance:
            finished = False
            while not finished:
                item = next(source, None)
                finished = item is None
                if item is not None:
                    i, prepared = item
                    if isinstance(prepared, UnreadableFilm):
                        answered[i] = self._record(
                            _name(listed[i]), point, error=Reason(prepared.code, prepared.text)
                        )
                    else:
                        batch.append((i, prepared))
                if batch and (finished or len(batch) >= BATCH or len(listed) < BATCH):
                    for j, prediction in self._answer(batch, point, heatmaps, beyond_intended_use):
                        answered[j] = prediction
                    batch = []
                while upcoming in answered:
                    yield answered.pop(upcoming)
                    upcoming += 1
                    advance(1)

    def _prepared(
        self, films: list[Film], workers: int | None, pictures: bool
    ) -> Iterator[tuple[int, Prepared | UnreadableFilm]]:
        work = partial(prepare, preprocessing=self.bundle.preprocessing, pictures=pictures)
        outside = [i for i, film in enumerate(films) if isinstance(film, (str, Path, bytes))]
        for i in sorted(set(range(len(films))) - set(outside)):
            try:
                yield i, work(films[i])
            except UnreadableFilm as error:
                yield i, error
        if outside:
            count = min(workers or machine.cores(), len(outside))
            with Workers(count) as pool:
                for k, result in pool.map(work, [films[i] for i in outside]):
                    yield outside[k], result

    def _answer(
        self, batch: list[tuple[int, Prepared]], point: OperatingPoint, heatmaps: bool, beyond: bool
    ) -> Iterator[tuple[int, Prediction]]:
        start = time.perf_counter()
        judged = [self._refusals(film, beyond) for _, film in batch]
        use = [
            film.pixels
            for (_, film), (refusals, _) in zip(batch, judged, strict=True)
            if not refusals and film.pixels is not None
        ]
        logits = iter(self.logits(np.stack(use)) if use else ())
        share = (time.perf_counter() - start) / len(batch)
        for (i, film), (refusals, remarks) in zip(batch, judged, strict=True):
            logit = probability = shown = kind = None
            decision: Decision = "refer"
            if not refusals:
                logit = float(next(logits))
                probability = float(self.probability(np.float64(logit)))
                decision = decide(probability, point)[()]
                if heatmaps and film.pixels is not None:
                    shown, kind = heat(self.engine, film.pixels)
            prediction = self._record(
                film.name,
                point,
                sha256=film.sha256,
                decision=decision,
                probability=probability,
                logit=logit,
                reasons=(*refusals, *remarks, *film.reasons),
                steps=film.steps,
                milliseconds=1000 * (film.seconds + share),
                heat=shown,
                heat_kind=kind,
                film_view=film.picture,
            )
            yield i, prediction

    def _record(self, name: str, point: OperatingPoint, **known: Any) -> Prediction:
        """A prediction of this model; what is not known of the film is None or empty."""
        nothing = dict.fromkeys(("sha256", "decision", "probability", "logit"))
        return Prediction(
            film=names.shown(name),
            target=self.bundle.target,
            operating_point={"name": point.name, "threshold": point.threshold},
            model={"name": self.bundle.name, "digest": self.bundle.digest[:16]},
            **{**nothing, "reasons": (), "steps": (), "milliseconds": 0.0, **known},
        )

    def _refusals(self, film: Prepared, beyond: bool) -> tuple[list[Reason], list[Reason]]:
        """Why this model must not answer the film, and remarks where it answers all the same."""
        use = self.bundle.intended_use
        outside: list[Reason] = []
        ages = use.get("ages")
        if ages and film.age is not None and not _within(film.age, *ages):
            outside.append(
                Reason(
                    "age",
                    f"the patient is {_old(film.age)} old, the model was made for "
                    f"{ages[0]:g} to {ages[1]:g} years",
                )
            )
        for code, value, allowed in (
            ("view", film.view, use.get("views")),
            ("modality", film.modality, use.get("modalities")),
        ):
            if allowed and value and value not in allowed:
                outside.append(
                    Reason(
                        code,
                        f"the film's {code} is {value}, the model was made for "
                        f"{', '.join(allowed)}",
                    )
                )
        if beyond:
            return list(film.refusals), outside
        return [*film.refusals, *outside], []

    def __repr__(self) -> str:
        return f"Model({self.bundle.name!r}, digest={self.bundle.digest[:12]!r})"


def load(
    path: Path | str | None = None, *, allow_modified: bool = False, threads: int | None = None
) -> Model:
    """The model of a bundle or run folder; the one that ships with hilum where ``path`` is None.

    Raises
    ------
    BundleRefused
    """
    if path is None:
        path = SHIPPED
        if not path.is_dir():
            raise BundleRefused(
                "this copy of hilum ships no model: models/pneumonia.hilum. Name one with --model."
            )
    return Model(Bundle.read(path, allow_modified=allow_modified), threads)


def _name(film: Film) -> str:
    if isinstance(film, Radiograph):
        return film.name
    return str(film) if isinstance(film, (str, Path)) else f"<{type(film).__name__}>"
