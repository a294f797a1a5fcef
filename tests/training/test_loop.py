from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import NonFiniteLoss
from hilum.progress import Progress
from hilum.training.learner import TorchLearner, class_weights
from hilum.training.loop import Epoch, batches, fit, judge, order, steps_in_epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.schedule import LearningRate

from .conftest import CPU, at, films_of, recipe_of


def trained(recipe: Recipe, part: Films, other: Films, place: Any = CPU) -> tuple[Any, list[Epoch]]:
    learner = TorchLearner(recipe, place, class_weights(part.labels, "balanced"))
    epochs: list[Epoch] = []
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    fit(learner, recipe, part, other, rate=rate, ended=epochs.append)
    return learner, epochs


def weights_of(learner: Any) -> np.ndarray[Any, Any]:
    parameters = learner.network().state_dict().values()
    return np.concatenate([p.double().flatten().numpy() for p in parameters])


@given(st.integers(1, 200), st.integers(1, 50), st.sampled_from(["keep", "drop"]))
def test_batches_hold_each_film_once(films: int, size: int, last: str) -> None:
    plan = batches(order(0, 0, films), size, last)
    seen = np.concatenate(plan)
    assert len(np.unique(seen)) == len(seen)
    assert len(seen) == films if last == "keep" or films < size else films - films % size
    assert all(len(batch) == size for batch in plan[:-1])


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    assert (order(1, 2, 50) == order(1, 2, 50)).all()
    assert (order(1, 2, 50) != order(1, 3, 50)).any()
    assert (order(1, 2, 50) != order(2, 2, 50)).any()


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"optimiser": {"name": "muon"}, "averaging": {"decay": 0.9, "every": 2}},
        {"optimiser": {"name": "sgd", "lr": 0.01}, "schedule": {"name": "cosine", "warmup": 0.2}},
        {"sizes": {"phases": [[16, 0.5], [32, 0.5]]}, "training": {"last_batch": "drop"}},
    ],
)
def test_same_seed_same_weights(part: Films, other: Films, tables: dict[str, Any]) -> None:
    recipe = recipe_of(**tables)
    torch.manual_seed(1)
    one, epochs = trained(recipe, part, other)
    torch.manual_seed(2)
    two, _ = trained(recipe, part, other)
    assert (weights_of(one) == weights_of(two)).all()
    assert epochs[-1].loss < epochs[0].loss
    seeds = recipe_of(**{**tables, "training": {**tables.get("training", {}), "seed": 5}})
    assert (weights_of(trained(seeds, part, other)[0]) != weights_of(one)).any()


def test_training_learns(part: Films, other: Films) -> None:
    recipe = recipe_of(training={"epochs": 8}, optimiser={"lr": 0.01})
    rows: list[dict[str, object]] = []

    class Watch(Progress):
        def row(self, table: str, values: dict[str, object]) -> None:
            rows.append(values)

    learner = TorchLearner(recipe, CPU, class_weights(part.labels, "balanced"))
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    fit(learner, recipe, part, other, rate=rate, progress=Watch())
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["val_auroc"] == pytest.approx(1, abs=0.05)
    assert rows[-1]["lr"] == 0.01


def test_bfloat16_trains(part: Films, other: Films) -> None:
    _, epochs = trained(recipe_of(optimiser={"lr": 0.01}), part, other, at(CPU, "bfloat16"))
    assert epochs[-1].loss < epochs[0].loss


def test_the_loss_of_an_epoch_is_the_mean_of_its_films(part: Films, other: Films) -> None:
    """The last batch of 36 films is one of 4: its films count as much as those of 32."""
    recipe = recipe_of(training={"epochs": 1, "batch": 32})
    learner: Any = SimpleNamespace(
        begin=lambda films, epoch, plan: None, step=lambda batch, lr: None,
        finish=lambda: (np.array([0.9, 0.0]), np.zeros(36)),
        logits=lambda films, size: np.zeros(len(films)),
    )  # fmt: skip
    epochs: list[Epoch] = []
    fit(learner, recipe, part, other, rate=LearningRate(recipe, 2), ended=epochs.append)
    assert epochs[0].loss == pytest.approx(0.9 * 32 / 36)


def test_a_loss_that_is_not_finite_is_named(part: Films, other: Films) -> None:
    recipe = recipe_of("paper2021", 94, optimiser={"name": "sgd", "lr": 900.0})
    films = films_of(36, 94)
    with pytest.raises(NonFiniteLoss, match=r"epoch \d+, step \d+, at learning rate 900"):
        trained(recipe, films, films)


def test_validation_numbers_are_plain(other: Films) -> None:
    logits = np.linspace(-3, 3, len(other))
    found = judge(logits, other.labels)
    p = 1 / (1 + np.exp(-logits))
    y = other.labels
    assert found["loss"] == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    assert found["accuracy"] == ((p >= 0.5) == y).mean()
    assert judge(logits[:1], y[:1])["auroc"] is None
    assert judge(logits[:0], y[:0]) == {"loss": None, "accuracy": None, "auroc": None}


def test_balanced_class_weights() -> None:
    labels = np.array([0] * 1082 + [1] * 3110, np.int8)
    assert class_weights(labels, "balanced") == pytest.approx((1.937, 0.674), abs=5e-4)
    assert class_weights(labels, "none") == (1, 1)


