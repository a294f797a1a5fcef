"""A dense layer's gradient by its factors: in one process against torch, in two against one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from hilum.training import factors
from hilum.training.exchange import ByMessages
from hilum.training.factors import ByFactors, few


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30, bias=bias), nn.ReLU(), nn.Linear(30, 2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("alone")
def test_gradients_are_those_of_the_layer(dtype: torch.dtype, bias: bool) -> None:
    plain, shared = network(bias), network(bias)
    # Room for more films than come: a share of the last batch is smaller.
    by_factors = ByFactors(shared, [shared[0].weight], films=7, exchange=ByMessages(1))
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    for _ in range(2):  # a second step begins afresh
        for model in (plain, by_factors):
            model.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                model(x).float().square().sum().backward()
        assert shared[0].weight.grad is None and shared[2].weight.grad is not None
        by_factors.factored.exchange.collect()
        by_factors.collect()
        for mine, theirs in zip(shared.parameters(), plain.parameters(), strict=True):
            assert mine.grad is not None and theirs.grad is not None
            assert mine.grad.dtype == torch.float32
            close = 1e-6 if dtype == torch.float32 else 1e-2
            assert (mine.grad - theirs.grad).norm() <= close * theirs.grad.norm()


def test_an_input_that_wants_a_gradient_gets_it(alone: None) -> None:
    plain, shared = network(), network()
    found = []
    for model in (plain, ByFactors(shared, [shared[0].weight], films=5, exchange=ByMessages(1))):
        x = torch.ones(5, 40, requires_grad=True)
        model(x).sum().backward()
        found.append(x.grad)
    assert torch.allclose(*found)


def test_layers_whose_factors_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "WORTH_IT", 0)
    assert list(few(network(), 17)) == ["0.weight"]  # 17 · 70 numbers for 1,200
    assert list(few(network(), 18)) == []
    monkeypatch.setattr(factors, "WORTH_IT", 100)
    assert list(few(network(), 17)) == []


def test_the_papers_first_dense_layer_is_one() -> None:
    from hilum.networks.paper2021 import Paper2021

    assert list(few(Paper2021(500), 16)) == ["dense1.weight"]
    assert list(few(Paper2021(500), 128)) == []
