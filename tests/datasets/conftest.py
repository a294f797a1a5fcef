"""Tiny made-up films in folders and tables."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., list[Path]]


def film(seed: int = 0, side: int = 24) -> bytes:
    """A PNG of noise about a bright middle, so that it may pass for a chest film: no two seeds
    give the same pixels."""
    values = np.random.default_rng(seed).integers(0, 128, (side, side + 8), np.uint8)
    values[:, (side + 8) // 3 : -(side + 8) // 3] += 128
    stream = BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("train/NORMAL/a.png", ...)`` writes a film to each path below ``tmp_path/set``."""

    def _write(*paths: str, data: bytes | None = None) -> list[Path]:
        written = []
        for path in paths:
            target = tmp_path / "set" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            seed = sum(map(ord, path)) * 1000 + len(path)
            target.write_bytes(film(seed) if data is None else data)
            written.append(target)
        return written

    return _write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that ``write`` writes to."""
    folder = tmp_path / "set"
    folder.mkdir(exist_ok=True)
    return folder
