"""A strong simple peer: ResNet-18 (He 2015) from scratch at 128 x 128, in plain PyTorch.

    python resnet18_quality.py FOLDER TESTS.npz RESULT.jsonl BEGAN EPOCHS SEED
    (FOLDER/train/{0,1}/*)

Films are decoded once into memory; AdamW on a one-cycle schedule (Smith 2018); flips, small affine
maps and exposure as augmentation, each film standardised by its own mean and spread; balanced
class weights; ``channels_last``, as PyTorch's tuning guide advises. Nothing is taken from hilum.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from quality import Clock, Results
from torch import Tensor, nn
from torch.nn import functional

SIDE, BATCH, RATE = 128, 64, 2e-3


class Block(nn.Module):
    """Two 3 x 3 convolutions and a way round them."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != out:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.short(x))


def resnet18() -> nn.Sequential:
    """For one grey channel and one logit."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, out, stride), Block(out, out, 1)]
        inputs = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1))


def resized(film: Image.Image) -> np.ndarray:
    return np.asarray(film.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def load(folder: Path) -> tuple[Tensor, Tensor]:
    """(n, 1, s, s) float in 0 to 1, and labels (n,)."""
    paths = sorted(folder.glob("[01]/*"))
    films = []
    for path in paths:
        with Image.open(path) as film:
            film.draft("L", (2 * SIDE, 2 * SIDE))
            films.append(resized(film))
    labels = torch.tensor([float(path.parent.name) for path in paths])
    return torch.from_numpy(np.stack(films))[:, None].float() / 255, labels


def standardised(x: Tensor) -> Tensor:
    mean, spread = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
    return (x - mean) / (spread + 1e-3)


def augmented(x: Tensor) -> Tensor:
    """Flip, rotation up to 10 degrees, scale 0.85 to 1.15 of each axis, shift 6 %, gamma."""
    n = len(x)
    u = torch.rand(6, n) * 2 - 1
    angle = u[0] * math.radians(10)
    wide = (1 + 0.15 * u[1]) * torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    high = 1 + 0.15 * u[2]
    rows = (
        (wide * angle.cos(), -high * angle.sin(), 0.12 * u[3]),
        (wide * angle.sin(), high * angle.cos(), 0.12 * u[4]),
    )
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return x.clamp(1e-3, 1) ** torch.exp(0.4 * u[5])[:, None, None, None]


def main(folder: str, tests: str, result: str, began: str, epochs: str, seed: str) -> None:
    results = Results(result, tests, Clock(float(began)))
    torch.manual_seed(int(seed))
    films, labels = load(Path(folder) / "train")
    positive = float(labels.mean())
    weight = torch.tensor([0.5 / (1 - positive), 0.5 / positive])
    model = resnet18().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    steps = len(films) // BATCH or 1
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps * int(epochs))

    @torch.inference_mode()
    def score(some: np.ndarray) -> np.ndarray:
        model.eval()
        small = torch.from_numpy(np.stack([resized(Image.fromarray(film)) for film in some]))
        x = standardised(small[:, None].float() / 255).to(memory_format=torch.channels_last)
        return torch.cat([model(part)[:, 0].sigmoid() for part in x.split(BATCH)]).numpy()

    for epoch in range(int(epochs)):
        model.train()
        order, total = torch.randperm(len(films)), 0.0
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            x = standardised(augmented(films[batch])).to(memory_format=torch.channels_last)
            y = labels[batch]
            optimiser.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(
                model(x)[:, 0], y, weight=weight[y.long()]
            )
            loss.backward()
            optimiser.step()
            cycle.step()
            total += float(loss.detach())
        results.epoch(epoch + 1, score, loss=total / steps)
        print(epoch + 1, round(results.clock.seconds(), 1), total / steps, file=sys.stderr)
    results.finish(score, 0.5, torch=torch.__version__, epochs=int(epochs), seed=int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
