"""Batch normalisation, sum and ReLU as one kernel against torch in float64."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hilum.native import library
from hilum.networks import kernels


@pytest.fixture(autouse=True)
def built() -> None:
    if not kernels.available("residual"):
        pytest.skip(kernels.status())


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(seed: int, *shape: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def a_norm(channels: int, seed: int = 0, **options: float | None) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


def torch_normalised(z: Tensor, norm: nn.BatchNorm2d, beside: Tensor | None, relu: bool) -> Tensor:
    y: Tensor = norm(z) if beside is None else norm(z) + beside
    return y.relu() if relu else y


def everything(
    layer,
    norm: nn.BatchNorm2d,
    z: Tensor,
    beside: Tensor | None,
    relu: bool,
    dy: Tensor | None = None,
) -> list[Tensor]:
    """Output, all gradients and the running statistics."""
    z = z.detach().requires_grad_()
    beside = None if beside is None else beside.detach().requires_grad_()
    y = layer(z, norm, beside, relu)
    y.backward((draw(99, *y.shape) if dy is None else dy).to(y.dtype))
    leaves = [leaf for leaf in (z, beside, norm.weight, norm.bias) if leaf is not None]
    made = [y.detach(), *(leaf.grad for leaf in leaves), norm.running_mean, norm.running_var]
    return made  # type: ignore[return-value]


@given(
    seed=st.integers(0, 99),
    n=st.integers(2, 5),
    channels=st.sampled_from([16, 32, 48, 80]),
    h=st.integers(2, 37),  # of two values the gradient is all but zero, and rounding all there is
    w=st.integers(2, 37),
    relu=st.booleans(),
    summed=st.booleans(),
    away=st.sampled_from([0.0, 100.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=60)
def test_equals_torch(seed, n, channels, h, w, relu, summed, away, dtype):
    z = (draw(seed, n, channels, h, w) * 3 + away).to(dtype)
    beside = draw(seed + 1, n, channels, h, w).to(dtype) if summed else None
    norm = a_norm(channels, seed)
    whole = (z.double(), None if beside is None else beside.double(), relu)
    y = torch_normalised(whole[0], deepcopy(norm).double(), *whole[1:]).detach()
    # Where a value lies so near to the ReLU's edge that rounding decides, no gradient flows.
    dy = (draw(seed + 2, *y.shape) * (y > 1e-3 if relu else 1)).to(dtype)
    exact = everything(torch_normalised, deepcopy(norm).double(), *whole, dy=dy)
    ours = everything(kernels.normalised, norm, z, beside, relu, dy=dy)
    for mine, true in zip(ours, exact, strict=True):
        scale = float(true.norm()) + 1e-30
        error = float((mine.double() - true).norm()) / scale
        # Only maps are rounded to bfloat16: sums of them are as exact as in float32.
        rounding = 2**-8 if mine.dtype == torch.bfloat16 else 1e-5 * (1 + away)
        assert mine.shape == true.shape and error < rounding


def test_autocast_is_no_nearer_to_the_truth():
    z, beside = (draw(k, 8, 32, 16, 16).bfloat16().float() for k in (1, 2))
    whole = (z.double(), beside.double(), True)
    exact = everything(torch_normalised, a_norm(32).double(), *whole)
    half = (z.bfloat16(), beside.bfloat16(), True)
    with torch.autocast("cpu", torch.bfloat16):
        ours = everything(kernels.normalised, a_norm(32), *half)
        theirs = everything(torch_normalised, a_norm(32), *half)
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        distances = [float((t.double() - true).norm()) for t in (mine, other)]
        assert distances[0] <= 1.02 * distances[1] + 1e-6 * float(true.norm())


def test_more_threads_give_the_same(threads):
    z, beside = draw(1, 32, 16, 32, 32), draw(2, 32, 16, 32, 32)
    found = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(everything(kernels.normalised, a_norm(16), z, beside, True))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_running_statistics_follow_as_torchs_do(momentum):
    ours, theirs = a_norm(16, momentum=momentum), a_norm(16, momentum=momentum)
    for seed in range(3):
        z = draw(seed, 4, 16, 9, 9) + seed
        kernels.normalised(z, ours)
        theirs(z)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 3
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_a_value_that_is_not_finite_does_not_get_lost():
    z = draw(1, 2, 16, 8, 8)
    z[0, 3, 4, 5] = float("nan")
    y = kernels.normalised(z, a_norm(16))
    assert y[:, 3].isnan().all() and y[:, 4].isfinite().all()


def test_a_gradient_that_nobody_wants_is_not_computed():
    z, beside = draw(1, 2, 16, 8, 8).requires_grad_(), draw(2, 2, 16, 8, 8)
    kernels.normalised(z, a_norm(16), beside).sum().backward()
    assert z.grad is not None and beside.grad is None


@pytest.mark.parametrize(
    "z",
    [
        draw(1, 2, 12, 8, 8),  # a number of channels that the kernels lack
        draw(1, 2, 16, 8, 8).double(),
    ],
)
def test_what_the_kernels_lack_torch_computes(z):
    norm = a_norm(z.shape[1]).to(z.dtype)
    y = kernels.normalised(z, norm)
    assert "Normalised" not in str(y.grad_fn)
    assert torch.equal(y, torch_normalised(z, norm, None, True))


def test_a_norm_that_learns_nothing_is_torchs():
    z, norm = draw(1, 2, 16, 8, 8), nn.BatchNorm2d(16, affine=False)
    assert torch.equal(kernels.normalised(z, norm), torch_normalised(z, norm, None, True))


def test_a_network_that_answers_is_torchs():
    """Its statistics are those that were learnt, and an exporter has to see them."""
    z, norm = draw(1, 2, 16, 8, 8), a_norm(16).eval()
    assert torch.equal(kernels.normalised(z, norm), torch_normalised(z, norm, None, True))
    assert norm.num_batches_tracked == 0


def test_without_kernels_nothing_is_missing(monkeypatch):
    z, beside = draw(1, 2, 16, 8, 8), draw(2, 2, 16, 8, 8)
    monkeypatch.setattr(library, "load", lambda name: (None, "there is no C++ compiler"))
    ours = everything(kernels.normalised, a_norm(16), z, beside, True)
    theirs = everything(torch_normalised, a_norm(16), z, beside, True)
    assert all(map(torch.equal, ours, theirs))