def test_class_weights_and_smoothing_in_the_loss(part: Films) -> None:
    recipe = recipe_of(training={"label_smoothing": 0.2})
    learner = TorchLearner(recipe, CPU, (3.0, 0.5))
    learner.begin(part, 0)
    batch = np.arange(8)
    x, y = learner.prepare(batch)
    loss = float(learner.loss(x, y, 8).detach())
    z = learner._logits[-1].double().numpy()
    target = y.double().numpy() * 0.8 + 0.1
    each = np.logaddexp(0, z) - target * z
    weight = np.where(part.labels[batch] == 1, 0.5, 3.0)
    assert loss == pytest.approx((weight * each).mean(), rel=1e-5)


def test_the_average_is_what_is_judged_and_shipped(part: Films, other: Films) -> None:
    learner, _ = trained(recipe_of(averaging={"decay": 0.99, "every": 1}), part, other)
    shipped, last = learner.network().state_dict(), learner.model.state_dict()
    assert any(not torch.equal(shipped[name], last[name]) for name in last)
    assert learner.average is not None
    for parameter in learner.average.parameters():
        assert torch.isfinite(parameter).all()


def test_a_process_prepares_its_next_films_while_it_waits(part: Films) -> None:
    """They are those that it would have prepared, whatever batch comes; the last one waits idle."""
    told: list[Any] = []
    # A group of one process, which tells when it is called.
    alone: Any = SimpleNamespace(
        rank=0, size=1, device=torch.device("cpu"), share=lambda batch: batch,
        wrap=lambda network, batch: network, by_factors=None, meet=lambda: None,
        arrive=lambda: told.append("arrive"), collect=lambda: told.append("collect"),
    )  # fmt: skip

    def learn(plan: list[Any], taken: list[Any]) -> Any:
        learner = TorchLearner(recipe_of(), CPU, (1.0, 1.0), alone)
        usual = learner.prepare
        learner.prepare = lambda batch: (told.append(list(batch)), usual(batch))[1]  # type: ignore
        told.clear()
        learner.begin(part, 0, plan)
        for batch in taken:
            learner.step(batch, 1e-3)
        return weights_of(learner)

    a, b, c = (np.arange(k, k + 4) for k in (0, 4, 8))
    ahead = learn([a, b, c], [a, b, c])
    meeting = ["arrive", "collect"]
    assert told == [[*a], "arrive", [*b], "collect", "arrive", [*c], "collect", *meeting]
    assert np.array_equal(ahead, learn([], [a, b, c]))
    assert told == [[*a], *meeting, [*b], *meeting, [*c], *meeting]
    assert np.array_equal(ahead, learn([a, c, b], [a, b, c]))
    assert told == [
        [*a],
        "arrive",
        [*c],
        "collect",
        [*b],
        "arrive",
        [*b],
        "collect",
        [*c],
        *meeting,
    ]


class TestLearningRate:
    def test_plateau_is_keras(self) -> None:
        recipe = Recipe.load("paper2021")
        rate = LearningRate(recipe, 262)
        seen = []
        # Losses of the paper's table 2; two epochs without a lower one cut the rate.
        for loss in (0.20, 0.18, 0.16, 0.1347, 0.1498, 0.1527, 0.1405, 0.1405, 0.13, 0.13):
            rate.epoch_ended(loss)
            seen.append(rate.at(0))
        expected = [1e-3] * 5 + [3e-4] * 2 + [9e-5] * 3
        assert seen == pytest.approx(expected)

    def test_an_epoch_that_is_hardly_better_is_on_the_plateau(self) -> None:
        """Keras's min_delta: it is better by more than 1e-4, or it is not."""
        rate = LearningRate(Recipe.load("paper2021"), 10)
        for loss, expected in ((0.2, 1e-3), (0.19995, 1e-3), (0.19991, 3e-4), (0.19, 3e-4)):
            rate.epoch_ended(loss)
            assert rate.at(0) == pytest.approx(expected)
        assert rate.best == 0.19

    def test_plateau_has_a_floor(self) -> None:
        rate = LearningRate(Recipe.load("paper2021"), 10)
        for _ in range(60):
            rate.epoch_ended(1.0)
        assert rate.at(0) == pytest.approx(1e-6)

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_one_cycle(self, name: str) -> None:
        recipe = recipe_of(
            schedule={"name": name, "warmup": 0.25, "final": 0.1}, training={"epochs": 4}
        )
        rate = LearningRate(recipe, 10)
        lrs = np.array([rate.at(step) for step in range(40)])
        top = recipe.optimiser.lr
        assert 0 < lrs[0] < 0.2 * top
        assert lrs.max() == pytest.approx(top)
        assert lrs.argmax() == 10
        assert (np.diff(lrs[10:]) < 0).all()
        assert 0.1 * top <= lrs[-1] < 0.15 * top

    def test_its_memory_is_kept(self) -> None:
        recipe = Recipe.load("paper2021")
        one, two = LearningRate(recipe, 5), LearningRate(recipe, 5)
        for loss in (0.3, 0.4, 0.5, 0.2, 0.6):
            one.epoch_ended(loss)
        two.restore(one.state())
        assert two == one
