"""What is learnt, the same for every way: films, network, batches, loss, and the track of a run.

Films are made up (``hilum.datasets.phantom``, plain opacities), standardised each by its own mean
and spread. The network is the paper's with its own filters and units, at fewer pixels. Batch k of
a seed holds the same films whoever computes it, and the start is the same. Plain SGD, constant
rate, no momentum: so what differs between two ways is the way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from wire import Wire, spoken

from hilum.datasets import phantom
from hilum.networks.paper2021 import Paper2021

STRENGTH = 1.0  # of the opacities: plain ones, learnt in a few hundred updates


@dataclass(frozen=True)
class Task:
    """What one run learns.

    Attributes
    ----------
    folder : holds ``films.npy`` (n, 1, size, size) float32 and ``labels.npy`` (n,) float32
    held_out : the last so many films are never learnt from
    batch : films of one update, over all processes together
    every : updates between two copies of the weights
    """

    folder: str
    size: int
    held_out: int
    seed: int = 0
    batch: int = 16
    rate: float = 0.05
    updates: int = 300
    every: int = 10

    def films(self) -> tuple[Tensor, Tensor]:
        return _load(self.folder)

    def batch_of(self, update: int) -> NDArray[np.int64]:
        """Numbers of the films of an update; every epoch has an order of its own."""
        count = len(self.films()[1]) - self.held_out
        epoch, place = divmod(update, count // self.batch)
        order = np.random.default_rng([self.seed, epoch]).permutation(count)
        return order[place * self.batch : (place + 1) * self.batch]

    def network(self) -> Paper2021:
        """The paper's network at this seed's start."""
        network = Paper2021(self.size)
        network.initialise(torch.Generator().manual_seed(self.seed))
        return network

    def loss(self, logits: Tensor, numbers: NDArray[np.int64], divisor: float) -> Tensor:
        """Cross-entropy of logits (n, 1), summed and divided by ``divisor``.

        With the whole batch as divisor, the gradients of its shares add up to that of the batch.
        """
        labels = self.films()[1][numbers]
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels, reduction="sum") / divisor

    def held_out_loss(self, weights: NDArray[np.float32]) -> float:
        """Mean loss of a network on the films that nobody learns from."""
        network = self.network()
        Flat(network.parameters()).weights.copy_(torch.from_numpy(weights))
        films, labels = (part[-self.held_out :] for part in self.films())
        with torch.no_grad():
            parts = [network(some)[:, 0] for some in films.split(32)]
        return float(F.binary_cross_entropy_with_logits(torch.cat(parts), labels))


@cache
def _load(folder: str) -> tuple[Tensor, Tensor]:
    films = np.load(Path(folder) / "films.npy", mmap_mode="c")
    return torch.from_numpy(films), torch.from_numpy(np.load(Path(folder) / "labels.npy"))


def make_films(folder: Path, count: int, size: int) -> str:
    """Draw the films, half of them with pneumonia, into a new folder; returns it as text."""
    folder.mkdir(parents=True)
    with Pool() as pool:
        films = pool.starmap(_draw, [(number, size) for number in range(count)])
    np.save(folder / "films.npy", np.stack(films)[:, None])
    np.save(folder / "labels.npy", (np.arange(count) % 2).astype(np.float32))
    return str(folder)


def _draw(number: int, size: int) -> NDArray[np.float32]:
    seed = np.random.default_rng([2021, number])
    film = phantom.draw(seed, positive=number % 2 == 1, size=(size, size), strength=STRENGTH)
    pixels = film.astype(np.float32)
    standard: NDArray[np.float32] = (pixels - pixels.mean()) / pixels.std()
    return standard


class Flat:
    """Parameters whose values are pieces of one vector, and whose gradients are of another."""

    def __init__(self, parameters: Any, weights: Tensor | None = None) -> None:
        parts: Sequence[nn.Parameter] = list(parameters)
        start = torch.cat([p.detach().reshape(-1) for p in parts])
        self.weights = start if weights is None else weights
        self.gradient = torch.zeros_like(start)
        at = 0
        for p in parts:
            piece = slice(at, at + p.numel())
            p.data = self.weights[piece].view(p.shape)
            p.grad = self.gradient[piece].view(p.shape)
            at += p.numel()


class Model:
    """The network of one process: gradients of some films, and steps.

    ``weights`` is given where several processes share one memory.
    """

    def __init__(self, task: Task, weights: Tensor | None = None) -> None:
        self.task = task
        self.network: nn.Module = task.network()
        self.flat = Flat(self.network.parameters(), weights)

    def learn(self, numbers: NDArray[np.int64], divisor: float) -> None:
        """Put the gradient of the loss of these films into ``flat.gradient``."""
        self.flat.gradient.zero_()
        logits = self.network(self.task.films()[0][numbers])
        self.task.loss(logits, numbers, divisor).backward()

    def step(self) -> None:
        self.flat.weights.sub_(self.flat.gradient, alpha=self.task.rate)


class Track:
    """When updates were done, and copies of the weights on the way; losses are taken from these
    after the run, so that judging costs the run nothing but the copies."""

    def __init__(self, task: Task, weights: Tensor, wire: Wire) -> None:
        self.task, self.weights, self.wire = task, weights, wire
        self.sent, self.spoken = wire.sent, spoken()
        self.copies: list[tuple[int, float, NDArray[np.float32]]] = []
        self.begun, self.worked = time.perf_counter(), time.process_time()
        self.ended = self.begun
        self.at: list[float] = []

    def note(self, done: int) -> None:
        """``done`` updates are in the weights now."""
        self.ended = time.perf_counter()
        self.at.append(self.ended - self.begun)
        if done >= self.task.every * (len(self.copies) + 1) or done == self.task.updates:
            self.copies.append((done, self.at[-1], self.weights.numpy().copy()))

    def result(self, **more: Any) -> dict[str, Any]:
        """Everything as plain values; ``sent`` and ``spoken`` in bytes, ``cpu`` in
        seconds of this process's processor time, over the whole run."""
        now = spoken()
        return {
            "seconds": self.ended - self.begun,
            "at": self.at,
            "copies": self.copies,
            "cpu": time.process_time() - self.worked,
            "sent": self.wire.sent - self.sent,
            "spoken": None if now is None or self.spoken is None else now - self.spoken,
            **more,
        }
