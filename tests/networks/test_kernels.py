"""The fast layers against torch in float64: outputs, gradients, ties, NaN, odd sizes, fallback."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from hilum.films import resize
from hilum.native import library
from hilum.networks import kernels
from hilum.training.augment import Augmentation, augment
from hilum.training.muon import Muon
from hilum.training.recipe import Optimiser

from .conftest import built_in

EVERYTHING = Augmentation(
    flip=True, rotation=10, blur=1.5, sharpen=1.5, gamma=0.7, contrast=0.5, field=0.3, noise=0.05
)
needs_kernels = pytest.mark.usefixtures("built")
DTYPES = [torch.float32, torch.bfloat16]
NHWC = torch.channels_last
pytestmark = pytest.mark.usefixtures("build")


@pytest.fixture
def built() -> None:
    if not kernels.available():
        pytest.skip(kernels.status())


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", lambda name: (None, "there is no C++ compiler"))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32, step: float = 0) -> Tensor:
    """Normal numbers, channels last; with ``step`` on a coarse grid, so that there are ties."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if step:
        values = (values / step).round() * step
    values = values.to(dtype)
    return values.contiguous(memory_format=NHWC) if values.dim() == 4 else values


def distance(a: Tensor | None, b: Tensor) -> float:
    """Relative norm of the difference from b."""
    assert a is not None
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


def gradients(formula, x: Tensor, *rest: Tensor, dy: Tensor | None = None) -> list[Tensor]:
    """Output and gradients of a layer; films (one channel) take none."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format) for t in (x, *rest)]
    for leaf in leaves if x.shape[1] > 1 else leaves[1:]:
        leaf.requires_grad_()
    y = formula(*leaves)
    y.backward(draw(99, *y.shape).to(y.dtype) if dy is None else dy.to(y.dtype))
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.requires_grad)]


def in_a_block(x: Tensor, *weights: Tensor) -> Tensor:
    """A residual block that halves, of normalisations that have learnt nothing."""
    y = kernels.residual(x, [kernels.Branch(w, nn.BatchNorm2d(w.shape[0])) for w in weights], True)
    assert y is not None
    return y


def torch_block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.relu(functional.max_pool2d(functional.conv2d(x, weight, bias), 2))


def one_by_one(x: Tensor, *learnt: Tensor) -> Tensor:
    """Blocks of the paper's network; ``learnt`` is a weight and a bias for each."""
    x = kernels.first_block(x, *learnt[:2])
    for weight, bias in zip(learnt[2::2], learnt[3::2], strict=True):
        x = kernels.conv_relu_pool(x, weight, bias)
    return x


def together(x: Tensor, *learnt: Tensor) -> Tensor:
    return kernels.blocks(x, list(zip(learnt[::2], learnt[1::2], strict=True)))


def blocks_of(seed: int, *channels: int) -> list[Tensor]:
    """A weight and a bias for each block from one number of channels to the next."""
    learnt = []
    for number, (inputs, out) in enumerate(pairwise(channels)):
        weight = draw(seed + 2 * number, out, inputs, 3, 3)
        learnt += [weight / (9 * inputs) ** 0.5, draw(seed + 2 * number + 1, out) / 10]
    return learnt


def torch_framed(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, padding=1)


def places(y: Tensor) -> Tensor:
    """Who won in each window of a fresh output of a kernel: 0 to 3, or 4 for nobody."""
    winners: Tensor = y.grad_fn.saved_tensors[-1]  # type: ignore[union-attr]
    return winners


