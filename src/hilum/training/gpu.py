"""The learner of a GPU: films, augmentation, weights, losses all there, no wait for it in an epoch.

- The set lies on the GPU as uint8 where it fits, else it is streamed (``resident``).
- What an epoch's augmentation does to each film is drawn for all films at once.
- A whole step is one CUDA graph (``step``): one launch, fixed shapes. The last, smaller batch of
  an epoch, and every batch in a group of GPUs, is launched operator by operator.
- Convolutions run in TF32 (torch's default) or, where the precision says so, in bfloat16; matrix
  products of dense layers and of the augmentation stay in float32.
- cuDNN is told to be deterministic and does not measure its algorithms, hilum's own kernels add in
  one order, so the same seed on the same GPU with the same versions gives the same weights.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilum.machine import Place
from hilum.training import memory
from hilum.training.augment import noise_row
from hilum.training.faults import out_of_memory
from hilum.training.graph import scale
from hilum.training.learner import TorchLearner, shrink
from hilum.training.loop import batches, steps_in_epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.resident import OnDevice, size_of
from hilum.training.step import Captured, Ledger, Numbers, Step, rehearse

if TYPE_CHECKING:
    from hilum.training.group import Group

#: Of the memory that a step leaves free on the GPU, what films may take. The rest is for gaps,
#: for libraries, for what is drawn for each film (148 bytes at most), and for whoever else uses
#: the GPU.
SHARE = 0.8
#: Films that are judged at once, at most, and the share of the whole memory that they may take:
#: of the whole and not of what is free, so that a run that was resumed judges in the same batches.
JUDGED, JUDGED_SHARE = 512, 1 / 8


class CudaLearner(TorchLearner):
    """Learns on a GPU; for its parameters see :class:`hilum.training.learner.TorchLearner`.

    Attributes
    ----------
    graphs : whether whole steps are captured; on a CPU, where tests run it, they are not
    drawn : what the epoch does to each film of the set, where a captured step reads it
    eager : whether steps go operator by operator through :class:`TorchLearner`: in a group, whose
        exchange of gradients hooks into the way back, and where a profiler wants their names
    """

    def __init__(
        self,
        recipe: Recipe,
        place: Place,
        weights: tuple[float, float],
        group: Group | None = None,
    ) -> None:
        # Read when cuBLAS first works: with workspaces of its own every stream adds in one order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        super().__init__(recipe, place, weights, group)
        self.graphs = self.device.type == "cuda"
        self.eager = group is not None
        self.room: int | None = None  # bytes that further films may take on the device
        self._sets: dict[int, OnDevice] = {}
        self._numbers = Numbers(recipe.training.batch, self.device)
        self._made_for: tuple[int, int] | None = None

    def begin(self, films: Films, epoch: int, plan: Sequence[NDArray[np.int64]] = ()) -> None:
        self._begin(films, epoch)
        mine = [self._mine(batch) for batch in plan]
        self.set = self.on_device(films, max(map(len, mine), default=self.recipe.training.batch))
        self.set.begin(mine)
        if self._made_for != (id(films), self.size):  # other shapes: other buffers, another graph
            self._made_for = id(films), self.size
            recipe = self.recipe
            batch, steps = recipe.training.batch, steps_in_epoch(len(films), recipe)
            self._ledger = Ledger(steps, batch, self.device)
            self._steps: dict[int, Step] = {}
            self._captured: Callable[[], None] | None = None
            if recipe.augmentation.noise:  # held for the graph that reads it
                at = self.weights.device  # with its number, as the step's films have it
                self._noise = noise_row(self.size**2, recipe.training.seed, at)
            self.drawn = None
        self._draw()
        self._ledger.films.clear()

    def _draw(self) -> None:
        """Draw what this epoch does to each film of the set, where a captured step reads it."""
        fresh = self.draws(self.set.identity)
        if self.drawn is None:
            self.drawn = fresh
            return
        for kept, one in zip(self.drawn, fresh, strict=True):
            if kept is not None and one is not None:  # both are, or neither
                kept.copy_(one)

    def step(self, batch: NDArray[np.int64], learning_rate: float) -> float | None:
        if self.eager:
            return super().step(batch, learning_rate)
        step = self._step_of(len(batch))
        if step.staged is not None:
            step.staged.copy_(self.set.fetch(batch), non_blocking=True)
        share = self._share(learning_rate)
        self._numbers.send(step.row, len(self._ledger.films), share, batch)
        if self.graphs and len(batch) == self.recipe.training.batch:
            if self._captured is None:
                self._captured = self._capture(step)
            self._captured()
        else:
            step()
        self._ledger.films.append(len(batch))
        self.steps += 1
        self._follow()
        return None

    def warm_up(self, films: Films, validation: Films, epoch: int) -> None:
        """Films carried over, kernels compiled, a step captured; in a group forward alone."""
        self.begin(films, epoch)
        settings = self.recipe.training
        plan = batches(np.arange(len(films)), settings.batch, settings.last_batch)
        for count in () if self.eager else sorted({len(batch) for batch in plan}):
            step = self._step_of(count)
            if self.graphs and count == settings.batch:
                self._captured = self._capture(step)
            else:
                rehearse(step)
        if len(validation):
            self.logits(validation, self.size)

    def _step_of(self, films: int) -> Step:
        """The step that learns from so many films."""
        step = self._steps.get(films)
        if step is None:
            step = self._steps[films] = Step(self, self.set, films, self._ledger)
        return step

    def _capture(self, step: Step) -> Callable[[], None]:
        """The step as a graph; as it is, with a warning, where this torch cannot capture it."""
        try:
            return Captured(step)
        except RuntimeError as error:
            if out_of_memory(error) or not _capturing(error):
                raise
            warnings.warn(
                f"a step cannot be captured here ({str(error).splitlines()[0]}): it is launched "
                "operator by operator, more slowly.",
                RuntimeWarning,
                stacklevel=2,
            )
            self.graphs = False
            return step

    def prepare(self, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(batch)
        if self.device.type == "cuda":
            index = index.pin_memory().to(self.device, non_blocking=True)
        pixels = self.set.fetch(batch) if self.set.pixels is None else self.set.pixels[index]
        assert self.drawn is not None
        x = self.view(pixels, self.drawn.of(index))
        return x, self.set.labels[index]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n,) float32 of films that are ready."""
        with self._autocast():
            z = self.model(x).flatten()
        return z.to(self.dtype)

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = super().finish() if self.eager else self._ledger.read()
        self.set.begin(())
        return found

    @torch.inference_mode()
    def logits(self, films: Films, size: int) -> NDArray[np.float64]:
        model = self.average if self.average is not None else self.model.eval()
        everything = np.arange(len(films))
        mine = everything if self.group is None else self.group.share(everything)
        many = self._at_once
        held = self.on_device(films, many)
        plan = [mine[begin : begin + many] for begin in range(0, len(mine), many)]
        held.begin(plan)
        found = torch.empty(len(mine), dtype=torch.float64, device=self.device)
        for number, batch in enumerate(plan):
            # A group's share is every k-th film, so a slice says it without an upload.
            every = slice(int(batch[0]), int(batch[-1]) + 1, _stride(batch))
            pixels = held.fetch(batch) if held.pixels is None else held.pixels[every]
            x = scale(shrink(pixels, size)[:, None].float(), self.model.input_scaling)
            with self._autocast():
                y = model(x.to(self.dtype, memory_format=torch.channels_last))
            found[number * many : number * many + len(batch)] = y.flatten()
        held.begin(())
        scores = found.cpu().numpy()  # the one wait
        return scores if self.group is None else self.group.gathered(scores, mine, len(films))

    def on_device(self, films: Films, batch: int) -> OnDevice:
        """The set on the device: in its memory where it fits beside a step, else streamed.

        Parameters
        ----------
        batch : films of the largest batch that will be asked of it
        """
        held = self._sets.get(id(films))
        with torch.inference_mode(False):
            if held is None:
                resident = size_of(films) <= self._room()
                held = OnDevice(films, batch, self.device, resident=resident)
                self._sets[id(films)] = held
                self.room = self._room() - held.bytes
            else:
                held.widen(batch)
        return held

    def _room(self) -> int:
        """Bytes that further films may take."""
        if self.room is None:
            if self.device.type != "cuda":
                return sys.maxsize
            free, _ = memory.of_gpu(self.device)
            self.room = int(SHARE * max(0, free - memory.memory_needed(self.recipe, self.place)))
        return self.room

    @cached_property
    def _at_once(self) -> int:
        """Films that are judged in one batch."""
        recipe, many = self.recipe, 0
        if self.device.type == "cuda":
            film = (
                2 * 4 * memory.outputs_a_film(recipe, recipe.preprocessing.size)
            )  # float32, and ReLU's
            many = int(memory.of_gpu(self.device)[1] * JUDGED_SHARE / film)
        return max(recipe.training.batch, min(JUDGED, many))


def _capturing(error: BaseException) -> bool:
    """Whether an error is of capturing, and not the GPU's."""
    return "captur" in str(error)


def _stride(batch: NDArray[np.int64]) -> int:
    return int(batch[1] - batch[0]) if len(batch) > 1 else 1
