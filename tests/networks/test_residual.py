"""A residual block as one kernel against torch's layers, in float64 and in autocast."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from hilum import machine
from hilum.networks import kernels
from hilum.networks.compact import Residual, Stem

pytestmark = pytest.mark.usefixtures("build")
NHWC = torch.channels_last
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def built() -> None:
    if not kernels.available("residual"):
        pytest.skip(kernels.status())


def draw(seed: int, *shape: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=NHWC)


def a_block(n_in: int, n_out: int, halved: bool, seed: int = 0) -> Residual:
    """One that has learnt: its normalisations differ from channel to channel."""
    block = Residual(n_in, n_out, halved)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0.3, 1.0, generator=generator)
            else:
                parameter.normal_(0, 0.1, generator=generator)
    return block


def branches(block: Residual) -> list[kernels.Branch]:
    ways = (block.first, block.second, block.around)
    return [way.branch for way in ways if not isinstance(way, nn.Identity)]


def torch_block(block: Residual, x: Tensor, nearest: list[float] | None = None) -> Tensor:
    """Layer by layer, by torch's own operators."""

    def way(norm: nn.Sequential, x: Tensor) -> Tensor:
        convolution, normalisation = norm
        weight = convolution.weight
        y = functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return normalisation(y)

    p = block.halve(x)
    s = p if isinstance(block.around, nn.Identity) else way(block.around, p)
    first = way(block.first, p)
    second = way(block.second, first.relu()) + s
    if nearest is not None:  # to nought, where rounding decides whether a unit lives
        nearest += [float(z.detach().abs().min()) for z in (first, second)]
    return second.relu()


def everything(layer, block: Residual, x: Tensor, dy: Tensor) -> list[Tensor]:
    """Output, all gradients and the running statistics."""
    block, x = deepcopy(block), x.detach().requires_grad_()
    y = layer(block, x)
    y.backward(dy.to(y.dtype))
    buffers = [b for b in block.buffers() if b.is_floating_point()]
    return [y.detach(), x.grad, *(p.grad for p in block.parameters()), *buffers]  # type: ignore[list-item]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [
        float((a.double() - b).norm() / (b.norm() + 1e-12))
        for a, b in zip(found, exact, strict=True)
    ]


def taken(block: Residual, x: Tensor) -> Tensor:
    """What the kernel makes; never what stands in for it."""
    y = kernels.residual(x, branches(block), isinstance(block.halve, nn.AvgPool2d))
    assert y is not None
    return y


