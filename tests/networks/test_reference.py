"""The NumPy reference: its own loops, torch's outputs and torch's gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hilum.networks import reference as ref
from hilum.networks.arithmetic import Convolution, paper_network
from hilum.networks.paper2021 import Paper2021

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-12}
SMALL: dict[str, Any] = {"filters": (3, 4), "units": (5,)}

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 3), st.integers(3, 11), st.integers(3, 11))


def tensor(a: np.ndarray, grad: bool = True) -> torch.Tensor:
    return torch.tensor(a, dtype=torch.float64, requires_grad=grad)


def with_ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers: equal values and exact zeros are frequent."""
    return rng.integers(-2, 3, shape).astype(np.float64)


@given(seeds, st.integers(3, 8), st.integers(3, 8), st.integers(1, 3), st.integers(1, 3))
def test_the_formula_written_out_is_the_true_convolution(
    seed: int, rows: int, columns: int, a: int, b: int
) -> None:
    rng = np.random.default_rng(seed)
    f, h = rng.normal(size=(rows, columns)), rng.normal(size=(a, b))
    slow = ref.convolve_by_loops(f, h)
    np.testing.assert_allclose(ref.convolve(f[None], h[None, None])[0], slow, **CLOSE)
    # A correlation is the same with the kernel turned, and another thing without.
    turned = ref.correlate(f[None], ref.turned(h)[None, None])[0]
    np.testing.assert_allclose(turned, slow, **CLOSE)
    if a * b > 1:
        assert not np.allclose(ref.correlate(f[None], h[None, None])[0], slow)


def test_numpys_own_convolution_agrees_in_one_dimension() -> None:
    f, h = np.array([1.0, 4.0, 2.0, 8.0, 5.0]), np.array([1.0, 0.0, -2.0])
    expected = np.convolve(f, h, mode="valid")
    np.testing.assert_allclose(ref.convolve_by_loops(f[None], h[None])[0], expected)


@given(seeds, shapes, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))
def test_correlation_is_torchs_convolution(
    seed: int, shape: tuple[int, int, int], filters: int, f: int, s: int, p: int
) -> None:
    rng = np.random.default_rng(seed)
    a, w = rng.normal(size=shape), rng.normal(size=(filters, shape[0], f, f))
    b = rng.normal(size=filters)
    expected = F.conv2d(tensor(a)[None], tensor(w), tensor(b), stride=s, padding=p)[0]
    np.testing.assert_allclose(ref.correlate(a, w, b, s, p), expected.detach(), **CLOSE)


@given(seeds, shapes, st.integers(1, 4), st.integers(1, 3))
def test_gradients_of_a_convolution_are_torchs(
    seed: int, shape: tuple[int, int, int], filters: int, f: int
) -> None:
    rng = np.random.default_rng(seed)
    a, w, b = (tensor(rng.normal(size=n)) for n in (shape, (filters, shape[0], f, f), filters))
    z = F.conv2d(a[None], w, b)[0]
    dz = rng.normal(size=z.shape)
    z.backward(tensor(dz, grad=False))
    dw, db = ref.weight_gradients(a.detach().numpy(), dz)
    da = ref.full_convolution(dz, w.detach().numpy())
    assert a.grad is not None and w.grad is not None and b.grad is not None
    np.testing.assert_allclose(da, a.grad, **CLOSE)
    np.testing.assert_allclose(dw, w.grad, **CLOSE)
    np.testing.assert_allclose(db, b.grad, **CLOSE)


def test_full_convolution_is_the_papers_sum() -> None:
    """dA = Σ_m Σ_n W · dZ[m,n]: the kernel, laid down at each place, weighted."""
    rng = np.random.default_rng(3)
    w, dz = rng.normal(size=(2, 3, 3, 3)), rng.normal(size=(2, 4, 5))
    da = np.zeros((3, 6, 7))
    for m in range(4):
        for n in range(5):
            da[:, m : m + 3, n : n + 3] += np.einsum("fcjk,f->cjk", w, dz[:, m, n])
    np.testing.assert_allclose(ref.full_convolution(dz, w), da, **CLOSE)


