"""One training step that a CUDA graph can hold: fixed shapes, fixed places, no word from the host.

What differs from step to step comes in one row of numbers, what comes out goes into a ledger on
the device, which is read once an epoch. The same function runs as it is, on a CPU too.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilum.training.learner import cross_entropy
from hilum.training.resident import OnDevice

if TYPE_CHECKING:
    from hilum.training.gpu import CudaLearner

#: Steps that the host may be ahead of a GPU: enough that the GPU never waits for the next one, few
#: enough that a progress bar tells the truth.
STEPS_AHEAD = 64
#: Times that a step runs before it is captured: libraries choose and allocate, kernels compile.
WARM = 3


class Ledger:
    """Losses (steps,) and logits (steps, batch) of an epoch, float32 on the device."""

    def __init__(self, steps: int, batch: int, device: torch.device) -> None:
        self.losses = torch.zeros(steps, device=device)
        self.logits = torch.zeros(steps, batch, device=device)
        self.films: list[int] = []  # of each step so far

    def read(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses (steps,) and logits (n,) so far; the one wait of an epoch."""
        steps, batch = len(self.films), self.logits.shape[1]
        both = torch.cat([self.losses[:steps], self.logits[:steps].flatten()]).double().cpu()
        losses, rows = both[:steps].numpy(), both[steps:].view(steps, batch).numpy()
        logits = [row[:count] for row, count in zip(rows, self.films, strict=True)]
        return losses, np.concatenate(logits) if logits else np.zeros(0)


class Numbers:
    """A step's numbers on their way to the device, without a wait.

    A row is int64: the step's number in the epoch, the share of the highest learning rate as the
    bits of a float32, and the indices of the films.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self.host = torch.zeros(STEPS_AHEAD, 2 + batch, dtype=torch.int64, pin_memory=cuda)
        self._numpy = self.host.numpy()
        self._half: Any = [torch.cuda.Event() for _ in range(2)] if cuda else None
        self._turn = 0

    def send(self, target: Tensor, number: int, share: float, batch: NDArray[np.int64]) -> None:
        """Queue the copy of one row to ``target`` (2 + n,)."""
        turn, half = self._turn % STEPS_AHEAD, STEPS_AHEAD // 2
        if self._half is not None and self._turn >= STEPS_AHEAD and turn % half == 0:
            self._half[turn // half].synchronize()  # these rows were sent long ago
        row = self._numpy[turn]
        row[0], row[1] = number, np.float32(share).view(np.uint32)
        row[2 : 2 + len(batch)] = batch
        target.copy_(self.host[turn, : len(target)], non_blocking=True)
        if self._half is not None and turn % half == half - 1:
            self._half[turn // half].record()
        self._turn += 1


class Step:
    """Learn from ``count`` films of a set.

    Parameters
    ----------
    learner : whose weights, augmentation, loss and optimisers
    films : the set on the device
    count : films of a step; each number is a step of its own
    ledger : where loss and logits go

    Attributes
    ----------
    row : (2 + count,) int64, the numbers of the step to come (see ``Numbers``)
    staged : (count, s, s) uint8, its films where they are streamed
    """

    def __init__(self, learner: CudaLearner, films: OnDevice, count: int, ledger: Ledger) -> None:
        # The learner holds its steps; a cycle would hold the GPU's memory until it is collected.
        self.learner: CudaLearner = weakref.proxy(learner)
        self.films, self.count, self.ledger = films, count, ledger
        device, side = learner.device, films.films.pixels.shape[-1]
        self.row = torch.zeros(2 + count, dtype=torch.int64, device=device)
        self._number, self._index = self.row[:1], self.row[2:]
        self._share = self.row[1:2].view(torch.float32)[0]  # the low half
        self.staged = (
            None
            if films.resident
            else torch.zeros(count, side, side, dtype=torch.uint8, device=device)
        )

    def __call__(self) -> None:
        learner, films, ledger = self.learner, self.films, self.ledger
        pixels = self.staged if films.pixels is None else films.pixels[self._index]
        assert pixels is not None and learner.drawn is not None
        x = learner.view(pixels, learner.drawn.of(self._index))
        z, y = learner.forward(x), films.labels[self._index]
        smoothing = learner.recipe.training.label_smoothing
        loss = cross_entropy(z, y, learner.weights, smoothing) / self.count
        learner.model.zero_grad(set_to_none=True)
        loss.backward()
        for one in learner.optimisers:
            one.step(self._share)
        with torch.no_grad():
            ledger.losses.index_copy_(0, self._number, loss.detach()[None])
            ledger.logits[:, : self.count].index_copy_(0, self._number, z.detach()[None])


class Captured:
    """A step as one CUDA graph: every later call is one launch.

    The step runs a few times before, and what that changed is put back.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        device = step.learner.device
        stream = torch.cuda.Stream(device)
        with _put_back(_memory(step.learner), device):
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM):
                    step()
            torch.cuda.current_stream(device).wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=stream):
                step()

    def __call__(self) -> None:
        self.graph.replay()


def rehearse(step: Step) -> None:
    """Run a step, so that its kernels are there, and put back what that changed."""
    with _put_back(_memory(step.learner), step.learner.device):
        step()


def _memory(learner: CudaLearner) -> Iterator[Tensor]:
    """Every tensor that a step changes."""
    yield from learner.model.parameters()
    yield from learner.model.buffers()
    for one in learner.optimisers:
        for tensors in one.state().values():
            yield from tensors


@contextmanager
def _put_back(tensors: Iterable[Tensor], device: torch.device) -> Iterator[None]:
    """Afterwards these tensors, and the device's random numbers, are as they were."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    cuda = device.type == "cuda"
    drawn = torch.cuda.get_rng_state(device) if cuda else torch.get_rng_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)
        if cuda:
            torch.cuda.set_rng_state(drawn, device)
        else:
            torch.set_rng_state(drawn)