@given(
    seed=st.integers(0, 99),
    n=st.integers(2, 3),
    channels=st.sampled_from([(16, 16), (16, 32), (32, 16), (48, 48), (32, 64)]),
    halved=st.booleans(),
    h=st.integers(4, 21),
    w=st.integers(4, 21),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
def test_equals_torch_in_float32(seed, n, channels, halved, h, w):
    block, x = a_block(*channels, halved, seed), draw(seed, n, channels[0], h, w)
    dy = draw(seed + 1, *torch_block(deepcopy(block), x).shape)
    nearest: list[float] = []
    torch_block(deepcopy(block).double(), x.double(), nearest)
    assume(min(nearest) > 3e-5)
    exact = everything(torch_block, block.double(), x.double(), dy.double())
    found = everything(taken, block.float(), x, dy)
    theirs = everything(torch_block, block, x, dy)
    for mine, other in zip(errors(found, exact), errors(theirs, exact), strict=True):
        assert mine < max(2e-5, 3 * other)


@pytest.mark.parametrize(("channels", "halved"), [((16, 16), False), ((32, 64), True)])
def test_bfloat16_is_nearer_to_the_truth_than_autocast(channels, halved):
    mine, theirs = [], []
    for seed in range(8):
        block, x = a_block(*channels, halved, seed), draw(seed, 6, channels[0], 16, 16).bfloat16()
        dy = draw(seed + 1, *torch_block(deepcopy(block), x.float()).shape)
        exact = everything(torch_block, block.double(), x.double(), dy.double())
        block.float()
        with torch.autocast("cpu", torch.bfloat16):
            found, other = (everything(f, block, x, dy) for f in (taken, torch_block))
        assert found[0].dtype == found[1].dtype == torch.bfloat16
        mine.append(errors(found, exact))
        theirs.append(errors(other, exact))
    for ours, autocasts in zip(*(torch.tensor(e).mean(0) for e in (mine, theirs)), strict=True):
        assert ours < 1.1 * autocasts + 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype):
    block, x = a_block(16, 32, True), draw(1, 9, 16, 31, 20).to(dtype)
    found = []
    for many in (1, 2, 5):
        with machine.torch_threads(many):
            found.append(everything(taken, block, x, draw(2, 9, 32, 16, 10)))
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_that_does_not_train_goes_by_what_ran_along(dtype):
    block = a_block(16, 32, True)
    block(draw(1, 4, 16, 12, 12))
    block.eval()
    before = [b.clone() for b in block.buffers()]
    x = draw(2, 3, 16, 11, 9).to(dtype)
    with torch.no_grad():
        found = taken(block, x)
    exact = torch_block(deepcopy(block).double(), x.double())
    assert errors([found], [exact.detach()])[0] < (1e-5 if dtype == torch.float32 else 5e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, block.buffers(), strict=True))


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics_follow_as_torchs_do(momentum):
    block = a_block(16, 32, True)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    other = deepcopy(block)
    for seed in range(3):
        x = draw(seed, 4, 16, 10, 10)
        taken(block, x), torch_block(other, x)
    for mine, theirs in zip(block.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert int(block.first[1].num_batches_tracked) == 3


def test_a_nan_comes_out_and_stays_in_no_other_film_where_nothing_is_shared():
    block = a_block(16, 16, False).eval()
    x = draw(1, 3, 16, 9, 9)
    x[1, 3, 4, 4] = float("nan")
    with torch.no_grad():
        found = taken(block, x).isnan()
    assert found[1].any() and not found[[0, 2]].any()


def test_films_that_want_no_gradient_get_none():
    block, x = a_block(16, 32, True), draw(1, 4, 16, 8, 8)
    taken(block, x).sum().backward()
    given_ = {name: p.grad for name, p in block.named_parameters()}
    block.zero_grad()
    taken(block, x.requires_grad_()).sum().backward()
    assert all(torch.equal(p.grad, given_[name]) for name, p in block.named_parameters())


def test_what_the_kernel_does_not_take_is_computed_by_torch():
    def left(block: Residual, x: Tensor) -> bool:
        y = kernels.residual(x, branches(block), isinstance(block.halve, nn.AvgPool2d))
        expected = torch_block(deepcopy(block), x)
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)
        return y is None

    x = draw(1, 4, 16, 8, 8)
    assert not left(a_block(16, 16, False), x)
    assert left(a_block(8, 16, False), draw(1, 4, 8, 8, 8))  # channels of half a vector
    assert left(a_block(16, 16, False).double(), x.double())
    assert left(a_block(16, 16, False).eval(), x)  # a gradient of a network that stands still
    half = a_block(16, 16, False)
    half.first.eval()
    assert left(half, x)
    with pytest.raises(ValueError, match="more than 1 value"):
        a_block(16, 32, True)(draw(1, 1, 16, 2, 2))


def test_without_the_library_it_is_computed_by_torch(monkeypatch):
    monkeypatch.setattr(kernels.library, "load", lambda name: (None, "there is no C++ compiler"))
    block, x = a_block(16, 32, True), draw(1, 4, 16, 8, 8)
    assert kernels.residual(x, branches(block), True) is None
    assert torch.equal(block(x), torch_block(deepcopy(block), x))


def test_a_traced_block_holds_operators_of_torch():
    block = a_block(16, 32, True).eval()
    traced = torch.jit.trace(block, draw(1, 2, 16, 8, 8), check_trace=False)
    assert "convolution" in str(traced.inlined_graph) and "PythonOp" not in str(
        traced.inlined_graph
    )


def test_who_watches_its_layers_sees_them():
    block, seen = a_block(16, 32, True), []
    x = draw(1, 4, 16, 8, 8)
    expected = block(x)
    block.first[0].register_forward_hook(lambda module, x, y: seen.append(y.shape))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)
    assert seen == [(4, 32, 4, 4)]


