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
from hilum.training import augment

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


def products_of(dtype: torch.dtype) -> None:
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16: these run on a GPU")


SHAPES = [(2, 9, 12), (1, 11, 10), (3, 4, 5), (2, 33, 47)]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("films, height, width", SHAPES)
@pytest.mark.parametrize("channels", [1, 24, 32])
def test_bias_relu_pool_equals_torch_to_the_bit(
    films: int, height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    # Its interpreter cuts bfloat16 off where a GPU rounds: sums of few values need neither.
    exact_alone = INTERPRETED and dtype == torch.bfloat16
    for rough in (True,) if exact_alone else (False, True):
        x = drawn(height, films, channels, height, width, dtype=dtype, rough=rough).to(device)
        x = x.contiguous(memory_format=NHWC)
        x[0, 0, 1, 1], x[0, 0, 2, 2] = float("nan"), float("inf")
        bias = drawn(7, channels, dtype=dtype, rough=rough).to(device)
        mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        shift, other = bias.clone().requires_grad_(), bias.clone().requires_grad_()
        y = gpu.bias_relu_pool(mine, shift)
        expected = functional.relu(functional.max_pool2d(theirs + other[:, None, None], 2))
        dy = drawn(1, *y.shape, dtype=dtype).to(device)
        y.backward(dy)
        expected.backward(dy)
        torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)
        assert theirs.grad is not None and shift.grad is not None
        exact = theirs.grad.double().sum((0, 2, 3))
        torch.testing.assert_close(
            shift.grad.double(), exact, rtol=1e-5 if dtype == torch.float32 else 2**-8, atol=1e-5
        )


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("films, height, width", SHAPES)
@pytest.mark.parametrize("channels", [16, 32, 64])
def test_the_first_block_equals_the_formula(
    films: int, height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    products_of(dtype)
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


def formula(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.relu(functional.max_pool2d(functional.conv2d(x, weight, bias), 2))


def gradients(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """The layer's result, then the gradients of films, weights and bias."""
    given = [one.detach().clone().requires_grad_() for one in (x, weight, bias)]
    y = layer(given[0].contiguous(memory_format=NHWC), *given[1:])
    y.backward(drawn(4, *y.shape).to(y))
    return [y.detach(), *(one.grad for one in given if one.grad is not None)]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("films, height, width", SHAPES)
@pytest.mark.parametrize("inputs, out", [(32, 32), (16, 32), (32, 64)])
def test_a_block_equals_the_formula(
    films: int, height: int, width: int, inputs: int, out: int, dtype: torch.dtype,
    device: torch.device,
) -> None:  # fmt: skip
    """Of the last pair cuDNN computes all gradients."""
    products_of(dtype)
    x = drawn(1, films, inputs, height, width, dtype=dtype)
    weight, bias = drawn(2, out, inputs, 3, 3, dtype=dtype), drawn(3, out, dtype=dtype)
    found = gradients(gpu.conv_relu_pool, x.to(device), weight.to(device), bias.to(device))
    expected = gradients(formula, x.double(), weight.double(), bias.double())
    step = 1e-5 if dtype == torch.float32 else 0.03  # another winner where rounding makes one
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        gap = (mine.cpu().double() - theirs).norm() / theirs.norm()
        assert gap < (step if mine is found[0] else 5 * step), gap


@pytest.mark.cuda
def test_films_are_placed_as_torch_places_them(device: torch.device) -> None:
    from hilum.training.augment import Augmentation, draw

    pixels = torch.randint(0, 256, (5, 37, 37), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(device, torch.uint8)
    numbers = torch.arange(5, device=device)
    strong = Augmentation(flip=True, rotation=30, zoom=0.4, shift=0.2, shear=10)
    affine = draw(numbers, 0, 0, strong, 37).affine
    assert affine is not None
    expected = augment.sampled(pixels.float(), affine)
    found = gpu.placed(pixels, affine)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


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