@given(seeds, shapes, st.integers(1, 3))
def test_pooling_and_its_gradient_are_torchs_ties_included(
    seed: int, shape: tuple[int, int, int], size: int
) -> None:
    rng = np.random.default_rng(seed)
    a = tensor(with_ties(rng, shape))
    y = F.max_pool2d(a[None], size)[0]
    dy = rng.normal(size=y.shape)
    y.backward(tensor(dy, grad=False))
    mine, winners = ref.max_pool(a.detach().numpy(), size)
    np.testing.assert_array_equal(mine, y.detach())
    np.testing.assert_array_equal(ref.max_pool_gradient(dy, winners, shape, size), a.grad)


@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_dense_and_relu_are_torchs(seed: int, inputs: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    a, w, b = (tensor(with_ties(rng, n)) for n in ((inputs,), (units, inputs), (units,)))
    z = F.linear(a, w, b)
    y = F.relu(z)
    dy = rng.normal(size=units)
    y.backward(tensor(dy, grad=False))
    mine = ref.dense(*(t.detach().numpy() for t in (a, w, b)))
    np.testing.assert_allclose(ref.relu(mine), y.detach(), **CLOSE)
    dz = ref.relu_gradient(dy, mine)
    da, dw, db = ref.dense_gradients(a.detach().numpy(), w.detach().numpy(), dz)
    np.testing.assert_allclose(da, a.grad, **CLOSE)
    np.testing.assert_allclose(dw, w.grad, **CLOSE)
    np.testing.assert_allclose(db, b.grad, **CLOSE)


@given(st.floats(-800, 800), st.sampled_from([0.0, 0.3, 1.0]), st.floats(0.1, 3))
def test_cross_entropy_is_torchs_and_never_overflows(z: float, y: float, weight: float) -> None:
    logit = tensor(np.array(z))
    loss = F.binary_cross_entropy_with_logits(logit, tensor(np.array(y), False)) * weight
    loss.backward()
    np.testing.assert_allclose(ref.cross_entropy(z, y, weight), loss.detach(), **CLOSE)
    np.testing.assert_allclose(ref.cross_entropy_gradient(z, y, weight), logit.grad, **CLOSE)
    np.testing.assert_allclose(ref.sigmoid(z), torch.sigmoid(logit).detach(), **CLOSE)


def pair(size: int, seed: int, **options: Any) -> tuple[ref.ReferenceNetwork, Paper2021]:
    network = Paper2021(size, **options).double()
    network.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):  # zeros would hide a wrong bias
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed + 1))
    description = (
        paper_network(options.get("filters", (32, 32, 32, 64, 64)), options["units"])
        if options
        else None
    )
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    return ref.ReferenceNetwork(size, weights, description), network


