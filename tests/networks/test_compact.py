"""The network of ``fast``: its sizes, its exact class activation map, its first answers."""

import pytest

torch = pytest.importorskip("torch")

from hilum.networks.compact import Compact, Fold  # noqa: E402


def test_is_small_enough_to_ship() -> None:
    assert sum(p.numel() for p in Compact().parameters()) == 307_777
    assert sum(p.numel() for p in Compact(width=32, blocks=(1, 2, 2)).parameters()) < 1_200_000


@pytest.mark.parametrize(
    ("size", "stride", "side"), [(64, 2, 4), (96, 2, 6), (64, 1, 8), (50, 2, 4)]
)
def test_shapes(size: int, stride: int, side: int) -> None:
    network = Compact(width=8, stem_stride=stride).eval()
    x = torch.randn(2, 1, size, size)
    assert network(x).shape == (2, 1)
    assert network.features(x).shape == (2, 32, side, side)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_pixels_become_channels_as_torch_has_it(dtype: torch.dtype) -> None:
    x = torch.randn(3, 1, 6, 10).to(dtype)
    expected = torch.nn.functional.pixel_unshuffle(x, 2)
    for given in (x, x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        assert torch.equal(Fold(2)(given), expected)
    wanted = x.clone().requires_grad_()
    (Fold(2)(wanted) * expected).sum().backward()
    assert torch.equal(wanted.grad, x)
    traced = torch.jit.trace(Fold(2), x)
    assert "pixel_unshuffle" in str(traced.graph) and torch.equal(traced(x), expected)


def test_folded_films_have_their_channels_last() -> None:
    folded = Fold(2)(torch.randn(3, 1, 6, 10))
    assert folded.is_contiguous(memory_format=torch.channels_last)


def test_the_logit_is_the_mean_of_the_activation_map() -> None:
    torch.manual_seed(0)
    network = Compact(width=8).eval()
    torch.nn.init.normal_(network.classifier.weight)
    x = torch.randn(3, 1, 64, 64)
    places = network.features(x).permute(0, 2, 3, 1)
    activation = network.classifier(places)[..., 0]
    torch.testing.assert_close(activation.mean((1, 2)), network(x)[:, 0], atol=1e-5, rtol=1e-5)


def test_starts_undecided_and_learns() -> None:
    torch.manual_seed(0)
    network = Compact(width=8)
    x, y = torch.randn(16, 1, 32, 32), torch.arange(16.0) % 2
    x += 2 * y[:, None, None, None] * torch.linspace(-1, 1, 32)
    assert network(x).abs().max() == 0
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(20):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2


@pytest.mark.parametrize(
    "options",
    [{"width": 0}, {"blocks": ()}, {"blocks": (1, 0)}, {"stem_stride": 4}, {"dropout": 1}],
)
def test_refuses_impossible_options(options: dict) -> None:
    with pytest.raises(ValueError):
        Compact(**options)
