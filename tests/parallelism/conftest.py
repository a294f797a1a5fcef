"""The benchmark's own modules, and a small task for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks" / "parallelism"))

if TYPE_CHECKING:
    from task import Task


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Four updates of 8 films of 94 × 94 pixels, with copies of the weights after each."""
    from task import Task, make_films

    folder = make_films(tmp_path_factory.mktemp("task") / "films", 40, 94)
    return Task(folder, 94, held_out=8, seed=3, batch=8, updates=4, every=1)