def exact_block(x: Tensor, weight: Tensor, bias: Tensor, winners: Tensor) -> tuple[Tensor, Tensor]:
    """In float64: the true output, and the values at the places that the kernel took.

    Rounding may make another of two equal values win, so gradients are compared along the
    kernel's own choice, and the choice itself by how far its value lies from the largest.
    """
    z = functional.conv2d(x, weight, bias)
    n, c, h, w = z.shape
    windows = z[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    windows = windows.permute(0, 1, 2, 4, 3, 5).flatten(-2)
    chosen = windows.gather(-1, winners.clamp(max=3).long()[..., None])[..., 0]
    return windows.amax(-1).clamp_min(0), torch.where(winners == 4, 0.0, chosen)


sizes = st.integers(4, 41)


@needs_kernels
class TestReluPool:
    @pytest.mark.parametrize("dtype", DTYPES)
    @given(
        seed=st.integers(0, 99),
        n=st.integers(1, 3),
        c=st.sampled_from([16, 32, 48]),
        h=st.integers(1, 19),
        w=st.integers(1, 19),
        step=st.sampled_from([0.0, 0.5]),
    )
    @settings(max_examples=40)
    def test_equals_torch_bit_for_bit(self, dtype, seed, n, c, h, w, step):
        x = draw(seed, n, c, h, w, dtype=dtype, step=step)
        if min(h, w) < 2:
            x = draw(seed, n, c, h + 1, w + 1, dtype=dtype, step=step)
        for ours, theirs in zip(
            gradients(kernels.relu_pool, x),
            gradients(lambda x: functional.relu(functional.max_pool2d(x, 2)), x),
            strict=True,
        ):
            assert ours.dtype == dtype
            assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_pooling_before_relu_is_relu_before_pooling(self, dtype):
        x = draw(1, 2, 32, 13, 12, dtype=dtype, step=0.5)
        textbook = gradients(lambda x: functional.max_pool2d(functional.relu(x), 2), x)
        assert all(map(torch.equal, gradients(kernels.relu_pool, x), textbook))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_nan_and_infinity_come_out_as_torch_lets_them(self, dtype):
        x = draw(2, 1, 32, 12, 12, dtype=dtype)
        flat = x.view(-1) if x.is_contiguous() else x.permute(0, 2, 3, 1).reshape(-1)
        flat[::7], flat[3::11], flat[5::13] = float("nan"), float("inf"), float("-inf")
        x = flat.reshape(1, 12, 12, 32).permute(0, 3, 1, 2)
        ours = gradients(kernels.relu_pool, x)
        theirs = gradients(lambda x: functional.relu(functional.max_pool2d(x, 2)), x)
        assert ours[0].isnan().any()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)

    @pytest.mark.parametrize("c", [1, 5, 16])
    def test_any_tensor_is_taken(self, c):
        plain = draw(3, 2, c, 9, 9).contiguous()
        assert torch.equal(
            kernels.relu_pool(plain), functional.relu(functional.max_pool2d(plain, 2))
        )


