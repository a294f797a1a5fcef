"""The GPU kernels, on a GPU or by Triton's interpreter (TRITON_INTERPRET=1); their algorithm, in
plain torch, everywhere."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from hilum.networks.kernels import gpu
from hilum.networks.paper2021 import Paper2021

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NHWC = torch.channels_last


def windows(maps: Tensor) -> Tensor:
    """(n, c, h, w) → (n, c, h // 2, w // 2, 4): the values of each window, row by row."""
    n, c, h, w = maps.shape
    cut = maps[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    return cut.permute(0, 1, 2, 4, 3, 5).flatten(4)


def winners(maps: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU of 2 × 2 max-pooling, and who won: 0 to 3 row by row, 4 where ReLU cut off."""
    best = torch.full_like(windows(maps)[..., 0], -torch.inf)
    winner = torch.zeros_like(best, dtype=torch.uint8)
    for k in range(4):
        value = windows(maps)[..., k]
        better = (value > best) | value.isnan()
        best, winner = torch.where(better, value, best), winner.masked_fill(better, k)
    dead = best <= 0
    return best.masked_fill(dead, 0), winner.masked_fill(dead, 4)


def from_winners(x: Tensor, dy: Tensor, winner: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a 3 × 3 convolution of one channel, weight (c, 1, 3, 3) and bias (c,)."""
    weight = torch.zeros(dy.shape[1], 9, dtype=dy.dtype)
    for k in range(4):
        alive = torch.where(winner == k, dy, 0)
        for tap in range(9):
            y, z = k // 2 + tap // 3, k % 2 + tap % 3
            seen = x[:, :, y:, z:][:, :, ::2, ::2][:, :, : dy.shape[2], : dy.shape[3]]
            weight[:, tap] += (alive * seen).sum((0, 2, 3))
    return weight.view(-1, 1, 3, 3), torch.where(winner < 4, dy, 0).sum((0, 2, 3))


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64, rough: bool = False) -> Any:
    """Normal numbers; ``rough``: few values, so that ties are many."""
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (found.round() if rough else found).to(dtype)


@given(st.integers(0, 2**20), st.integers(4, 13), st.integers(4, 13), st.booleans())
@settings(max_examples=25)
def test_the_algorithm_is_torchs_formula(seed: int, height: int, width: int, rough: bool) -> None:
    x = drawn(seed, 2, 1, height, width, rough=rough)
    weight, bias = (
        drawn(seed + 1, 3, 1, 3, 3, rough=rough).requires_grad_(),
        drawn(seed + 2, 3, rough=rough).requires_grad_(),
    )
    maps = functional.conv2d(x, weight, bias)
    expected = functional.relu(functional.max_pool2d(maps, 2))
    y, winner = winners(maps.detach())
    assert torch.equal(y, expected.detach())
    dy = drawn(seed + 3, *y.shape)
    for mine, theirs in zip(
        from_winners(x, dy, winner),
        torch.autograd.grad(expected, (weight, bias), dy),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_cpu_gets_torchs_formula() -> None:
    if INTERPRETED:
        pytest.skip("Triton's interpreter takes the CPU's tensors")
    x, weight, bias = drawn(0, 2, 1, 9, 9), drawn(1, 32, 1, 3, 3), drawn(2, 32)
    expected = functional.relu(functional.max_pool2d(functional.conv2d(x, weight, bias), 2))
    assert torch.equal(gpu.first_block(x, weight, bias), expected)
    assert torch.equal(gpu.conv_relu_pool(x, weight, bias), expected)


def test_the_status_says_why_there_are_none() -> None:
    assert gpu.available() == gpu.status().startswith("own GPU kernels: Triton")
    assert "GPU" in gpu.status() or "Triton" in gpu.status()


# --- the kernels themselves -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def device() -> torch.device:
    if not gpu.available():
        pytest.skip(f"needs an NVIDIA GPU, or TRITON_INTERPRET=1: {gpu.status()}")
    return torch.device("cpu" if INTERPRETED else "cuda")


SHAPES = [(2, 9, 12), (1, 11, 10), (3, 4, 5), (2, 33, 47)]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("films, height, width", SHAPES)
@pytest.mark.parametrize("channels", [1, 24, 32])
def test_relu_pool_equals_torch_to_the_bit(
    films: int, height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    for rough in (False, True):
        x = drawn(height, films, channels, height, width, dtype=dtype, rough=rough).to(device)
        x = x.contiguous(memory_format=NHWC)
        x[0, 0, 1, 1], x[0, 0, 2, 2] = float("nan"), float("inf")
        mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y = gpu.relu_pool(mine)
        expected = functional.relu(functional.max_pool2d(theirs, 2))
        dy = drawn(1, *y.shape, dtype=dtype).to(device)
        y.backward(dy)
        expected.backward(dy)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("films, height, width", SHAPES)
@pytest.mark.parametrize("channels", [16, 32, 64])
def test_the_first_block_equals_the_formula(
    films: int, height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    x = drawn(1, films, 1, height, width, dtype=dtype)
    weight, bias = drawn(2, channels, 1, 3, 3, dtype=dtype), drawn(3, channels, dtype=dtype)
    exact = functional.conv2d(x.double(), weight.double(), bias.double())
    expected, winner = winners(exact.to(dtype).double())
    mine = weight.to(device).requires_grad_(), bias.to(device).requires_grad_()
    y = gpu.first_block(x.to(device), *mine)
    assert y.is_contiguous(memory_format=NHWC) and y.dtype == dtype
    step = 2e-6 if dtype == torch.float32 else 2**-7  # one place of bfloat16
    torch.testing.assert_close(y.cpu().double(), expected, rtol=step, atol=step)
    # Where two values of a window are as near as rounding, another of them may win: those are out.
    ordered = windows(exact).sort(-1).values
    near = (ordered[..., 3] - ordered[..., 2] < 4 * step * ordered[..., 3].abs()) | (
        ordered[..., 3].abs() < 4 * step
    )
    dy = drawn(4, *y.shape, dtype=dtype).masked_fill(near, 0)
    assert (dy != 0).double().mean() > 0.3
    y.backward(dy.to(device))
    for found, theirs in zip(mine, from_winners(x.double(), dy.double(), winner), strict=True):
        assert found.grad is not None
        scale = float(theirs.abs().max())
        torch.testing.assert_close(
            found.grad.cpu().double() / scale, theirs / scale, rtol=0, atol=4 * step
        )


@pytest.mark.cuda
def test_the_same_gradient_every_time(device: torch.device) -> None:
    """More blocks than programs: each adds up several, in their order."""
    side = 70 if INTERPRETED else 500
    x = drawn(0, 2 if INTERPRETED else 16, 1, side, side, dtype=torch.float32).to(device)
    found = []
    for _ in range(2):
        weight = drawn(1, 32, 1, 3, 3, dtype=torch.float32).to(device).requires_grad_()
        bias = torch.zeros(32, device=device, requires_grad=True)
        gpu.first_block(x, weight, bias).square().sum().backward()
        found.append(torch.cat([weight.grad.flatten(), bias.grad]))  # type: ignore[union-attr]
    assert torch.equal(*found)


@pytest.mark.cuda
def test_the_network_with_kernels_is_the_network(gpu: str) -> None:
    films = drawn(0, 4, 1, 200, 200, dtype=torch.float32).cuda()
    gradients = []
    for kernels in (True, False):
        network = Paper2021(200, kernels=kernels).cuda().to(memory_format=NHWC)
        network(films).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))  # type: ignore[union-attr]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()
