"""Training steps as a PyTorch textbook writes them on a GPU: a Dataset, a DataLoader, a loop.

python textbook_gpu.py FOLDER WORKERS PRECISION

FOLDER holds pixels.npy (n, 500, 500) uint8 and labels.npy. A film is augmented when the loader
fetches it, as torchvision's transforms do: mirrored at random and zoomed by 0.8 to 1.2 each axis.
Nothing is left slow on purpose: workers stay alive and batches are pinned; with PRECISION bfloat16
the network runs under autocast. One answer of the protocol is ``CHUNK`` steps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from protocol import serve
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

CHUNK = 32


class Films(Dataset):
    def __init__(self, folder: Path) -> None:
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, float]:
        film = torch.from_numpy(self.pixels[i].copy())[None].float() / 255
        wide, high = (0.8 + 0.4 * torch.rand(2)).tolist()
        theta = torch.tensor([[[wide if torch.rand(1) < 0.5 else -wide, 0, 0], [0, high, 0]]])
        grid = nn.functional.affine_grid(theta, [1, *film.shape], align_corners=False)
        film = nn.functional.grid_sample(
            film[None], grid, padding_mode="border", align_corners=False
        )
        return film[0], float(self.labels[i])


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, out in pairwise((1, 32, 32, 32, 64, 64)):
        layers += [nn.Conv2d(inputs, out, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(10816, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))


def main(folder: str, workers: str, precision: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = DataLoader(
        Films(Path(folder)),
        batch_size=16,
        shuffle=True,
        num_workers=int(workers),
        persistent_workers=int(workers) > 0,
        pin_memory=device.type == "cuda",
    )
    torch.manual_seed(0)
    model = network().to(device)
    optimiser, loss = torch.optim.Adam(model.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()

    def batches() -> Iterator[list[Tensor]]:
        while True:
            yield from loader

    coming, total = batches(), 0.0

    def steps() -> None:
        nonlocal total
        for _ in range(CHUNK):
            films, labels = next(coming)
            films, labels = films.to(device), labels.float().to(device)[:, None]
            optimiser.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                value = loss(model(films), labels)
            value.backward()
            optimiser.step()
            total += value.item()

    steps()
    serve({"torch": torch.__version__, "workers": int(workers), "steps": CHUNK}, steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
