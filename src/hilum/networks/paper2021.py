"""The paper's network (Figure 4) in torch, 1,467,137 parameters at 500 × 500.

    films 1 × 500 × 500
    → 5 × [convolution 3×3 without a frame, ReLU, max-pooling 2×2]   32, 32, 32, 64, 64 filters
    → flatten 64 × 13 × 13 = 10,816  → dense 128, ReLU → dense 64, ReLU → dense 1 → logit

The sigmoid is left to whoever needs a probability: losses from logits are stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hilum.networks.arithmetic import Convolution, Dense, fans, paper_network, parameter_shapes

# Device → its fast kernels.
KERNELS = {"cpu": "hilum.networks.kernels", "cuda": "hilum.networks.kernels.gpu"}


class Paper2021(nn.Module):
    """Films (n, 1, size, size), floats in [0, 1] → logits (n, 1).

    Parameters
    ----------
    size : side of the films in pixels, 94 or more (``UsageError`` otherwise)
    filters, units : other numbers than the paper's make a smaller network, for tests
    kernels : compute convolution, ReLU and pooling by :mod:`hilum.networks.kernels` where that
        can be used (CPU, float32 or bfloat16, not while a graph is exported), on a GPU by
        :mod:`hilum.networks.kernels.gpu`

    Attributes
    ----------
    input_scaling : ``unit``: pixels are divided by 255
    cam : False: behind dense layers there is no exact class activation map
    libraries : the compiled ones that its layers are in (:mod:`hilum.native`)
    held : bytes that a step on a CPU holds at its peak for each value that a layer gives out, as
        measured; the kernels never write most of these values

    Notes
    -----
    The map is flattened as torch lays it out: channel by channel, row by row. Keras lays it out
    row by row with channels last, so the columns of ``dense1.weight`` come in another order
    there; with a random start the two are the same network.
    """

    input_scaling = "unit"
    cam = False
    libraries = ("blocks",)
    held: ClassVar = {
        "kernels": {"float32": 2.1, "bfloat16": 1.6},
        "torch": {"float32": 13.0, "bfloat16": 8.0},
    }

    def __init__(
        self,
        size: int = 500,
        *,
        filters: Sequence[int] = (32, 32, 32, 64, 64),
        units: Sequence[int] = (128, 64),
        kernels: bool = True,
    ) -> None:
        super().__init__()
        self.size = size
        self.kernels = kernels
        self.description = paper_network(filters, units)
        shapes = parameter_shapes(self.description, size)
        for layer in self.description:
            if isinstance(layer, Convolution):
                count, channels = shapes[f"{layer.name}.weight"][:2]
                self.add_module(layer.name, nn.Conv2d(channels, count, layer.size))
            elif isinstance(layer, Dense):
                count, inputs = shapes[f"{layer.name}.weight"]
                self.add_module(layer.name, nn.Linear(inputs, count))
        self.initialise(torch.Generator().manual_seed(0))

    def initialise(self, generator: torch.Generator) -> None:
        """Keras's start: Glorot uniform weights, ±√(6 / (inputs + outputs)) with both counted
        over the receptive field; zero biases. Drawn on the CPU, so every place starts alike."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                else:
                    limit = (6.0 / sum(fans(tuple(parameter.shape)))) ** 0.5
                    drawn = torch.empty(parameter.shape, dtype=torch.float32)
                    parameter.copy_(drawn.uniform_(-limit, limit, generator=generator))

    def forward(self, films: Tensor) -> Tensor:
        """Logits (n, 1)."""
        dense = [layer for layer in self.children() if isinstance(layer, nn.Linear)]
        a = torch.flatten(self.features(films), 1)
        for layer in dense[:-1]:
            a = F.relu(layer(a))
        logits: Tensor = dense[-1](a)
        return logits

    def features(self, films: Tensor) -> Tensor:
        """The last feature map, (n, 64, 13, 13) at 500 × 500."""
        blocks = [layer for layer in self.children() if isinstance(layer, nn.Conv2d)]
        kernels = self._fast_kernels(films)
        if kernels is None:
            a = films
            for layer in blocks:
                # Maximum and ReLU commute, and pooling first leaves a quarter for ReLU to do.
                a = F.relu(F.max_pool2d(layer(a), 2))
            return a
        found: Tensor = kernels.blocks(films, [(layer.weight, layer.bias) for layer in blocks])
        return found

    def _fast_kernels(self, films: Tensor) -> ModuleType | None:
        """The module of fast kernels where it can compute these films."""
        graph = torch.jit.is_tracing() or torch.compiler.is_compiling()
        known = films.dtype in (torch.float32, torch.bfloat16)
        name = KERNELS.get(films.device.type)
        if not self.kernels or graph or not known or name is None:
            return None
        return import_module(name)
