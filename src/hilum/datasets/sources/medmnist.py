"""MedMNIST archives (.npz): PneumoniaMNIST and ChestMNIST (Yang et al., Scientific Data 2023).

``train_images``, ``val_images``, ``test_images`` of (n, side, side) uint8 with ``*_labels`` of
(n, 1), or (n, 14) in ChestMNIST. No patients are published: each film counts as its own, and
whether the published parts share patients cannot be checked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hilum.datasets import archive
from hilum.datasets.sources.listing import Listing, Request
from hilum.errors import UnreadableFilm, UsageError

PARTS = {
    "train_images": "train",
    "val_images": "validation",
    "test_images": "test",
    "images": "",
}
# The order of ChestMNIST's label columns, as MedMNIST publishes it.
FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural",
    "hernia",
)
TASKS = ("pneumonia", "pneumonia-vs-all")


def read(request: Request) -> Listing:
    """List the films of an archive without reading their pixels; paths are ``archive.npz#17``.

    Raises
    ------
    UsageError
        The archive has no images or its labels do not fit them.
    """
    path = request.one
    try:
        members = archive.images(path)
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, UnreadableFilm) as error:
        raise UsageError(f"not an archive of films: {path} ({error}). Give a .npz.") from error
    if not members:
        raise UsageError(
            f"no films in this archive: {path} has {', '.join(labels.files)}, "
            f"not {', '.join(archive.MEMBERS)}."
        )
    task = request.question(TASKS)
    listing = Listing(path.parent, task=task)
    number = others = 0
    for member in members:
        name = member.name.replace("images", "labels")
        values = labels[name] if name in labels.files else np.zeros((0, 1))
        if len(values) != len(member):
            raise UsageError(
                f"labels do not fit the films: {path} has {len(values)} {name} for {len(member)} "
                f"{member.name}."
            )
        values = values.reshape(len(values), -1)
        for row in values:
            film = f"{path}#{number}"
            number += 1
            label, findings = _label(row, task.endswith("-vs-all"), path)
            if not label:
                others += 1
                continue
            key = f"{path.stem}-{number - 1}"
            listing.add(film, label, key, PARTS[member.name], findings, own=True)
    listing.left_out(others, "neither pneumonia nor no finding")
    if "pneumonia" in listing.extra:
        listing.positive = "pneumonia"
    return listing


def _label(row: np.ndarray, against_all: bool, path: Path) -> tuple[str, dict[str, str]]:
    if len(row) == 1:
        return str(int(row[0])), {}
    if len(row) != len(FINDINGS):
        raise UsageError(
            f"labels of {len(row)} columns: {path}. Read are archives with 1, as PneumoniaMNIST, "
            f"or {len(FINDINGS)}, as ChestMNIST."
        )
    findings = {name: str(int(value)) for name, value in zip(FINDINGS, row, strict=True)}
    if findings["pneumonia"] == "1":
        return "pneumonia", findings
    if against_all:
        return "no pneumonia", findings
    return ("no finding" if not row.any() else ""), findings
