"""One training step behind one interface, and the learner that runs on torch.

A learner owns the weights, the optimiser and the device. The loop tells it which films come next
and at which learning rate; it never sees an array of the other's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hilum.machine import Place
from hilum.native import library
from hilum.networks import kernels
from hilum.networks.build import build, named
from hilum.training import optimiser
from hilum.training.augment import Drawn, changed, draw
from hilum.training.graph import scale
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

if TYPE_CHECKING:
    from hilum.training.group import Group


#: Films whose augmentation is drawn in one go: a thousand bytes each, on the way.
DRAWN_AT_ONCE = 1 << 14


class Learner(Protocol):
    """What the loop needs of a back end."""

    def warm_up(self, films: Films, validation: Films, epoch: int) -> None:
        """Do before that epoch what is done once; nothing is learnt."""

    def begin(self, films: Films, epoch: int, plan: Sequence[NDArray[np.int64]] = ()) -> None:
        """An epoch (from 0) over these films begins; ``plan``: its batches, to fetch ahead."""

    def step(self, batch: NDArray[np.int64], learning_rate: float) -> float | None:
        """Learn from the films at these indices; the loss, where it is known without waiting."""

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses of the epoch's steps (steps,) and logits of its films (n,) in order."""

    def logits(self, films: Films, size: int) -> NDArray[np.float64]:
        """Logits (n,) of plain films by the weights that will be shipped."""

    def network(self) -> nn.Module:
        """Those weights as a torch network on the CPU, float32, not training."""

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a ``state``."""


def class_weights(labels: NDArray[np.int8], how: str) -> tuple[float, float]:
    """Weight of the loss of each class: n / (2 · n_class), or 1."""
    positive = int((labels == 1).sum())
    if how == "none" or positive in (0, len(labels)):
        return 1.0, 1.0
    return len(labels) / (2 * (len(labels) - positive)), len(labels) / (2 * positive)


def new_network(recipe: Recipe) -> Any:
    """The recipe's network with its first weights, a function of the seed alone."""
    seed = recipe.training.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = build(
            recipe.network.name, recipe.preprocessing.size, **recipe.network.options
        )
        if hasattr(network, "initialise"):
            network.initialise(torch.Generator().manual_seed(seed))
    return network


def libraries(recipe: Recipe) -> tuple[str, ...]:
    """The compiled libraries that a training uses, augmentation's among them."""
    optimisers = ("muon",) if recipe.optimiser.name == "muon" else ()
    return tuple(dict.fromkeys(("films", *named(recipe.network.name).libraries, *optimisers)))


