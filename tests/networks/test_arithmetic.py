"""The paper's rules for sizes, and the table that follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import UsageError
from hilum.networks.arithmetic import (
    fans,
    layer_table,
    n_out,
    paper_network,
    parameter_shapes,
    same_padding,
    text,
    volume,
)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 4))
def test_n_out_counts_the_places_of_the_filter(n_in: int, f: int, s: int, p: int) -> None:
    places = len([start for start in range(0, n_in + 2 * p, s) if start + f <= n_in + 2 * p])
    if places == 0:
        with pytest.raises(ValueError, match="does not fit"):
            n_out(n_in, f, s, p)
    else:
        assert n_out(n_in, f, s, p) == places


@given(st.integers(1, 200), st.integers(0, 5).map(lambda k: 2 * k + 1))
def test_same_padding_keeps_the_size(n: int, f: int) -> None:
    assert n_out(n, f, 1, same_padding(f)) == n


@pytest.mark.parametrize(("f", "s"), [(2, 1), (4, 1), (0, 1), (3, 2)])
def test_same_padding_refuses_what_has_no_such_frame(f: int, s: int) -> None:
    with pytest.raises(ValueError, match="same size needs"):
        same_padding(f, s)


@pytest.mark.parametrize("wrong", [(0, 3, 1, 0), (5, 0, 1, 0), (5, 3, 0, 0), (5, 3, 1, -1)])
def test_n_out_refuses_numbers_that_make_no_sense(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no such layer"):
        n_out(*wrong)


def test_volume_needs_the_same_channels() -> None:
    assert volume((3, 10, 12), (8, 3, 5, 5), s=1, p=2) == (8, 10, 12)
    with pytest.raises(ValueError, match="channels"):
        volume((3, 10, 10), (8, 1, 3, 3))


def test_the_papers_network() -> None:
    table = {row.name: row for row in layer_table(paper_network(), 500)}
    sides = [table[f"{kind}{i}"].shape[-1] for i in range(1, 6) for kind in ("conv", "pool")]
    assert sides == [498, 249, 247, 123, 121, 60, 58, 29, 27, 13]
    assert table["flatten"].shape == (10_816,)
    parameters = [row.parameters for row in table.values() if row.parameters]
    assert parameters == [320, 9_248, 9_248, 18_496, 36_928, 1_384_576, 8_256, 65]
    assert sum(parameters) == 1_467_137
    assert table["conv1"].multiply_adds == 498 * 498 * 32 * 9


def test_a_table_with_step_and_frame() -> None:
    from hilum.networks.arithmetic import Convolution

    (_, row) = layer_table((Convolution("c", 6, size=5, step=2, padding=2),), 11, channels=3)
    assert row.shape == (6, 6, 6)
    assert row.parameters == 6 * (3 * 25 + 1)


@given(st.integers(94, 300))
def test_shapes_are_those_of_the_table(size: int) -> None:
    shapes = parameter_shapes(paper_network(), size)
    table = layer_table(paper_network(), size)
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count == sum(row.parameters for row in table)


@pytest.mark.parametrize(
    ("size", "layer"), [(1, "conv1"), (3, "pool1"), (45, "pool4"), (93, "pool5")]
)
def test_too_small_films_name_the_layer_and_the_least_size(size: int, layer: str) -> None:
    with pytest.raises(UsageError, match=rf"{layer} has no room. Use 94 or more"):
        layer_table(paper_network(), size)
    layer_table(paper_network(), 94)


def test_fans_count_the_receptive_field() -> None:
    assert fans((32, 1, 3, 3)) == (9, 288)
    assert fans((128, 10_816)) == (10_816, 128)


def test_the_text_lines_up() -> None:
    lines = text(layer_table(paper_network(), 500)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["total", "1,467,137", "858,887,360"]
