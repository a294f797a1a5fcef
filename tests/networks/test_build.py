"""Networks by name, and their tables."""

from __future__ import annotations

import pytest
import torch

from hilum.errors import UsageError
from hilum.native import library
from hilum.networks.arithmetic import layer_table as calculated
from hilum.networks.arithmetic import paper_network, text
from hilum.networks.build import NETWORKS, build, layer_table, named

SIZE = {"paper2021": 94, "compact": 64}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_answers_films_and_says_what_it_takes(name: str) -> None:
    network = build(name, SIZE[name]).eval()
    assert network.input_scaling in ("unit", "standardise")
    assert isinstance(network.cam, bool)
    size = SIZE[name]
    assert network(torch.rand(3, 1, size, size)).shape == (3, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_table_counts_every_parameter(name: str) -> None:
    network = build(name, SIZE[name])
    network.train()
    table = layer_table(network, SIZE[name])
    assert sum(row.parameters for row in table) == sum(p.numel() for p in network.parameters())
    assert network.training  # looking at it leaves it as it was
    assert "total" in text(table)


def test_the_papers_table_is_calculated() -> None:
    assert layer_table(build("paper2021", 94), 94) == calculated(paper_network(), 94)


def test_what_is_watched_agrees_with_what_is_calculated() -> None:
    network = build("paper2021", 94, kernels=False)
    rows = {row.name: row for row in layer_table(network, 94)}
    del network.description  # now it is watched
    watched = [row for row in layer_table(network, 94) if row.parameters]
    assert len(watched) == 8
    for row in watched:
        same = rows[row.name]
        assert (row.shape, row.parameters, row.multiply_adds) == (
            same.shape,
            same.parameters,
            same.multiply_adds,
        )


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("paper2021", "filters", 8), ("paper2021", "filters", [0, 4]),
        ("paper2021", "filters", [4.5]), ("paper2021", "units", "x"),
        ("paper2021", "kernels", 1), ("compact", "width", -3), ("compact", "dropout", "a"),
        ("compact", "dropout", 3), ("compact", "blocks", []),
    ],
)  # fmt: skip
def test_what_is_no_value_of_an_option_is_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(UsageError, match=option):
        build(name, 128, **{option: value})


def test_unknown_names_and_options_get_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'paper2021'"):
        build("paper2020", 500)
    with pytest.raises(UsageError, match="Did you mean 'filters'"):
        build("paper2021", 500, filter=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_names_libraries_that_are_built(name: str) -> None:
    assert set(named(name).libraries) <= set(library.NAMES)


def test_every_source_is_a_library() -> None:
    assert sorted(library.NAMES) == sorted(path.stem for path in library.FOLDER.glob("*.cpp"))
