"""A recipe: everything that decides what a training makes, typed, read from and written to TOML.

    recipe = Recipe.load("paper2021", ["training.epochs=3", "optimiser.lr=0.0005"])
    print(recipe.toml())

The tables of the file are the dataclasses below, their keys the fields. Unknown keys, wrong types
and impossible values are refused by name, before anything is computed.
"""

from __future__ import annotations

import math
import tomllib
import typing
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hilum.errors import RecipeError, nearest
from hilum.films.preprocess import Preprocessing
from hilum.storage import digest
from hilum.training import tables
from hilum.training.augment import Augmentation

FORMAT = 1
RECIPES = Path(__file__).parent.parent / "recipes"


def _between(default: Any, least: float, most: float = math.inf) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class Network:
    """The network: its name in ``hilum.networks.build`` and its own options."""

    name: str = "compact"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """Epochs, batches and the loss.

    Attributes
    ----------
    batch : films in a batch over all processes together
    last_batch : ``keep`` the smaller batch at an epoch's end, or ``drop`` it
    shards : parts of a batch that are computed apart on a CPU, each in a thread of its own where
        there are so many; batch statistics are a shard's
    precision : ``auto``: bfloat16 where the processor has it and it measures faster
    label_smoothing : s, with targets s/2 and 1 − s/2 (Szegedy 2016)
    class_weights : ``balanced``, n / (2 · n_class) as scikit-learn and Keras, or ``none``
    """

    epochs: int = _between(10, 1, 100_000)
    batch: int = _between(64, 1, 1_000_000)
    last_batch: Literal["keep", "drop"] = "keep"
    shards: int = _between(1, 1, 1024)
    seed: int = _between(0, 0, 2**31 - 1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    label_smoothing: float = _between(0.0, 0.0, 0.5)
    class_weights: Literal["balanced", "none"] = "balanced"


@dataclass(frozen=True)
class Optimiser:
    """How a gradient becomes an update.

    Attributes
    ----------
    lr : the highest learning rate; the schedule multiplies it
    momentum : of SGD and Muon, or Adam's β₁
    beta2, epsilon : Adam's
    weight_decay : on weights of two dimensions and more, never on biases or norms; decoupled,
        except for ``adam`` and ``sgd``, where it is added to the gradient
    muon_lr : Muon's learning rate for convolutions; all else then follows AdamW at ``lr``
    """

    name: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    lr: float = _between(1e-3, 0.0, 1e3)
    momentum: float = _between(0.9, 0.0, 0.9999)
    beta2: float = _between(0.999, 0.0, 0.999999)
    epsilon: float = _between(1e-7, 0.0, 1.0)
    weight_decay: float = _between(0.0, 0.0, 10.0)
    muon_lr: float = _between(0.02, 0.0, 10.0)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over time.

    Attributes
    ----------
    name : ``constant``; ``linear`` or ``cosine`` down to ``final`` (both step by step, after a
        linear warm-up: one-cycle); ``plateau``: times ``factor`` after ``patience`` epochs
        without a lower validation loss, never below ``floor`` (Keras's ReduceLROnPlateau)
    warmup : share of all steps that climb from 0
    final : the last learning rate as a share of the highest
    """

    name: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    warmup: float = _between(0.0, 0.0, 0.9)
    final: float = _between(0.0, 0.0, 1.0)
    patience: int = _between(2, 0, 10_000)
    factor: float = _between(0.3, 0.0, 1.0)
    floor: float = _between(1e-6, 0.0, 1.0)


@dataclass(frozen=True)
class Sizes:
    """Progressive image size.

    Attributes
    ----------
    phases : ``[[size, share], ...]``: the side in pixels and the share of all epochs, in order;
        empty: every epoch at ``preprocessing.size``. No side exceeds that.
    """

    phases: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Averaging:
    """Exponential moving average of the weights, which is then validated and shipped.

    Attributes
    ----------
    decay : a step's decay, 0 for none; young averages forget faster: min(decay, t / (t + 10))
    every : steps between two updates of the average
    """

    decay: float = _between(0.0, 0.0, 0.99999)
    every: int = _between(4, 1, 10_000)


@dataclass(frozen=True)
class Finish:
    """How operating points are chosen when the weights stand.

    Attributes
    ----------
    shifts : imitated shifts (names in ``hilum.training.shifts.SHIFTS``) under which validation
        is scored beside the plain films; ``["all"]`` for all, empty for plain films alone
    balanced : rule of the point ``balanced`` (a name in ``hilum.evaluation.thresholds.RULES``)
    screening_recall : the recall that the point ``screening`` promises
    mirror : the model answers with the mean logit of a film and of its mirror image
    """

    shifts: tuple[str, ...] = ("all",)
    balanced: str = "equal_rates"
    screening_recall: float = _between(0.98, 0.5, 1.0)
    mirror: bool = False


@dataclass(frozen=True)
class Recipe:
    """All of it. ``Recipe.load`` reads one, ``toml`` writes it resolved."""

    name: str = "custom"
    about: str = ""
    format: int = _between(FORMAT, 1, FORMAT)
    network: Network = field(default_factory=Network)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    training: Training = field(default_factory=Training)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    sizes: Sizes = field(default_factory=Sizes)
    averaging: Averaging = field(default_factory=Averaging)
    augmentation: Augmentation = field(default_factory=Augmentation)
    finish: Finish = field(default_factory=Finish)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def load(cls, name_or_path: str | Path = "fast", overrides: Sequence[str] = ()) -> Recipe:
        """A recipe by name or file, with ``key=value`` overrides (dotted keys, TOML values).

        Raises
        ------
        RecipeError
            No such recipe, not TOML, an unknown key, a wrong type or an impossible value.
        """
        path = Path(name_or_path)
        if path.suffix != ".toml":
            path = RECIPES / f"{name_or_path}.toml"
            if not path.is_file():
                raise RecipeError(
                    f"no such recipe: {name_or_path}. {nearest(str(name_or_path), names())} "
                    "A file of your own ends in .toml."
                )
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecipeError(f"the recipe cannot be read: {path} ({reason}).") from None
        content.setdefault("name", path.stem)
        return cls.from_dict(content, overrides)

    @classmethod
    def from_dict(cls, content: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
        """A recipe from the nested dict of its TOML file."""
        recipe: Recipe = tables.build(cls, content, "")
        for text in overrides:
            recipe = _override(recipe, text)
        return recipe

    def as_dict(self) -> dict[str, Any]:
        """The nested dict that its TOML file holds."""
        return tables.plain(self)

    def toml(self) -> str:
        """The resolved recipe, every key written."""
        return tables.toml(self.as_dict())

    @property
    def digest(self) -> str:
        """Digest of everything but the name and the remark: what the training does."""
        return digest(replace(self, name="", about="").toml())[:16]

    def size_at(self, epoch: int) -> int:
        """Side of the films in epoch ``epoch`` (from 0), in pixels."""
        total = sum(share for _, share in self.sizes.phases)
        passed = 0.0
        for size, share in self.sizes.phases:
            passed += share / total
            if (epoch + 0.5) / self.training.epochs < passed:
                return size
        return self.sizes.phases[-1][0] if self.sizes.phases else self.preprocessing.size


def names() -> list[str]:
    """The recipes that come with hilum."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _check(recipe: Recipe) -> None:
    """What types cannot say: ranges, and keys that must fit each other."""
    for table in [recipe, *(getattr(recipe, item.name) for item in fields(recipe))]:
        if not is_dataclass(table):
            continue
        prefix = "" if table is recipe else f"{_table_name(recipe, table)}."
        for item in fields(table):
            least, most = item.metadata.get("least"), item.metadata.get("most")
            value = getattr(table, item.name)
            if least is not None and not least <= value <= most:
                raise RecipeError(
                    f"an impossible value: {prefix}{item.name} = {value}. "
                    f"It lies between {least:g} and {most:g}."
                )
    if recipe.preprocessing.size < 8:
        raise RecipeError(
            f"an impossible value: preprocessing.size = {recipe.preprocessing.size}. "
            "It is 8 or more."
        )
    for size, share in recipe.sizes.phases:
        if not (8 <= size <= recipe.preprocessing.size and share > 0):
            raise RecipeError(
                f"an impossible phase: sizes.phases [{size}, {share:g}]. A side lies between 8 and "
                f"preprocessing.size = {recipe.preprocessing.size}, a share is positive."
            )


def _table_name(recipe: Recipe, table: object) -> str:
    return next(item.name for item in fields(recipe) if getattr(recipe, item.name) is table)


def _override(recipe: Recipe, text: str) -> Recipe:
    """The recipe with one ``dotted.key=value`` changed."""
    key, sign, value = text.partition("=")
    key = key.strip()
    if not sign or not key:
        raise RecipeError(f"not key=value: {text}. Write for example training.epochs=5.")
    known = list(dotted_keys())
    if key not in known and not key.startswith("network.options."):
        raise RecipeError(f"no such key in a recipe: {key}. {nearest(key, known)}")
    content = recipe.as_dict()
    *above, last = key.split(".")
    inside = content
    for name in above:
        inside = inside.setdefault(name, {})
    inside[last] = _parsed(value)
    return tables.build(Recipe, content, "")


def _parsed(text: str) -> Any:
    """A TOML value; what is none, such as ``.5`` or ``adam``, as a number or a text."""
    for parse in (lambda: tomllib.loads(f"x = {text}")["x"], lambda: float(text)):
        with suppress(ValueError):  # TOMLDecodeError is one
            return parse()
    return text.strip()


def dotted_keys() -> Iterable[str]:
    """Every key that ``--set`` takes; any further one behind ``network.options.``"""
    for name, hint in typing.get_type_hints(Recipe).items():
        if is_dataclass(hint):
            yield from (f"{name}.{item.name}" for item in fields(hint))
        else:
            yield name
