from __future__ import annotations

import io

import dicoms
import numpy as np
from PIL import Image

from hilum.films.picture import blend, mosaic, png
from hilum.films.read import read

FILM = dicoms.chest(60, 50, bits=8)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_png_gives_the_values_back() -> None:
    np.testing.assert_array_equal(opened(png(FILM)), FILM)
    np.testing.assert_array_equal(
        opened(png(np.array([[0.4, 254.6, 300, -5]]))), [[0, 255, 255, 0]]
    )
    colour = np.stack([FILM, FILM, FILM], axis=-1)
    np.testing.assert_array_equal(opened(png(colour)), colour)


def test_a_blend_leaves_cold_places_grey_and_reddens_hot_ones() -> None:
    heat = np.zeros((6, 5))
    heat[:, 3:] = 1
    seen = blend(FILM, heat).astype(int)
    assert seen.shape == (60, 50, 3)
    np.testing.assert_array_equal(seen[:, 0], np.stack([FILM[:, 0]] * 3, axis=-1))
    hot = seen[:, -1]
    assert (hot[:, 0] > hot[:, 1] + 30).all() and (hot[:, 0] > hot[:, 2] + 30).all()
    warmer = blend(FILM, np.full((1, 1), 0.6)).astype(int)
    assert np.abs(warmer - seen).max() > 0


def test_a_mosaic_holds_all_pictures_in_order() -> None:
    pictures = [np.full((10 + 5 * n, 20), 40 * n + 10, np.uint8) for n in range(5)]
    page = mosaic(pictures, 3)
    assert page.ndim == 2
    for n in range(5):
        assert (page == 40 * n + 10).sum() == pictures[n].size
    assert mosaic(pictures, 3, [f"film {n}" for n in range(5)]).shape[0] > page.shape[0]
    assert mosaic([FILM, np.stack([FILM] * 3, -1)], 2).ndim == 3
    assert mosaic([], 3).size == 1


def test_a_film_shows_itself_as_png() -> None:
    np.testing.assert_array_equal(opened(read(FILM)._repr_png_()), FILM)