def check_network(reference: ref.ReferenceNetwork, network: Paper2021, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    films = rng.uniform(0, 1, (n, 1, reference.size, reference.size))
    labels, weights = rng.integers(0, 2, n), rng.uniform(0.5, 2.0, n)
    z = network(tensor(films, False))
    loss = F.binary_cross_entropy_with_logits(
        z[:, 0], tensor(labels, False), weight=tensor(weights, False)
    )
    loss.backward()
    np.testing.assert_allclose(reference.forward(films), z.detach(), rtol=1e-5)
    mine, gradients = reference.loss_and_gradients(films, labels, weights)
    assert mine == pytest.approx(float(loss.detach()), rel=1e-9)
    np.testing.assert_array_equal(reference.logits, reference.forward(films))
    assert set(gradients) == {name for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(gradients[name], parameter.grad, rtol=1e-5, atol=1e-11)


@settings(deadline=None, max_examples=15)
@given(seeds, st.integers(10, 21), st.integers(1, 4))
def test_a_small_network_of_the_kind_is_torchs(seed: int, size: int, n: int) -> None:
    check_network(*pair(size, seed % 1000, **SMALL), n, seed)


def test_the_papers_network_is_torchs() -> None:
    check_network(*pair(97, 5), 2, 5)


def test_gradients_are_the_slopes_of_the_loss() -> None:
    """Against finite differences, so not only against torch."""
    network = ref.ReferenceNetwork(10, description=paper_network(**SMALL))
    rng = np.random.default_rng(0)
    films, labels = rng.uniform(0, 1, (3, 1, 10, 10)), np.array([0, 1, 1])
    _, gradients = network.loss_and_gradients(films, labels)
    step = 1e-6
    for name, values in network.parameters.items():
        place = np.unravel_index(rng.integers(values.size), values.shape)
        losses = []
        for sign in (1, -1):
            values[place] += sign * step
            losses.append(network.loss_and_gradients(films, labels)[0])
            values[place] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        assert gradients[name][place] == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_the_reference_learns() -> None:
    """Bright squares against dark films: the loss falls to a tenth."""
    rng = np.random.default_rng(1)
    labels = np.arange(12) % 2
    films = rng.uniform(0, 0.4, (12, 1, 12, 12))
    films[labels == 1, :, 3:9, 3:9] += 0.6
    network = ref.ReferenceNetwork(12, description=paper_network(**SMALL))
    adam = ref.Adam(rate=0.02)
    first, _ = network.loss_and_gradients(films, labels)
    for _ in range(60):
        loss, gradients = network.loss_and_gradients(films, labels)
        adam.step(network.parameters, gradients)
    assert loss < first / 10
    assert ((network.forward(films)[:, 0] > 0) == labels).all()


def test_adam_is_torchs_where_epsilon_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    start = rng.normal(size=(3, 4))
    mine = {"w": start.copy()}
    theirs = tensor(start)
    adam = ref.Adam(rate=0.01, epsilon=1e-30)
    other = torch.optim.Adam([theirs], lr=0.01, eps=1e-30)
    for _ in range(5):
        gradient = rng.normal(size=(3, 4))
        adam.step(mine, {"w": gradient})
        theirs.grad = tensor(gradient, False)
        other.step()
        np.testing.assert_allclose(mine["w"], theirs.detach(), rtol=1e-12)


def test_adams_first_step_by_hand() -> None:
    """m = .1 g, v = .001 g², so the step is rate · √.001 / .1 · .1 g / (√.001 |g| + epsilon)."""
    mine = {"w": np.array([1.0])}
    ref.Adam().step(mine, {"w": np.array([1e-6])})
    root = np.sqrt(1e-3)
    expected = 1.0 - 1e-3 * root / 0.1 * 1e-7 / (root * 1e-6 + 1e-7)
    assert mine["w"][0] == pytest.approx(expected, rel=1e-15)
    assert 1.0 - mine["w"][0] < 0.5e-3  # epsilon is felt at this gradient, more than in torch


def test_glorots_limits_and_zero_biases() -> None:
    network = ref.ReferenceNetwork(94)
    w = network.parameters["conv2.weight"]
    limit = np.sqrt(6 / (9 * 32 + 9 * 32))
    assert 0.99 * limit < np.abs(w).max() <= limit
    assert abs(w.std() - limit / np.sqrt(3)) < 0.02 * limit
    assert not network.parameters["conv2.bias"].any()


def test_wrong_weights_films_and_layers_are_refused() -> None:
    network = ref.ReferenceNetwork(94)
    short = dict(network.parameters)
    short.pop("conv1.bias")
    with pytest.raises(ValueError, match="not the weights"):
        network.load(short)
    with pytest.raises(ValueError, match="films of shape"):
        network.forward(np.zeros((1, 94, 94)))
    with pytest.raises(ValueError, match="step or a frame"):
        ref.ReferenceNetwork(20, description=(Convolution("c", 1, padding=1),))


def test_weights_are_copied() -> None:
    one = ref.ReferenceNetwork(94)
    two = ref.ReferenceNetwork(94, one.parameters)
    two.parameters["conv1.bias"] += 1
    assert not one.parameters["conv1.bias"].any()
