"""Small films, small recipes and what they make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hilum.machine import Place
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

CPU = Place("cpu", 1, 1, "float32")


def films_of(count: int, size: int = 32, seed: int = 0) -> Films:
    """Noise with a bright square in the positive ones: learnt within a few epochs."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 > 0).astype(np.int8)
    pixels = rng.integers(20, 160, (count, size, size), dtype=np.uint8)
    third = size // 3
    pixels[labels == 1, third : 2 * third, third : 2 * third] += 90
    return Films(pixels, np.arange(count), labels, rng.integers(0, 2**62, count))


def film(rng: np.random.Generator, height: int, width: int, label: int) -> Any:
    """(height, width) uint8 noise with light and dark laid out as on a chest film, so that it is
    not referred as a negative; a bright square in one lung where positive."""
    y, x = np.mgrid[0 : 1 : height * 1j, -1 : 1 : width * 1j]
    mediastinum = 70 * np.exp(-((x / 0.3) ** 2)) + 50 * (y > 0.7)
    found = rng.integers(20, 120, (height, width)) + mediastinum * (np.abs(x) < 0.85)
    found[int(0.3 * height) : int(0.6 * height), int(0.6 * width) : int(0.85 * width)] += 90 * label
    return found.clip(0, 255).astype(np.uint8)


def recipe_of(name: str = "compact", size: int = 32, /, **tables: dict[str, Any]) -> Recipe:
    """A recipe of three short epochs; ``tables`` change its tables."""
    content: dict[str, Any] = {
        "network": {"name": name},
        "preprocessing": {"size": size},
        "training": {"epochs": 3, "batch": 8, "precision": "float32"},
        "augmentation": {"flip": True, "zoom": 0.1},
    }
    for key, table in tables.items():
        content[key] = {**content.get(key, {}), **table}
    return Recipe.from_dict(content)


@pytest.fixture(scope="session")
def part() -> Films:
    return films_of(36)


@pytest.fixture(scope="session")
def other() -> Films:
    return films_of(18, seed=1)


def at(place: Place, precision: str) -> Place:
    return replace(place, precision=precision)
