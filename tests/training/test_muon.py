"""Muon: its kernel against torch's own operators, and what it promises about matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hilum.native import library
from hilum.training import muon, optimiser
from hilum.training.learner import libraries
from hilum.training.recipe import Optimiser, Recipe

SHAPES = [(16, 4, 3, 3), (64, 32, 3, 3), (32, 16, 1, 1), (5, 3, 3, 3), (70, 7, 1, 1), (1, 2, 3, 3)]
needs_kernel = pytest.mark.usefixtures("built")


@pytest.fixture
def built() -> None:
    found, why = library.load("muon")
    if found is None:
        pytest.skip(why)


def weights(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [nn.Parameter(t.contiguous(memory_format=torch.channels_last)) for t in drawn]


def trained(monkeypatch: pytest.MonkeyPatch, kernel: bool, threads: int = 1) -> list[torch.Tensor]:
    """Weights and memory after some steps; some gradients are none, and some lie otherwise."""
    parameters = [nn.Parameter(w.detach() / 100) for w in weights(0)]
    one = muon.Muon(parameters, Optimiser("muon", weight_decay=0.1), threads)
    if not kernel:
        monkeypatch.setattr(one, "_kernel", lambda: None)
    for step in range(5):
        for k, (p, g) in enumerate(zip(parameters, weights(step + 1), strict=True)):
            p.grad = None if k == step else g.detach() / 100 if k % 2 else g.detach().contiguous()
        one.step(0.5 + step / 10)
    return [*(p.detach() for p in parameters), *one.means]


@needs_kernel
def test_the_kernel_is_torchs_update(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = trained(monkeypatch, True), trained(monkeypatch, False)
    assert any(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # another way
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@needs_kernel
def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trained(monkeypatch, True)
    for threads in (2, 3, 8):
        assert all(map(torch.equal, alone, trained(monkeypatch, True, threads)))


@needs_kernel
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e12])
@pytest.mark.parametrize("turned", [False, True])
def test_a_gradients_size_does_not_matter(size: float, turned: bool) -> None:
    """Nor do directions that it hardly has: singular values from 1 down to a millionth."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]
        for n in (48, 90)
    )
    gradient = (left * torch.logspace(0, -6, 48, dtype=torch.float64)) @ right[:48] * size
    gradient = gradient.T if turned else gradient
    p = nn.Parameter(torch.zeros(*gradient.shape, 1, 1))
    p.grad = gradient.float().view_as(p)
    muon.Muon([p], Optimiser("muon", muon_lr=1.0, weight_decay=0.0)).step(1.0)
    exact = muon.orthogonalise(gradient) * max(1, len(p) / p.shape[1]) ** 0.5
    assert (p.detach()[..., 0, 0] + exact).norm() < 2e-3 * exact.norm()


@needs_kernel
def test_nothing_moves_without_a_gradient_and_nan_does_not_get_lost() -> None:
    p = nn.Parameter(torch.ones(8, 4, 3, 3))
    one = muon.Muon([p], Optimiser("muon", weight_decay=0.0))
    one.step(1.0)
    assert torch.equal(p, torch.ones_like(p))
    p.grad = torch.full_like(p, float("nan"))
    one.step(1.0)
    assert p.isnan().all()


@pytest.mark.parametrize(
    "parameter",
    [
        torch.zeros(4, 4, 3, 3, dtype=torch.float64),
        torch.zeros(4, 8, 3, 3)[:, ::2],  # with gaps
    ],
)
def test_what_the_kernel_lacks_torch_computes(parameter: torch.Tensor) -> None:
    p: Any = nn.Parameter(parameter)
    p.grad = torch.ones_like(p)
    one = muon.Muon([p], Optimiser("muon"))
    assert one._kernel() is None
    one.step(1.0)
    assert bool(p.isfinite().all()) and bool(p.any())


def test_orthogonalised_matrices_have_singular_values_of_about_one() -> None:
    for shape in ((8, 20), (20, 8)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        found = torch.linalg.svdvals(muon.orthogonalise(matrix, 5))
        assert found.min() > 0.6 and found.max() < 1.3


def test_it_takes_the_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 1))
    first, rest = optimiser.make(model, Optimiser("muon"))
    assert isinstance(first, muon.Muon) and isinstance(rest, optimiser.Adam)
    assert [p.ndim for p in first.parameters] == [4] and len(rest.parameters) == 3


def test_a_training_has_its_optimisers_library_built() -> None:
    assert libraries(Recipe.load("paper2021")) == ("films", "blocks")
    assert libraries(Recipe.load("paper2021", ["optimiser.name=muon"])) == (
        "films",
        "blocks",
        "muon",
    )
    assert libraries(Recipe.load("fast")) == ("films", "residual", "muon")