# --- the stem before the blocks -------------------------------------------------------------------


def a_stem(out: int = 16, seed: int = 0) -> Stem:
    stem = Stem(out, 1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter.normal_(0.1, 0.5, generator=generator)
    return stem


def torch_stem(stem: Stem, x: Tensor, nearest: list[float] | None = None) -> Tensor:
    convolution, norm = stem[1]
    z = norm(functional.conv2d(functional.pixel_unshuffle(x, 2), convolution.weight, padding=1))
    if nearest is not None:
        nearest.append(float(z.detach().abs().min()))
    return z.relu()


def taken_stem(stem: Stem, x: Tensor) -> Tensor:
    y = kernels.stem(x, stem[1].branch)
    assert y is not None
    return y


def of_a_stem(layer, stem: Stem, x: Tensor, dy: Tensor) -> list[Tensor]:
    stem = deepcopy(stem)
    y = layer(stem, x)
    y.backward(dy.to(y.dtype))
    buffers = [b for b in stem.buffers() if b.is_floating_point()]
    return [y.detach(), *(p.grad for p in stem.parameters()), *buffers]  # type: ignore[list-item]


@given(
    seed=st.integers(0, 99),
    n=st.integers(2, 7),
    out=st.sampled_from([16, 32, 48]),
    h=st.integers(2, 35),  # of two values the gradient is all but zero
    w=st.integers(2, 35),
)
@settings(max_examples=40)
def test_a_stem_equals_torch_in_float32(seed, n, out, h, w):
    stem, x = a_stem(out, seed), draw(seed, n, 1, 2 * h, 2 * w)
    dy, nearest = draw(seed + 1, n, out, h, w), []
    torch_stem(deepcopy(stem).double(), x.double(), nearest)
    assume(min(nearest) > 5e-6)
    exact = of_a_stem(torch_stem, stem.double(), x.double(), dy.double())
    found = of_a_stem(taken_stem, stem.float(), x, dy)
    theirs = of_a_stem(torch_stem, stem, x, dy)
    for mine, other in zip(errors(found, exact), errors(theirs, exact), strict=True):
        assert mine < max(2e-5, 3 * other)


def test_a_stem_in_bfloat16_is_nearer_to_the_truth_than_autocast():
    stem, x, dy = a_stem(), draw(1, 6, 1, 64, 64), draw(2, 6, 16, 32, 32)
    exact = of_a_stem(torch_stem, stem.double(), x.double(), dy.double())
    stem.float()
    with torch.autocast("cpu", torch.bfloat16):
        found, other = (of_a_stem(f, stem, x, dy) for f in (taken_stem, torch_stem))
    assert found[0].dtype == torch.bfloat16
    for ours, autocasts in zip(errors(found, exact), errors(other, exact), strict=True):
        assert ours < 1.1 * autocasts + 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stem_is_the_same_by_any_number_of_threads_and_stands_still(dtype):
    stem, x, dy = a_stem(), draw(1, 9, 1, 30, 22), draw(2, 9, 16, 15, 11)
    found = []
    for many in (1, 2, 5):
        with machine.torch_threads(many), torch.autocast("cpu", enabled=dtype == torch.bfloat16):
            found.append(of_a_stem(taken_stem, stem, x, dy))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    stem.eval()
    with torch.no_grad(), torch.autocast("cpu", enabled=dtype == torch.bfloat16):
        still = taken_stem(stem, x)
        torch.testing.assert_close(still.float(), torch_stem(stem, x).float(), rtol=2e-2, atol=2e-2)


def test_a_stem_that_the_kernel_does_not_take_is_computed_by_torch():
    stem, x = a_stem(), draw(1, 4, 1, 12, 12)
    wanting = x.clone().requires_grad_()
    odd = Stem(16, 2)
    for some, films in ((stem, wanting), (a_stem(8), x), (odd, x)):
        if films is not x or some is not odd:
            assert kernels.stem(films, some[1].branch) is None
        assert some(films).shape[1] == some[1][0].out_channels
    stem(wanting).sum().backward()
    assert wanting.grad is not None
