"""Labelled films whose brightness tells, more or less, the class; and scores without films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.datasets.manifest import Manifest
from hilum.evaluation.scores import Scores


def made_scores(patients: int = 60, each: int = 2, seed: int = 0, refused: int = 0) -> Scores:
    """Made-up scores: ``each`` films a patient, two thirds positive, the first few refused."""
    rng = np.random.default_rng(seed)
    n = patients * each
    label = np.repeat((np.arange(patients) % 3 > 0).astype(np.int8), each)
    logit = 3.0 * label - 1.5 + np.repeat(rng.normal(0, 1, patients), each) + rng.normal(0, 0.7, n)
    logit[:refused] = np.nan
    return Scores(
        film=tuple(f"film{i}.png" for i in range(n)),
        patient=tuple(f"p{i // each}" for i in range(n)),
        part=("test",) * n,
        label=label,
        logit=logit,
        probability=1 / (1 + np.exp(-logit)),
        refused=tuple("lateral: a lateral view" if i < refused else "" for i in range(n)),
        error=("",) * n,
    )


def bright_films(folder: Path, patients: int = 24, *, seed: int = 0, classes: int = 2) -> Manifest:
    """PNG files, two a patient; class 1 is brighter than class 0, with overlap."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    path, label, patient = [], [], []
    # Bright in the middle and below, so that nobody takes it for a negative.
    chest = np.linspace(-25, 25, 40)[:, None] + 60 - 2.7 * np.abs(np.arange(44) - 21.5)[None, :]
    for p in range(patients):
        kind = p % classes
        level = 80 + 50 * kind + rng.normal(0, 25)
        for k in range(2):
            film = np.clip(level + chest + rng.normal(0, 12, (40, 44)), 0, 255).astype(np.uint8)
            name = f"child{p:02d}_{k}.png"
            Image.fromarray(film).save(folder / name)
            path.append(name)
            label.append(kind)
            patient.append(f"child{p:02d}")
    n = len(path)
    return Manifest(
        root=folder,
        path=tuple(path),
        label=np.array(label, np.int8),
        patient=tuple(patient),
        part=("",) * n,
        extra={
            "view": tuple("PA" if i % 4 < 2 else "AP" for i in range(n)),
            "age": tuple(str(1 + i % 9) for i in range(n)),
            "subtype": tuple(("", "virus", "", "bacteria")[i // 2 % 4] for i in range(n)),
        },
    )


@pytest.fixture
def films(tmp_path: Path) -> Manifest:
    return bright_films(tmp_path / "bright")
