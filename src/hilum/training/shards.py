"""A learner that computes the shards of a batch apart, each in a thread of its own.

A batch is cut into ``training.shards`` shards. Each is augmented, run forward and backward by
itself; their gradients are added in order and the weights move once. A network with batch
statistics takes them from each shard, so shards belong to the recipe and not to a CPU's threads:
the result is the same to the bit with any number of threads up to the shards. With more of them
torch shares out each shard's operators as well. A GPU takes the batch whole.

Threads that meet once a step, not at every operator, cost little beside a busy process: torch's
own threads wait at some hundred barriers a step for one that is not scheduled
(docs/benchmarks.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hilum import machine
from hilum.machine import Place
from hilum.training.learner import TorchLearner, cross_entropy
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

Item = TypeVar("Item")
Made = TypeVar("Made")


class ShardedLearner(TorchLearner):
    """A CPU's learner for recipes with more than one shard; one process.

    The shards share the parameters; each has running statistics of its own. Their mean is taken
    when an epoch ends, and whenever an average of the weights is about to follow them.
    """

    def __init__(self, recipe: Recipe, place: Place, weights: tuple[float, float]) -> None:
        super().__init__(recipe, place, weights)
        self.count = recipe.training.shards
        self.at_once = -(-recipe.training.batch // self.count)
        self.parameters = list(self.model.parameters())
        self.replicas: list[Any] = [self.model]
        self.replicas += [_replica(self.model) for _ in range(self.count - 1)]
        self.team = Team(place.threads, self.count)
        # Dropout draws from one generator, so there the shards take turns.
        self.in_turn = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.model.modules())

    def begin(self, films: Films, epoch: int, plan: Sequence[NDArray[np.int64]] = ()) -> None:
        super().begin(films, epoch, plan)
        for replica in self.replicas[1:]:
            replica.train()
            for mine, first in zip(replica.buffers(), self.model.buffers(), strict=True):
                mine.copy_(first)

    def step(self, batch: NDArray[np.int64], learning_rate: float) -> float | None:
        shards = self._shards(batch)
        self._at += 1

        def prepare_next(k: int) -> None:
            for coming in self._coming():
                for films in self._shards(coming)[k : k + 1]:
                    self._prepare_ahead(k, films)

        def learn(k: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            x, y = self._prepared(k, shards[k])
            # Python's lock passes between two threads at each operator: every other shard prepares
            # its next films before it learns, the rest after, so that they seldom want it at once.
            # A step takes 4 and 11 % longer without that (two runs).
            if k % 2 == 0:
                prepare_next(k)
            learnt = self._shard(self.replicas[k], x, y, len(batch))
            if k % 2:
                prepare_next(k)
            return learnt

        self.model.zero_grad(set_to_none=True)
        with self._threads():
            run = map if self.in_turn else self.team.map
            losses, logits, gradients = zip(*run(learn, range(len(shards))), strict=True)
            for parameter, total, *others in zip(self.parameters, *gradients, strict=True):
                for other in others:
                    total.add_(other)
                parameter.grad = total
            self.update(learning_rate)
            loss = torch.stack(losses).double().sum()  # as processes add theirs
        together = torch.empty(len(batch), dtype=self.dtype)
        for k, some in enumerate(logits):
            together[k :: self.count] = some
        self._logits.append(together)
        self._losses.append(loss)
        return float(loss)

    def _shards(self, films: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [films[k :: self.count] for k in range(min(self.count, len(films)))]

    def _shard(
        self, replica: Any, x: Tensor, y: Tensor, total: int
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """A shard's share of the loss of ``total`` films, its logits, its gradients."""
        with self._autocast():
            z = replica(x).flatten()
        z = z.to(self.dtype)
        smoothing = self.recipe.training.label_smoothing
        loss = cross_entropy(z, y, self.weights, smoothing) / total
        return loss.detach(), z.detach(), torch.autograd.grad(loss, self.parameters)

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self._agree()
        return super().finish()

    def _follow(self) -> None:
        if self.average is not None and self.steps % self.recipe.averaging.every == 0:
            self._agree()
        super()._follow()

    @torch.no_grad()
    def _agree(self) -> None:
        """Make running statistics the mean of the shards'."""
        for values in zip(*(replica.buffers() for replica in self.replicas), strict=True):
            if values[0].is_floating_point():
                mean = torch.stack(values).mean(0)
                for value in values:
                    value.copy_(mean)

    def _each(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterable[Made]:
        with self._threads():
            return list(self.team.map(function, items))

    def _threads(self) -> AbstractContextManager[Any]:
        """What is not a shard's is small: one thread."""
        return machine.torch_threads(1)


def _replica(network: nn.Module) -> nn.Module:
    """A copy with the same parameters and buffers of its own."""
    return deepcopy(network, {id(p): p for p in network.parameters()})


def members(threads: int, most: int) -> int:
    """So many of a team work at once: fewer than ``most`` where else over a quarter of the threads
    would be idle (three threads for two)."""
    return max(k for k in range(1, max(1, min(threads, most)) + 1) if threads % k <= threads / 4)


class Team:
    """Threads that work each on its own; who asks is one of them, the others wait for work.

    Who asks is mostly the main thread, whose memory lies in huge pages (``hilum.heap``): a step of
    the paper's network takes 2 % less than with other threads alone.

    Parameters
    ----------
    threads : all in all, shared out among the members
    most : of members
    """

    def __init__(self, threads: int, most: int) -> None:
        self.size = members(threads, most)
        self.each = max(1, threads // self.size)
        self._others = ThreadPoolExecutor(
            max(1, self.size - 1), initializer=machine.set_torch_threads, initargs=(self.each,)
        )

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """The results in the order of ``items``; behind an error none is begun any more, and it is
        raised when those under way have ended."""
        coming = enumerate(list(items))
        made: dict[int, Made] = {}

        def work() -> None:
            try:
                for number, item in coming:  # who is free takes the next one
                    made[number] = function(item)
            except BaseException:
                deque(coming, maxlen=0)  # nobody begins another
                raise

        others = [self._others.submit(work) for _ in range(self.size - 1)]
        try:
            with machine.torch_threads(self.each):
                work()
        finally:
            wait(others)
        for other in others:
            other.result()
        return iter([made[number] for number in range(len(made))])
