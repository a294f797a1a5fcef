"""Films for the tests of the audit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hilum.audit.survey import Survey, survey
from hilum.datasets.index import open_data
from hilum.datasets.manifest import Manifest
from hilum.films.workers import Workers

Look = Callable[[Path], tuple[Manifest, Survey]]


@pytest.fixture(scope="session")
def looked_at() -> Look:
    """Index a folder and look at its films, in this process."""

    def look(folder: Path) -> tuple[Manifest, Survey]:
        manifest = open_data(folder, draw=False, allow_leak=True)
        return manifest, survey(manifest, Workers(0))

    return look
