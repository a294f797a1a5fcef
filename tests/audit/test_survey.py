"""What is kept of films: in files, by row and by column, and little of it in memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.audit.columns import Facts, numbered
from hilum.audit.survey import NUMBERS, WORDS, Columns, Scratch, Survey
from hilum.datasets.columns import Texts


def test_scratch_gives_back_the_rows_that_were_written() -> None:
    kept = Scratch(5, (2, 3))
    kept.keep(3, bytes(range(6)))
    assert kept[np.array([3, 0])].tolist() == [[[0, 1, 2], [3, 4, 5]], [[0, 0, 0], [0, 0, 0]]]
    assert kept[np.zeros(0, np.int64)].shape == (0, 2, 3)


def test_columns_are_unknown_until_written() -> None:
    columns = Columns(("width", "height"), 3)
    columns.keep(1, (40.0, 1e9 + 1))
    assert list(columns) == ["width", "height"] and len(columns) == 2
    np.testing.assert_array_equal(columns["width"], [np.nan, 40, np.nan])
    np.testing.assert_array_equal(columns["height"], [np.nan, 1e9 + 1, np.nan])
    with pytest.raises(KeyError):
        columns["depth"]


@given(st.lists(st.text("abAB é", max_size=3)))
def test_texts_are_numbered_in_their_order(texts: list[str]) -> None:
    expected = np.unique(np.array([*texts, ""], dtype=str), return_inverse=True)[1].reshape(-1)
    assert numbered([*texts, ""]).tolist() == expected.tolist()


def test_what_pictures_look_at_takes_few_bytes_a_film() -> None:
    """The 64 numbers of a thumbnail, once as parts and once whole, took a kilobyte a film."""

    def taken(films: int) -> int:
        seen = Survey(
            numbers=Columns(NUMBERS, films),
            words={name: Texts([""] * films) for name in WORDS},
            file=Scratch(films, (16,)),
            copy=Scratch(films, (16,)),
            hash=Scratch(films, (32,)),
            copies=Scratch(films, (64, 64)),
            readable=np.ones(films, bool),
        )
        tracemalloc.start()
        facts = Facts(seen, np.arange(films))
        assert {len(facts[name]) for name in facts} == {films}
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert taken(8192) - taken(1024) < 100 * (8192 - 1024)
