from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.bundle import Bundle
from hilum.errors import BundleRefused
from hilum.inference.engine import BATCH, Engine, at_once
from hilum.inference.heatmap import class_activation, heat, occlusion


def films(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size), np.uint8)


@pytest.mark.parametrize("n", [0, 1, 3, BATCH, BATCH + 1])
def test_logits_do_not_depend_on_the_batch(bundle: Bundle, n: int) -> None:
    engine = Engine(bundle, threads=1)
    batch = films(n)
    logits, cams = engine.run(batch, cam=True)
    assert logits.shape == (n,)
    expected = (batch.reshape(n, -1).mean(1) / 255 - 0.5) * 8 if n else np.zeros(0)
    assert np.allclose(logits, expected, atol=1e-4)
    if n:
        assert cams is not None and cams.shape == (n, 4, 4)
        assert np.allclose(cams.mean((1, 2)), logits, atol=1e-4)


def test_large_films_are_run_a_few_at_a_time(bundle: Bundle) -> None:
    """At 500 pixels a layer's outputs for 32 of them would take 1 GB in each thread."""
    assert [at_once(size) for size in (1, 64, 128, 224, 500, 5000)] == [32, 32, 32, 10, 2, 1]
    engine, batch = Engine(bundle, threads=1), films(5)
    assert engine.batch == BATCH
    together, maps = engine.run(batch, cam=True)
    engine.batch = 2
    logits, cams = engine.run(batch, cam=True)
    assert np.array_equal(logits, together)
    assert cams is not None and maps is not None and np.array_equal(cams, maps)


@pytest.mark.parametrize(
    "wrong",
    [films(1).astype(np.float32), films(1, 16), films(1)[0]],
    ids=["floats", "size", "dimensions"],
)
def test_raw_tensors_are_refused(bundle: Bundle, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="preprocess"):
        Engine(bundle).run(wrong)


def test_a_graph_that_cannot_run_is_one_line(bundle: Bundle) -> None:
    with pytest.raises(BundleRefused, match="cannot be run"):
        Engine(replace(bundle, model=b"not a graph"))


def test_evidence_against_is_not_drawn_and_weak_evidence_is_pale() -> None:
    drawn = class_activation(np.array([[-5.0, 0.0], [1.0, 2.0]]))
    assert drawn[0].tolist() == [0.0, 0.0]
    assert drawn[1].tolist() == [0.25, 0.5]
    assert class_activation(np.array([[8.0, 4.0]])).tolist() == [[1.0, 0.5]]


def test_occlusion_finds_the_place_that_counts(bundle_without_cam: Bundle) -> None:
    engine = Engine(bundle_without_cam, threads=1)
    film = np.zeros((32, 32), np.uint8)
    film[20:28, 4:12] = 255
    drawn, kind = heat(engine, film)
    assert kind == "occlusion"
    assert np.array_equal(drawn, occlusion(engine, film))
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert 20 <= (row + 0.5) * 32 / 12 <= 28 and 4 <= (column + 0.5) * 32 / 12 <= 12