@needs_kernels
class TestConvolutions:
    @pytest.mark.parametrize("dtype", DTYPES)
    @given(
        seed=st.integers(0, 99),
        n=st.integers(1, 2),
        channels=st.sampled_from([(1, 32), (1, 64), (32, 32), (32, 64), (64, 32), (96, 32)]),
        h=sizes,
        w=sizes,
    )
    @example(seed=1, n=2, channels=(32, 64), h=75, w=41)  # films in several strips
    @example(seed=2, n=1, channels=(64, 32), h=70, w=68)
    @settings(max_examples=40)
    def test_outputs_and_gradients(self, dtype, seed, n, channels, h, w):
        inputs, out = channels
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        x = draw(seed, n, inputs, h, w, dtype=dtype)
        weight, bias = draw(seed + 1, out, inputs, 3, 3) / 10, draw(seed + 2, out) / 10
        dy = draw(seed + 3, n, out, (h - 2) // 2, (w - 2) // 2, dtype=dtype)
        ours = gradients(layer, x, weight, bias, dy=dy)
        assert [t.dtype for t in ours][-2:] == [torch.float32] * 2
        winners = places(layer(x, weight.clone().requires_grad_(), bias))

        exact = gradients(
            lambda *p: exact_block(*p, winners)[1],
            x.double(), weight.double(), bias.double(), dy=dy,
        )  # fmt: skip
        best = exact_block(x.double(), weight.double(), bias.double(), winners)[0]
        # By how much, place by place: a mean over places would be the larger the fewer there are.
        tie = 2**-16 if dtype == torch.float32 else 2**-13 if inputs == 1 else 2**-7
        assert (best - exact[0]).max() <= tie * best.max(), "another place than the largest won"
        rounding = 2e-5 if dtype == torch.float32 else 2**-8
        assert distance(ours[0], best) < rounding
        names = ["x", "weight", "bias"][-len(ours) + 1 :]
        for name, mine, true in zip(names, ours[1:], exact[1:], strict=True):
            # Sums stay in float32; only maps are stored rounded.
            assert distance(mine, true) < (rounding if name == "x" else 2e-5), name

    @pytest.mark.parametrize("dtype", DTYPES)
    @given(
        seed=st.integers(0, 99),
        n=st.integers(1, 2),
        channels=st.sampled_from([(32, 32), (32, 64), (64, 32)]),
        h=st.integers(10, 60),
        w=st.integers(10, 60),
    )
    @example(seed=1, n=2, channels=(32, 32), h=150, w=45)  # films in several strips
    @example(seed=2, n=1, channels=(64, 64), h=153, w=46)
    @settings(max_examples=20)
    def test_the_first_two_blocks_at_once(self, dtype, seed, n, channels, h, w):
        """They are what one and then the other is, but for the order in which a strip of the first
        is added up."""
        x, learnt = draw(seed, n, 1, h, w), blocks_of(seed + 1, 1, *channels)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert (
                "FirstTwoConvReluPool"
                in together(x, *(t.requires_grad_() for t in learnt)).grad_fn.name()
            )
            ours, theirs = (gradients(f, x, *learnt) for f in (together, one_by_one))
        assert ours[0].dtype == dtype
        assert all(map(torch.equal, ours[:1] + ours[3:], theirs[:1] + theirs[3:]))
        for mine, other in zip(ours[1:3], theirs[1:3], strict=True):
            assert distance(mine, other) < 1e-5

    def test_blocks_that_are_not_taken_at_once_are_taken_one_by_one(self):
        """Films that want a gradient, too few filters, too small a map, a single block."""
        x = draw(1, 2, 1, 30, 30)
        for learnt in (blocks_of(2, 1, 32), blocks_of(2, 1, 32, 40), blocks_of(2, 1, 16, 32, 32)):
            ours, theirs = (gradients(f, x, *learnt) for f in (together, one_by_one))
            assert all(map(torch.equal, ours, theirs))
        wanted = x.clone().requires_grad_()
        together(wanted, *blocks_of(2, 1, 32, 32)).sum().backward()
        assert wanted.grad is not None
        assert together(draw(1, 1, 1, 9, 9), *blocks_of(2, 1, 32, 32)).shape == (1, 32, 0, 0)

    @pytest.mark.parametrize("inputs", [1, 32, 64])
    def test_bfloat16_is_no_further_from_the_truth_than_autocast(self, inputs):
        """In the mean of some draws. A bias's gradient hangs on few units that just live or die."""
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        apart = []
        for seed in range(0, 60, 10):
            # Beside rounding, no ties: what wins in float64 wins in bfloat16 too, nearly always.
            x = draw(seed + 1, 2, inputs, 40, 40)
            weight, bias = draw(seed + 2, 32, inputs, 3, 3) / 10, draw(seed + 3, 32)
            if inputs > 1:  # a later block is handed bfloat16 maps
                x = x.bfloat16().float()
            truth = gradients(torch_block, x.double(), weight.double(), bias.double())
            with torch.autocast("cpu", torch.bfloat16):
                ours = gradients(layer, x, weight, bias)
                theirs = gradients(torch_block, x, weight, bias)
            assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
            apart.append([[distance(t, true) for t, true in zip(side, truth, strict=True)]
                          for side in (ours, theirs)])  # fmt: skip
        mine, others = np.mean(apart, 0)
        assert (mine[:-1] <= 1.02 * others[:-1]).all() and mine[-1] <= 1.25 * others[-1]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("inputs", [1, 32])
    def test_any_number_of_threads_gives_the_same_bits(self, dtype, inputs, threads):
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        x = draw(4, 3, inputs, 75, 51, dtype=dtype)
        weight, bias = draw(5, 32, inputs, 3, 3) / 10, draw(6, 32) / 10
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(gradients(layer, x, weight, bias))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_two_blocks_give_the_same_bits_in_any_number_of_threads(self, dtype, threads):
        x, learnt = draw(4, 2, 1, 150, 45), blocks_of(5, 1, 32, 32)
        results = []
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(gradients(together, x, *learnt))
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))

    @pytest.mark.parametrize("inputs", [1, 32])
    def test_the_gradient_of_a_weight_lies_as_the_weight_does(self, inputs):
        """torch's group warns of gradients with other strides, in every run and for many lines."""
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        weight = draw(5, 32, inputs, 3, 3).to(memory_format=NHWC).requires_grad_()
        layer(draw(4, 1, inputs, 20, 20), weight, torch.zeros(32)).sum().backward()
        assert weight.grad.stride() == weight.stride()

    @pytest.mark.parametrize("inputs", [1, 32])
    def test_a_flat_film_has_gradients_like_torch(self, inputs):
        """All values of a window are equal: whoever wins has seen the same pixels."""
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        x = torch.full((1, inputs, 20, 20), 0.25).contiguous(memory_format=NHWC)
        weight, bias = draw(7, 32, inputs, 3, 3).abs() / 10, torch.zeros(32)
        ours, theirs = (gradients(f, x, weight, bias) for f in (layer, torch_block))
        for k in (0, -2, -1):
            assert distance(ours[k], theirs[k]) < 2e-5

    @pytest.mark.parametrize("inputs", [32, 64, 128])
    def test_bfloat16_loses_less_than_rounding_the_filters_would(self, inputs, build):
        """The integers' scales: maps of films are smooth, nought or more, and uneven in size.
        Matrix tiles do round the filters."""
        x = functional.avg_pool2d(draw(1, 2, inputs, 46, 46), 5, 1).relu().bfloat16()
        x *= torch.linspace(0.1, 1, 42)[:, None].bfloat16()
        weight, bias = draw(2, 32, inputs, 3, 3) / inputs, torch.zeros(32)
        exact = torch_block(x.double(), weight.double(), bias.double())
        rounded = torch_block(x.double(), weight.bfloat16().double(), bias.double())
        ours = kernels.conv_relu_pool(x.contiguous(memory_format=NHWC), weight, bias)
        # Independent errors add up in squares: the kernel's own and that of storing its output.
        own = distance(ours, exact) ** 2 - distance(exact.bfloat16(), exact) ** 2
        assert own < distance(rounded, exact) ** 2 * (1.05 if build == "tiles" else 1)

    def test_the_first_block_in_bfloat16_loses_less_than_rounding_would(self):
        x = draw(1, 2, 1, 60, 61).abs() * torch.linspace(0.1, 1, 60)[:, None]
        weight, bias = draw(2, 32, 1, 3, 3), torch.zeros(32)
        exact = torch_block(x.double(), weight.double(), bias.double())
        rounded = torch_block(x.bfloat16().double(), weight.double(), bias.double())
        with torch.autocast("cpu", torch.bfloat16):
            ours = kernels.first_block(x, weight, bias)
        own = distance(ours, exact) ** 2 - distance(exact.bfloat16(), exact) ** 2
        assert own < distance(rounded, exact) ** 2 / 100

    @given(seed=st.integers(0, 99), out=st.sampled_from([32, 64]), h=sizes, w=sizes)
    @settings(max_examples=20)
    def test_the_first_weights_gradient_from_rounded_films(self, seed, out, h, w):
        """Films are rounded before it: by 1 in 256 at most, and the more even the more there is."""
        x, weight, bias = draw(seed, 2, 1, h, w), draw(seed + 1, out, 1, 3, 3), draw(seed + 2, out)
        dy = draw(seed + 3, 2, out, (h - 2) // 2, (w - 2) // 2, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            ours = gradients(kernels.first_block, x, weight, bias, dy=dy)
            winners = places(kernels.first_block(x, weight.clone().requires_grad_(), bias))
        exact = gradients(
            lambda *p: exact_block(*p, winners)[1],
            x.double(), weight.double(), bias.double(), dy=dy,
        )  # fmt: skip
        assert distance(ours[1], exact[1]) < 2**-7
        assert distance(ours[2], exact[2]) < 1e-6

    @pytest.mark.parametrize("which", ["all", "a line", "a column", "a diagonal"])
    def test_even_films_are_rounded_evenly(self, which):
        """Before the first weights' gradient: to nearest, each pixel would be wrong by the same."""
        value = 0.3  # 0.0026 of it is lost to nearest
        weight, bias = draw(7, 32, 1, 3, 3).abs().requires_grad_(), torch.zeros(32)
        with torch.autocast("cpu", torch.bfloat16):
            y = kernels.first_block(torch.full((1, 1, 122, 122), value), weight, bias)
        dy = {
            "all": torch.ones(60, 60),
            "a line": torch.eye(60)[7][:, None].expand(60, 60),
            "a column": torch.eye(60)[7].expand(60, 60),
            "a diagonal": torch.eye(60),
        }[which]
        y.backward(dy.expand_as(y).to(y.dtype))
        assert weight.grad is not None
        exact = torch.full_like(weight, value * float(dy.sum()))
        assert distance(weight.grad, exact) < 5e-4

    @pytest.mark.parametrize("inputs", [1, 32])
    @pytest.mark.parametrize("scale", [0, 1e-38, 1e-31, 1e-20, 1e20])
    @pytest.mark.parametrize("filters", [1e-10, 1, 1e14])
    def test_bfloat16_of_any_size(self, inputs, scale, filters):
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        x = (draw(1, 1, inputs, 20, 20).abs() * scale).bfloat16()
        weight, bias = draw(2, 32, inputs, 3, 3) * filters, torch.zeros(32)
        exact = torch_block(x.double(), weight.double(), bias.double())
        with torch.autocast("cpu", torch.bfloat16):
            ours = layer(x.float() if inputs == 1 else x, weight, bias).double()
        least = max(float(exact.abs().max()) / 100, 1e-28 * filters)
        assert float((ours - exact).abs().max()) <= least

    @pytest.mark.parametrize("inputs", [1, 32])
    def test_filters_whose_sum_no_float_holds(self, inputs):
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        x = draw(1, 1, inputs, 20, 20).abs() * 1e-10
        weight, bias = torch.full((32, inputs, 3, 3), 1e38 / inputs), torch.zeros(32)
        weight[0, 0, 0, 0] = 1e38
        exact = torch_block(x.double(), weight.double(), bias.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert distance(layer(x, weight, bias), exact) < 2**-6

    @pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
    def test_an_odd_last_column_of_a_film_that_no_window_sees(self, value):
        x, weight, bias = draw(1, 1, 1, 13, 15), draw(2, 32, 1, 3, 3), torch.zeros(32)
        with torch.autocast("cpu", torch.bfloat16):
            expected = gradients(kernels.first_block, x, weight, bias)
            x[..., -1] = value
            x[..., -1, :] = value
            found = gradients(kernels.first_block, x, weight, bias)
        assert all(map(torch.equal, found, expected))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("inputs", [1, 32])
    def test_nan_does_not_get_lost(self, dtype, value, inputs):
        layer = kernels.first_block if inputs == 1 else kernels.conv_relu_pool
        x, weight, bias = draw(8, 1, inputs, 20, 20), draw(9, 32, inputs, 3, 3), draw(10, 32)
        sound = draw(11, 1, inputs, 20, 20)
        broken = weight.clone()
        x[0, 0, 7, 9] = broken[5, 0, 1, 1] = value
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            for films, filters in ((x, weight), (sound, broken)):
                finite = torch_block(films.double(), filters.double(), bias.double()).isfinite()
                assert not finite.all()
                assert not layer(films, filters, bias)[~finite].isfinite().any()
            assert layer(sound, broken, bias)[:, :5].isfinite().all()

    def test_no_input_gradient_is_computed_where_none_is_wanted(self):
        x, weight = draw(1, 1, 32, 12, 12), draw(2, 32, 32, 3, 3).requires_grad_()
        kernels.conv_relu_pool(x, weight, torch.zeros(32)).sum().backward()
        assert x.grad is None and weight.grad is not None

    @pytest.mark.parametrize(
        "x, weight",
        [
            (draw(1, 1, 1, 12, 12).requires_grad_(), draw(2, 32, 1, 3, 3)),  # films want a gradient
            (draw(1, 1, 1, 12, 12), draw(2, 5, 1, 3, 3)),  # numbers of channels the kernels lack
            (draw(1, 1, 3, 12, 12), draw(2, 32, 3, 3, 3)),
            (draw(1, 1, 32, 12, 12), draw(2, 32, 32, 5, 5)),
            (draw(1, 1, 32, 12, 12).double(), draw(2, 32, 32, 3, 3).double()),
        ],
    )
    def test_what_the_kernels_lack_torch_computes(self, x, weight):
        bias = torch.zeros(len(weight), dtype=weight.dtype)
        for layer in (kernels.conv_relu_pool, kernels.first_block):
            assert torch.allclose(layer(x, weight, bias), torch_block(x, weight, bias))

    def test_a_traced_graph_holds_operators_of_torch(self):
        weight, bias = draw(2, 32, 1, 3, 3), torch.zeros(32)
        x = draw(1, 1, 1, 12, 12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("error", torch.jit.TracerWarning)
            traced = torch.jit.trace(lambda x: kernels.first_block(x, weight, bias), x)
        assert "max_pool2d" in str(traced.graph)


@needs_kernels
class TestFramedConv:
    @given(
        seed=st.integers(0, 99),
        n=st.integers(1, 5),
        channels=st.tuples(st.sampled_from([16, 32, 48]), st.sampled_from([16, 32, 80])),
        h=st.integers(1, 37),
        w=st.integers(1, 37),
        dtype=st.sampled_from(DTYPES),
    )
    @settings(max_examples=40)
    def test_equals_torch(self, seed, n, channels, h, w, dtype):
        x = draw(seed, n, channels[0], h, w, dtype=dtype)
        weight = draw(seed + 1, channels[1], channels[0], 3, 3) / (9 * channels[0]) ** 0.5
        dy = draw(seed + 2, n, channels[1], h, w, dtype=dtype)
        ours = gradients(kernels.framed_conv, x, weight, dy=dy)
        exact = gradients(torch_framed, x.double(), weight.double(), dy=dy)
        for name, mine, true in zip(["y", "x", "weight"], ours, exact, strict=True):
            # Sums stay in float32; only maps are stored rounded.
            rounding = 2**-8 if dtype == torch.bfloat16 and name != "weight" else 1e-5
            assert mine.shape == true.shape and distance(mine, true) < rounding, name

    def test_bfloat16_is_no_further_from_the_truth_than_autocast(self):
        x, weight = draw(1, 4, 16, 32, 32).bfloat16().float(), draw(2, 32, 16, 3, 3) / 12
        truth = gradients(torch_framed, x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            ours = gradients(kernels.framed_conv, x, weight)
            theirs = gradients(torch_framed, x, weight)
        assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
        for mine, other, true in zip(ours, theirs, truth, strict=True):
            assert distance(mine, true) <= 1.02 * distance(other, true)

    @pytest.mark.parametrize("shape", [(32, 16, 32), (32, 32, 16), (32, 64, 8), (300, 16, 4)])
    def test_any_number_of_threads_gives_the_same(self, shape, threads):
        n, channels, side = shape
        x, weight = draw(1, n, channels, side, side), draw(2, channels, channels, 3, 3)
        found = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(gradients(kernels.framed_conv, x, weight))
        for other in found[1:]:
            assert all(map(torch.equal, found[0], other))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_nan_does_not_get_lost_and_stays_in_its_film(self, dtype):
        x, weight = draw(8, 3, 16, 20, 20, dtype=dtype), draw(9, 16, 16, 3, 3)
        x[1, 0, 0, 0] = x[1, 0, 7, 9] = float("nan")
        expected = torch_framed(x.float(), weight).isnan()
        found = kernels.framed_conv(x, weight).isnan()
        assert expected.any() and found[expected].all() and not found[[0, 2]].any()

    def test_no_input_gradient_is_computed_where_none_is_wanted(self):
        x, weight = draw(1, 1, 16, 12, 12), draw(2, 16, 16, 3, 3).requires_grad_()
        kernels.framed_conv(x, weight).sum().backward()
        assert x.grad is None and weight.grad is not None

    @pytest.mark.parametrize(
        "x, weight",
        [
            (draw(1, 1, 4, 12, 12), draw(2, 16, 4, 3, 3)),  # numbers of channels the kernels lack
            (draw(1, 1, 16, 12, 12), draw(2, 8, 16, 3, 3)),
            (draw(1, 1, 16, 12, 12).double(), draw(2, 16, 16, 3, 3).double()),
        ],
    )
    def test_what_the_kernels_lack_torch_computes(self, x, weight):
        assert torch.equal(kernels.framed_conv(x, weight), torch_framed(x, weight))

    def test_a_traced_graph_holds_operators_of_torch(self):
        x, weight = draw(1, 1, 16, 12, 12), draw(2, 16, 16, 3, 3)
        traced = torch.jit.trace(lambda x: kernels.framed_conv(x, weight), x, check_trace=False)
        assert "convolution" in str(traced.graph)


@needs_kernels
def test_the_status_says_whether_matrix_tiles_are_used(build):
    assert kernels.status().endswith("matrix tiles used") == (build == "tiles")


@needs_kernels
def test_the_status_of_some_libraries_builds_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    usual = library.load
    monkeypatch.setattr(library, "load", lambda name: (asked.add(name), usual(name))[1])
    assert kernels.status("films", "blocks").startswith("fast CPU kernels: x86-64")
    assert asked == {"films", "blocks"}


class TestAbsent:
    def test_everything_works_and_says_what_it_costs(self, absent):
        x, weight, bias = draw(1, 2, 32, 12, 15), draw(2, 32, 32, 3, 3), draw(3, 32)
        films, first = draw(4, 2, 1, 12, 15), draw(5, 32, 1, 3, 3)
        assert not kernels.available()
        assert "no C++ compiler" in kernels.status() and "slower" in kernels.status()
        for layer, *given_ in (
            (kernels.conv_relu_pool, x, weight, bias),
            (kernels.first_block, films, first, bias),
        ):
            theirs = gradients(torch_block, *given_)
            assert all(map(torch.equal, gradients(layer, *given_), theirs))
        y = kernels.relu_pool(x)
        assert torch.equal(y, functional.relu(functional.max_pool2d(x, 2)))
        assert torch.equal(kernels.framed_conv(x, weight), torch_framed(x, weight))


@needs_kernels
class TestThreadsAndBuilds:
    def test_a_forked_process_computes_too(self, threads):
        """Threads do not survive a fork."""
        torch.set_num_threads(3)
        x, weight = draw(1, 1, 32, 40, 40, dtype=torch.bfloat16), draw(2, 32, 32, 3, 3)
        y = kernels.conv_relu_pool(x, weight, torch.zeros(32))
        child = os.fork()
        if child == 0:
            again = kernels.conv_relu_pool(x, weight, torch.zeros(32))
            os._exit(0 if torch.equal(again, y) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_several_callers_at_once(self, threads, dtype):
        torch.set_num_threads(3)
        x = draw(1, 2, 32, 70, 40, dtype=dtype)
        weight, bias = draw(2, 32, 32, 3, 3), draw(3, 32)
        alone = kernels.conv_relu_pool(x, weight, bias)
        with ThreadPoolExecutor(4) as callers:
            many = [callers.submit(kernels.conv_relu_pool, x, weight, bias) for _ in range(40)]
            assert all(torch.equal(one.result(), alone) for one in many)

    def test_denormal_numbers_are_not_flushed(self):
        tiny = torch.tensor([1e-40])
        kernels.relu_pool(draw(1, 1, 32, 8, 8))
        assert float(tiny * 0.5) > 0

    def test_the_narrow_build_gives_the_same(self, tmp_path, monkeypatch):
        """AVX2 is tested also where AVX-512 is used."""
        used = ("films", "residual", "muon", "blocks")
        monkeypatch.setattr(library, "FLAGS", ("-O1", *library.FLAGS[1:]))  # built sooner
        built = built_in(tmp_path, used, library.flags("x86-64-v3"))
        x, weight, bias = draw(1, 2, 32, 33, 30), draw(2, 32, 32, 3, 3) / 10, draw(3, 32)
        films, first = draw(4, 2, 1, 33, 30), draw(5, 32, 1, 3, 3)
        second, around = draw(6, 32, 32, 3, 3) / 10, draw(7, 32, 32, 1, 1)
        numbers = torch.arange(9)
        pixels = torch.randint(0, 256, (9, 41, 41)).to(torch.uint8)

        def everything() -> list[Tensor]:
            moved = nn.Parameter(weight.clone())
            moved.grad = weight.flip(0)
            Muon([moved], Optimiser("muon")).step(1.0)
            return [
                moved.detach(),
                *gradients(kernels.conv_relu_pool, x, weight, bias),
                *gradients(kernels.first_block, films, first, bias),
                *gradients(together, films, first, bias, weight, bias),
                *gradients(kernels.relu_pool, x.bfloat16()),
                *gradients(kernels.framed_conv, x, weight),
                *gradients(in_a_block, x, weight, second, around),
                augment(pixels, numbers, 0, 0, EVERYTHING),
            ]

        wide = everything()
        film = pixels.flatten(0, 1).numpy()
        as_bytes = [resize._by(one, film, 50) for one in (library.load("films")[0], built["films"])]
        np.testing.assert_array_equal(*as_bytes)
        monkeypatch.setattr(library, "load", lambda name: (built[name], "x86-64-v3"))
        for a, b in zip(wide, everything(), strict=True):
            assert distance(a, b) < 2e-5
