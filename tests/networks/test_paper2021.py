"""The paper's network in torch."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hilum.errors import UsageError
from hilum.networks.arithmetic import layer_table, paper_network, parameter_shapes
from hilum.networks.paper2021 import Paper2021


def test_it_has_exactly_the_papers_parameters() -> None:
    network = Paper2021()
    assert sum(p.numel() for p in network.parameters()) == 1_467_137
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes == parameter_shapes(paper_network(), 500)


def test_each_block_has_the_size_of_the_table() -> None:
    network = Paper2021(101, kernels=False)
    table = {row.name: row.shape for row in layer_table(paper_network(), 101)}
    films = torch.rand(2, 1, 101, 101)
    assert tuple(network.features(films).shape) == (2, *table["pool5"])
    assert network(films).shape == (2, 1)


def test_pooling_before_relu_changes_nothing() -> None:
    network = Paper2021(94, kernels=False).double()
    films = torch.rand(3, 1, 94, 94, dtype=torch.float64)
    plain = nn.Sequential(
        *(
            layer
            for i in range(1, 6)
            for layer in (network.get_submodule(f"conv{i}"), nn.ReLU(), nn.MaxPool2d(2))
        ),
        nn.Flatten(),
        network.get_submodule("dense1"),
        nn.ReLU(),
        network.get_submodule("dense2"),
        nn.ReLU(),
        network.get_submodule("dense3"),
    )
    grads = []
    for forward in (network, plain):
        network.zero_grad()
        z = forward(films)
        F.binary_cross_entropy_with_logits(
            z, torch.tensor([[0.0], [1.0], [1.0]]).double()
        ).backward()
        grads.append((z.detach(), [p.grad.clone() for p in network.parameters()]))
    assert torch.equal(grads[0][0], grads[1][0])
    for a, b in zip(grads[0][1], grads[1][1], strict=True):
        assert torch.equal(a, b)


def test_the_map_is_flattened_channel_by_channel() -> None:
    network = Paper2021(94, kernels=False)
    films = torch.rand(1, 1, 94, 94)
    flat = network.features(films).numpy(force=True).reshape(1, -1)
    w, b = (t.numpy(force=True) for t in network.get_submodule("dense1").parameters())
    hidden = torch.from_numpy(np.maximum(flat @ w.T + b, 0))
    hidden = F.relu(network.get_submodule("dense2")(hidden))
    torch.testing.assert_close(network.get_submodule("dense3")(hidden), network(films))


def test_the_start_is_glorots_and_a_function_of_the_generator_alone() -> None:
    torch.manual_seed(1)
    a = Paper2021(94)
    torch.manual_seed(2)
    b = Paper2021(94)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)
    b.initialise(torch.Generator().manual_seed(7))
    w = b.get_parameter("conv3.weight")
    assert not torch.equal(a.get_parameter("conv3.weight"), w)
    limit = (6 / (9 * 32 + 9 * 32)) ** 0.5
    assert 0.99 * limit < float(w.detach().abs().max()) <= limit
    assert abs(float(w.detach().std()) - limit / 3**0.5) < 0.02 * limit
    assert not b.get_parameter("dense1.bias").any()


def test_films_that_are_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match="Use 94 or more"):
        Paper2021(64)


def test_kernels_compute_the_same() -> None:
    """With the fast kernels, where this machine has them, outputs and gradients stay."""
    films, answers = torch.rand(4, 1, 94, 94), []
    if Paper2021(94)._fast_kernels(films) is None:
        pytest.skip("the fast kernels are not available on this processor")
    for fast in (True, False):
        network = Paper2021(94, kernels=fast)
        z = network(films)
        z.square().sum().backward()
        answers.append((z.detach(), [p.grad for p in network.parameters()]))
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(answers[0][1], answers[1][1], strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-4


def test_kernels_are_left_out_where_they_cannot_compute() -> None:
    """Double precision, other devices, a traced graph, or by wish: torch alone."""
    network = Paper2021(94)
    assert network._fast_kernels(torch.rand(1, 1, 94, 94).double()) is None
    assert network._fast_kernels(torch.rand(1, 1, 94, 94, device="meta")) is None
    assert Paper2021(94, kernels=False)._fast_kernels(torch.rand(1, 1, 94, 94)) is None


def test_another_module_of_kernels_is_used_through_one_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the network asks of the kernels, shown by kernels made of torch."""
    called = []

    def blocks(x: torch.Tensor, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        called.append(len(layers))
        for weight, bias in layers:
            x = F.relu(F.max_pool2d(F.conv2d(x, weight, bias), 2))
        return x

    module = ModuleType("hilum.networks.kernels")
    module.blocks = blocks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hilum.networks.kernels", module)
    films = torch.rand(2, 1, 94, 94)
    network = Paper2021(94)
    answer = network(films)
    assert called == [5]
    torch.testing.assert_close(answer, Paper2021(94, kernels=False)(films))
    with torch.autocast("cpu", torch.bfloat16):
        network(films).sum().backward()
    assert network.get_parameter("conv1.weight").grad.dtype == torch.float32