class TorchLearner:
    """Learns on a CPU or Apple's MPS, and is what a GPU's learner is made from.

    Parameters
    ----------
    recipe : what to do
    place : resolved, with a precision that is not ``auto``
    weights : of the loss, of class 0 and 1
    group : the processes that train together, or None: each takes its share of every batch

    Attributes
    ----------
    at_once : so many films of a batch are computed together, at most
    drawn : what the epoch does to each film
    """

    def __init__(
        self,
        recipe: Recipe,
        place: Place,
        weights: tuple[float, float],
        group: Group | None = None,
    ) -> None:
        self.recipe, self.place, self.group = recipe, place, group
        self.device = torch.device(place.device) if group is None else group.device
        self.at_once = -(-recipe.training.batch // (1 if group is None else group.size))
        self.dtype = torch.float32
        self.model: Any = new_network(recipe).to(self.device, memory_format=torch.channels_last)
        self.shared: Any = (
            self.model if group is None else group.wrap(self.model, recipe.training.batch)
        )
        self.optimisers = optimiser.make(
            self.model,
            recipe.optimiser,
            None if group is None else group.by_factors,
            place.threads,
        )
        self.average: Any = deepcopy(self.model).eval() if recipe.averaging.decay else None
        self.weights = torch.tensor(weights, device=self.device)
        self.drawn: Drawn | None = None
        self.steps = 0
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._places: list[NDArray[np.int64]] = []
        self._seen = 0
        self._plan: Sequence[NDArray[np.int64]] = ()
        self._at = 0
        self._ahead: dict[int, Ahead] = {}

    def warm_up(self, films: Films, validation: Films, epoch: int) -> None:
        """Kernels built, where there are some for this processor."""
        if self.device.type == "cpu":
            library.build(libraries(self.recipe))

    def begin(self, films: Films, epoch: int, plan: Sequence[NDArray[np.int64]] = ()) -> None:
        self._begin(films, epoch)
        self._plan, self._at, self._ahead = plan, 0, {}
        self.drawn = self.draws(torch.from_numpy(films.identity).to(self.device))

    def _begin(self, films: Films, epoch: int) -> None:
        self.films, self.epoch = films, epoch
        self.size = self.recipe.size_at(epoch)
        self._losses, self._logits, self._places, self._seen = [], [], [], 0
        self.model.train()
        # Dropout draws from here: an epoch is a function of the seed, its number and the process.
        rank = 0 if self.group is None else self.group.rank
        drawn = np.random.SeedSequence((self.recipe.training.seed, epoch, rank))
        torch.manual_seed(int(drawn.generate_state(1)[0]))

    def step(self, batch: NDArray[np.int64], learning_rate: float) -> float | None:
        places = np.arange(self._seen, self._seen + len(batch))
        if self.group is not None:
            places = self.group.share(places)
        self._places.append(places)
        self._seen += len(batch)
        self._at += 1
        x, y = self._prepared(0, self._mine(batch))
        with self._threads():
            loss = self.loss(x, y, len(batch)) * (1.0 if len(places) else 0.0)
            self.model.zero_grad(set_to_none=True)
            # The group takes the mean of its processes' gradients; their sum is wanted.
            (loss if self.group is None else loss * self.group.size).backward()
        if self.group is not None:
            self.group.arrive()
            for coming in self._coming():  # meanwhile the slower ones catch up
                self._prepare_ahead(0, self._mine(coming))
        with self._threads():
            if self.group is not None:
                self.group.collect()
            self.update(learning_rate)
        self._losses.append(loss.detach())
        known = self.device.type == "cpu" and self.group is None
        return float(loss.detach()) if known else None

    def update(self, learning_rate: float) -> None:
        """Move the weights by the gradients that they hold."""
        for one in self.optimisers:
            one.step(self._share(learning_rate))
        if self.group is not None:
            self.group.meet()
        self.steps += 1
        self._follow()

    def prepare(self, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Augmented films (n, 1, s, s) as the network takes them, and their labels (n,)."""
        films = self.films
        assert self.drawn is not None
        drawn = self.drawn.of(torch.from_numpy(batch).to(self.device))
        x = self.view(self._pixels(films, batch), drawn)
        return x, torch.from_numpy(films.labels[batch]).to(self.device, self.dtype)

    def _coming(self) -> Sequence[NDArray[np.int64]]:
        """The batch that the plan has next, if there is one."""
        return self._plan[self._at : self._at + 1]

    def _prepare_ahead(self, k: int, films: NDArray[np.int64]) -> None:
        """Shard ``k`` of the next batch, for :meth:`_prepared`."""
        self._ahead[k] = Ahead(films, *self.prepare(films))

    def _prepared(self, k: int, films: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        ahead = self._ahead.pop(k, None)
        if ahead is not None and np.array_equal(ahead.films, films):
            return ahead.x, ahead.y
        return self.prepare(films)

    def draws(self, identity: Tensor) -> Drawn:
        """What this epoch does to the films of these numbers (n,).

        For all of them at once: many small operators, of which each costs more than a batch of
        numbers.
        """
        recipe, pieces = self.recipe, identity.split(DRAWN_AT_ONCE)
        given = recipe.training.seed, self.epoch, recipe.augmentation, self.size
        parts = zip(*(draw(some, *given) for some in pieces), strict=True)
        return Drawn(*(None if some[0] is None else torch.cat(some) for some in parts))

    def view(self, pixels: Tensor, drawn: Drawn) -> Tensor:
        """Films (n, m, m) uint8 as they are shown to the network, (n, 1, s, s)."""
        x = changed(shrink(pixels, self.size), drawn, self.recipe.training.seed)
        return scale(x, self.model.input_scaling).to(self.dtype, memory_format=torch.channels_last)

    def loss(self, x: Tensor, y: Tensor, films: int) -> Tensor:
        """Weighted cross-entropy, summed over this batch and divided by ``films``."""
        with self._autocast():
            z = self.shared(x).flatten()
        z = z.to(self.dtype)
        self._logits.append(z.detach())
        return cross_entropy(z, y, self.weights, self.recipe.training.label_smoothing) / films

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        losses, logits = torch.stack(self._losses), torch.cat(self._logits)
        both = torch.cat([losses, logits]).cpu().double().numpy()  # one wait for the device
        found, scores = both[: len(losses)], both[len(losses) :]
        if self.group is None:
            return found, scores
        for model in filter(None, (self.model, self.average)):
            self.group.agree(model)
        mine = np.concatenate(self._places)
        return self.group.total(found), self.group.gathered(scores[: len(mine)], mine, self._seen)

    def logits(self, films: Films, size: int) -> NDArray[np.float64]:
        model = self.average if self.average is not None else self.model.eval()
        everything = np.arange(len(films))
        shares = self._shards(everything)
        # Large enough to fill the processor, small enough to stay within a step's memory.
        many = min(self.at_once * 2, 256)

        @torch.inference_mode()
        def judge(some: NDArray[np.int64]) -> Tensor:
            pixels = shrink(self._pixels(films, some), size)
            x = scale(pixels[:, None].float(), self.model.input_scaling)
            with self._autocast():
                y: Tensor = model(x.to(self.dtype, memory_format=torch.channels_last))
            return y.flatten()

        given = [share[k : k + many] for share in shares for k in range(0, len(share), many)]
        pieces = list(self._each(judge, given))
        # In float64 on the CPU: MPS has none.
        found = torch.cat(pieces).cpu().double().numpy() if pieces else np.zeros(0)
        if self.group is not None:
            return self.group.gathered(found, shares[0], len(films))
        ordered = np.empty_like(found)
        ordered[np.concatenate([*shares, everything[:0]])] = found
        return ordered

    def network(self) -> nn.Module:
        model = self.average if self.average is not None else self.model
        return deepcopy(model).to("cpu", torch.float32).eval()

    def leave(self) -> None:
        """Leave the group while it still stands: torch's part of it must not outlive it."""
        self.shared, self.group = self.model, None
        gc.collect()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimisers": [one.state() for one in self.optimisers],
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for one, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.restore(one, saved)
        self.steps = state["steps"]

    def _mine(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """What this process takes of a global batch; never nothing.

        A share without films still has to meet the others on the way back: one film, whose loss
        counts nothing.
        """
        (mine,) = self._shards(batch)
        return mine if len(mine) else batch[:1]

    def _shards(self, films: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """What this process computes of these films, by what belongs together."""
        return [films if self.group is None else self.group.share(films)]

    def _share(self, learning_rate: float) -> float:
        """The learning rate as a share of the highest, as optimisers take it."""
        highest = self.recipe.optimiser.lr
        return learning_rate / highest if highest else 0.0

    def _each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """The function of each item; apart from each other where a learner has the threads."""
        return map(function, items)

    def _threads(self) -> AbstractContextManager[Any]:
        """A network that the fast kernels compute leaves torch little to share out."""
        if self.device.type == "cpu" and getattr(self.model, "kernels", False):
            return kernels.alone()
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.place.precision != "bfloat16":
            return nullcontext()
        # On a GPU without its cache of cast weights, which would outlive the graph that casts them.
        kept = self.device.type != "cuda"
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=kept)

    def _pixels(self, films: Films, batch: NDArray[np.int64]) -> Tensor:
        """(n, s, s) uint8 on the device."""
        return torch.from_numpy(films.pixels[films.rows[batch]]).to(self.device)

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow the weights."""
        setting = self.recipe.averaging
        if self.average is None or self.steps % setting.every:
            return
        young = self.steps / (self.steps + 10 * setting.every)
        keep = min(setting.decay**setting.every, young)
        now, mean = self.model.state_dict(), self.average.state_dict()
        floats = [name for name, value in mean.items() if value.is_floating_point()]
        torch._foreach_lerp_([mean[n] for n in floats], [now[n] for n in floats], 1 - keep)
        for name in mean.keys() - set(floats):
            mean[name].copy_(now[name])


@dataclass(frozen=True)
class Ahead:
    """What is ready before its step: the films' numbers, the films, their labels."""

    films: NDArray[np.int64]
    x: Tensor
    y: Tensor


def cross_entropy(z: Tensor, y: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Weighted cross-entropy of logits (n,), summed; ``weights`` (2,) of class 0 and 1."""
    return functional.binary_cross_entropy_with_logits(
        z,
        y * (1 - smoothing) + smoothing / 2,
        weight=weights[y.long()].to(z.dtype),
        reduction="sum",
    )


def shrink(pixels: Tensor, size: int) -> Tensor:
    """(n, s, s) uint8 to (n, size, size), antialiased by the triangle filter."""
    if pixels.shape[-1] == size:
        return pixels
    small = functional.interpolate(
        pixels[:, None].float(), size=(size, size), mode="bilinear", antialias=True
    )
    return small.round_().clamp_(0, 255).to(torch.uint8)[:, 0]
