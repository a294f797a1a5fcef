"""hilum: from a folder of chest X-rays to a pneumonia classifier, and an answer for a film.

    import hilum

    film = hilum.read("film.jpg")
    model = hilum.load()
    model.predict([film])

Not a medical device. Public names are listed in ``__all__``; the rooms behind them load when a
name is first used, so that ``import hilum`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "read": "hilum.films.read",
    "find": "hilum.films.read",
    "Radiograph": "hilum.films.radiograph",
    "Preprocessing": "hilum.films.preprocess",
    "preprocess": "hilum.films.preprocess",
    "index": "hilum.datasets.index",
    "Manifest": "hilum.datasets.manifest",
    "load": "hilum.inference.model",
    "Model": "hilum.inference.model",
    "Prediction": "hilum.inference.prediction",
    "evaluate": "hilum.evaluation.evaluate",
    "train": "hilum.training.train",
    "audit": "hilum.audit.audit",
    "compare": "hilum.experiments.compare.compare",
    "reproduce": "hilum.experiments.reproduce.reproduce",
    "errors": "hilum",
}

__all__ = [*sorted(_WHERE), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("hilum.errors")
    if name in _WHERE:
        try:
            return getattr(import_module(_WHERE[name]), name)
        except ModuleNotFoundError as error:
            from hilum.errors import missing_extra

            raise missing_extra(error) or error from error
    raise AttributeError(f"module 'hilum' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
