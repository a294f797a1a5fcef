"""One training step as a PyTorch textbook writes it: NCHW, ReLU then pooling, plain Adam.

python textbook_step.py FILMS.npz
"""

from __future__ import annotations

import sys
from itertools import cycle, pairwise

import numpy as np
import torch
from protocol import serve
from torch import nn


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, out in pairwise((1, 32, 32, 32, 64, 64)):
        layers += [nn.Conv2d(inputs, out, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(10816, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))


def main(path: str) -> None:
    given = np.load(path)
    x = torch.from_numpy(given["pixels"])[:, None].float() / 255
    y = torch.from_numpy(given["labels"])[:, None].float()
    batches = cycle(list(zip(x.split(16), y.split(16), strict=True)))
    torch.manual_seed(0)
    model = network()
    optimiser, loss = torch.optim.Adam(model.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()

    def step() -> float:
        films, labels = next(batches)
        optimiser.zero_grad()
        value = loss(model(films), labels)
        value.backward()
        optimiser.step()
        return float(value)

    step()
    serve({"torch": torch.__version__, "threads": torch.get_num_threads()}, step)


if __name__ == "__main__":
    main(*sys.argv[1:])
