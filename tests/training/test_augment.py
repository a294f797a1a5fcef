"""Augmentation: identity, independence of the batch, the paper's ranges, the imitated shifts."""

from dataclasses import fields

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from hilum.networks import kernels  # noqa: E402
from hilum.training.augment import Augmentation, augment, uniform  # noqa: E402
from hilum.training.shifts import SHIFTS, imitate  # noqa: E402

EVERYTHING = Augmentation(
    flip=True, rotation=10, zoom=0.1, stretch=0.2, shift=0.08, shear=3, blur=1.5, sharpen=1.5,
    gamma=0.7, contrast=0.5, field=0.3, noise=0.05, cutout=0.5,
)  # fmt: skip


def films(n: int = 24, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth made-up films, and numbers as large as a digest gives."""
    draws = torch.rand(n, 4, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(draws[:, None], size=(size, size), mode="bilinear")
    numbers = torch.randint(0, 2**63 - 1, (n,), generator=torch.Generator().manual_seed(2))
    return (smooth[:, 0] * 255).to(torch.uint8), numbers


def test_zero_changes_nothing() -> None:
    pixels, numbers = films()
    assert torch.equal(augment(pixels, numbers, 0, 0, Augmentation())[:, 0], pixels.float())


@pytest.mark.parametrize("name", [item.name for item in fields(Augmentation)])
def test_each_strength_alone_changes_films_and_keeps_the_scale(name: str) -> None:
    pixels, numbers = films(64)
    strength = {"rotation": 10.0, "shear": 10.0, "blur": 2.0, "sharpen": 2.0, "flip": True}.get(
        name, 0.3
    )
    changed = augment(pixels, numbers, 0, 0, Augmentation(**{name: strength}))
    assert changed.shape == (64, 1, 32, 32) and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 255
    assert (changed[:, 0] - pixels).abs().amax((1, 2)).gt(1).any()


@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10_000), data=st.data())
@settings(max_examples=25, deadline=None)
def test_depends_on_seed_epoch_and_film_alone(seed: int, epoch: int, data: st.DataObject) -> None:
    pixels, numbers = films(12)
    whole = augment(pixels, numbers, seed, epoch, EVERYTHING)
    some = data.draw(st.lists(st.integers(0, 11), min_size=1, unique=True))
    alone = augment(pixels[some], numbers[some], seed, epoch, EVERYTHING)
    torch.testing.assert_close(alone, whole[some], atol=0.02, rtol=0)
    assert not torch.equal(whole, augment(pixels, numbers, seed, epoch + 1, EVERYTHING))
    assert not torch.equal(whole, augment(pixels, numbers, seed + 1, epoch, EVERYTHING))


@given(seed=st.integers(0, 2**31 - 1), size=st.integers(1, 70), data=st.data())
@settings(max_examples=40, deadline=None)
def test_kernel_and_torch_make_the_same_films(seed: int, size: int, data: st.DataObject) -> None:
    """All transforms at once, or any one of them: smooth films to a hundredth of a grey value."""
    if not kernels.available():
        pytest.skip(kernels.status())
    pixels, numbers = films(16, size)
    name = data.draw(st.sampled_from(["", *vars(EVERYTHING)]))
    asked = Augmentation(**{name: vars(EVERYTHING)[name]}) if name else EVERYTHING
    made = augment(pixels, numbers, seed, 3, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "takes_films", lambda pixels: False)
        by_torch = augment(pixels, numbers, seed, 3, asked)
    torch.testing.assert_close(made, by_torch, atol=0.01, rtol=0)


def test_draws_are_uniform_and_unrelated() -> None:
    numbers = torch.arange(20_000)
    draws = torch.cat([uniform(numbers, 3, 0, 0), uniform(numbers, 3, 0, 1)], 1).double()
    assert draws.min() > 0 and draws.max() < 1
    # Mean 1/2, variance 1/12, correlations none: within five standard errors.
    assert (draws.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 20_000) ** 0.5
    assert (draws.var(0) - 1 / 12).abs().max() < 0.004
    assert (torch.corrcoef(draws.T) - torch.eye(6)).abs().max() < 5 / 20_000**0.5


def test_zoom_scales_each_axis_within_its_range() -> None:
    """The paper's zoom: a square of 40 of 100 pixels becomes 40 / 1.2 to 40 / 0.8, by each axis."""
    pixels = torch.zeros(200, 100, 100, dtype=torch.uint8)
    pixels[:, 30:70, 30:70] = 255
    zoomed = augment(pixels, torch.arange(200), 0, 0, Augmentation(zoom=0.2))[:, 0] / 255
    high, wide = zoomed[:, :, 50].sum(1), zoomed[:, 50, :].sum(1)
    for side in (high, wide):
        assert 40 / 1.2 - 1 < side.min() < 35 and 48 < side.max() < 40 / 0.8 + 1
    assert abs(torch.corrcoef(torch.stack([high, wide]))[0, 1]) < 0.3


def test_flip_mirrors_half() -> None:
    pixels, numbers = films(400, 8)
    flipped = augment(pixels, numbers, 0, 0, Augmentation(flip=True))[:, 0]
    mirrored = (flipped - pixels.flip(2)).abs().amax((1, 2)) < 0.01
    plain = (flipped - pixels).abs().amax((1, 2)) < 0.01
    assert (mirrored | plain).all() and 0.4 < mirrored.float().mean() < 0.6


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_are_repeatable_and_keep_the_film(name: str) -> None:
    pixels, numbers = films()
    shifted = imitate(pixels, numbers, name, 0)
    assert shifted.dtype == torch.uint8 and shifted.shape == pixels.shape
    assert not torch.equal(shifted, pixels)
    assert torch.equal(imitate(pixels[5:9], numbers[5:9], name, 0), shifted[5:9])


@pytest.mark.parametrize(
    "bad", [{"zoom": 1.0}, {"blur": -1.0}, {"noise": float("nan")}, {"rotation": 1e41}]
)
def test_impossible_strengths_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError):
        Augmentation(**bad)
