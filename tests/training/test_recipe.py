from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import RecipeError
from hilum.training.recipe import Optimiser, Recipe, Schedule, Sizes, Training, dotted_keys, names

number = st.floats(1e-9, 0.5)
text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
option = st.one_of(st.integers(-9, 9), st.booleans(), text, st.floats(-9, 9), st.just([1, 2.5]))
recipes = st.builds(
    Recipe,
    name=text,
    about=text,
    training=st.builds(
        Training,
        epochs=st.integers(1, 99),
        batch=st.integers(1, 99),
        seed=st.integers(0, 99),
        precision=st.sampled_from(["auto", "float32", "bfloat16"]),
        label_smoothing=number,
    ),
    optimiser=st.builds(Optimiser, lr=number, weight_decay=number, epsilon=number),
    schedule=st.builds(Schedule, name=st.sampled_from(["linear", "plateau"]), warmup=number),
    sizes=st.builds(Sizes, st.lists(st.tuples(st.integers(8, 224), number), max_size=3).map(tuple)),
)


@given(recipes, st.dictionaries(text, option, max_size=3))
def test_what_is_written_is_read_again(recipe: Recipe, options: dict[str, Any]) -> None:
    recipe = replace(recipe, network=replace(recipe.network, options=options))
    again = Recipe.from_dict(tomllib.loads(recipe.toml()))
    assert again == recipe
    assert again.digest == recipe.digest


@pytest.mark.parametrize("name", names())
def test_recipes_that_come_with_hilum(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    (tmp_path / "own.toml").write_text(recipe.toml(), "utf-8")
    own = Recipe.load(tmp_path / "own.toml")
    assert own == recipe
    assert recipe.name == name
    assert recipe.about


def test_the_papers_recipe() -> None:
    recipe = Recipe.load("paper2021")
    assert (recipe.preprocessing.size, recipe.training.batch, recipe.training.epochs) == (
        500,
        16,
        10,
    )
    assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.epsilon) == (
        "adam",
        1e-3,
        1e-7,
    )
    schedule = recipe.schedule
    assert (schedule.name, schedule.patience, schedule.factor, schedule.floor) == (
        "plateau", 2, 0.3, 1e-6,
    )  # fmt: skip
    assert recipe.training.precision == "float32"
    assert recipe.training.class_weights == "balanced"
    assert not recipe.averaging.decay and not recipe.training.label_smoothing


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"trainin": {}}, "Did you mean 'training'"),
        ({"training": {"epoch": 3}}, "training.epoch. Did you mean 'epochs'"),
        ({"optimiser": {"name": "adamm"}}, "optimiser.name = 'adamm'. Did you mean 'adam'"),
        ({"training": {"epochs": 2.5}}, "training.epochs = 2.5. It takes a whole number"),
        ({"training": {"epochs": True}}, "a whole number"),
        ({"training": {"epochs": 0}}, "training.epochs = 0"),
        ({"training": {"seed": -1}}, "training.seed = -1"),
        ({"optimiser": {"lr": "fast"}}, "optimiser.lr = 'fast'. It takes a number"),
        ({"optimiser": {"lr": float("nan")}}, "optimiser.lr"),
        ({"optimiser": {"momentum": 1.5}}, "optimiser.momentum = 1.5"),
        ({"training": 3}, r"Write \[training\]"),
        ({"preprocessing": {"size": 2}}, "preprocessing.size = 2"),
        ({"sizes": {"phases": [[64, 1.0], [999, 1.0]]}}, "sizes.phases"),
        ({"sizes": {"phases": [64, 96]}}, "sizes.phases"),
        ({"sizes": {"phases": [[64, 0.0]]}}, "a share is positive"),
        ({"network": {"options": {"width": None}}}, "network.options.width"),
        ({"augmentation": {"flipp": True}}, "Did you mean 'flip'"),
        ({"format": 99}, "format = 99"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(content: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        Recipe.from_dict(content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epoch=3", "Did you mean 'training.epochs'"),
        ("epochs=3", "training.epochs"),
        ("training.epochs", "not key=value"),
        ("=3", "not key=value"),
        ("training.epochs=three", "a whole number"),
        ("training=3", "no such key"),
    ],
)
def test_overrides_that_are_wrong(override: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.load("paper2021", [override])


def test_overrides() -> None:
    recipe = Recipe.load(
        "paper2021",
        [
            "training.epochs=3",
            "optimiser.lr = 5e-4",
            "optimiser.name=sgd",
            "network.options.width=8",
            "sizes.phases=[[250, 0.5], [500, 0.5]]",
            "finish.shifts=[]",
        ],
    )
    assert recipe.training.epochs == 3
    assert recipe.optimiser == replace(Recipe.load("paper2021").optimiser, lr=5e-4, name="sgd")
    assert recipe.network.options == {"width": 8}
    assert recipe.sizes.phases == ((250, 0.5), (500, 0.5))
    assert recipe.finish.shifts == ()


def test_a_recipe_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'paper2021'"):
        Recipe.load("paper2020")
    with pytest.raises(RecipeError, match="No such file"):
        Recipe.load(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("training = [")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path / "mine.toml")


def test_digest_speaks_of_what_is_done() -> None:
    one = Recipe.load("paper2021")
    assert replace(one, name="other", about="mine").digest == one.digest
    assert replace(one, training=replace(one.training, seed=1)).digest != one.digest


def test_every_key_can_be_overridden() -> None:
    keys = set(dotted_keys())
    assert {"training.seed", "augmentation.flip", "preprocessing.size", "name"} <= keys
    assert len(keys) > sum(1 for _ in fields(Recipe))


def test_progressive_sizes() -> None:
    recipe = Recipe.from_dict(
        {
            "training": {"epochs": 4},
            "preprocessing": {"size": 96},
            "sizes": {"phases": [[64, 3.0], [96, 1.0]]},
        }
    )
    assert [recipe.size_at(epoch) for epoch in range(4)] == [64, 64, 64, 96]
    assert replace(recipe, sizes=Sizes()).size_at(0) == 96
