"""Timers around the reference's formulas, set for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from hilum.networks import reference
from hilum.training import sequential

_WATCHED: tuple[tuple[Any, str, str], ...] = (
    (reference, "correlate", "convolution"),
    (reference, "full_convolution", "convolution"),
    (reference, "weight_gradients", "convolution"),
    (reference, "max_pool", "pooling"),
    (reference, "max_pool_gradient", "pooling"),
    (reference, "dense", "dense"),
    (reference, "dense_gradients", "dense"),
    (reference.Adam, "step", "optimiser"),
    (sequential, "augment", "data"),
    (sequential, "scale", "data"),
)


@contextmanager
def timers() -> Iterator[dict[str, float]]:
    """Seconds spent in the formulas, by part; one that another calls counts with its caller."""
    spent: dict[str, float] = {}
    inside = False

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal inside
            if inside:
                return function(*arguments, **named)
            inside, began = True, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                inside = False
                spent[part] = spent.get(part, 0.0) + time.perf_counter() - began

        return call

    before = [(where, name, getattr(where, name)) for where, name, _ in _WATCHED]
    try:
        for where, name, part in _WATCHED:
            setattr(where, name, timed(part, getattr(where, name)))
        yield spent
    finally:
        for where, name, function in before:
            setattr(where, name, function)
