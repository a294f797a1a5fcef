"""MedMNIST archives (.npz): PneumoniaMNIST and ChestMNIST (Yang et al., Scientific Data 2023).

``train_images``, ``val_images``, ``test_images`` of (n, side, side) uint8 with ``*_labels`` of
(n, 1), or (n, 14) in ChestMNIST; -1 is unknown. No patients are published: each film counts as its
own, and whether the published parts share patients cannot be checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.datasets import archive
from hilum.datasets.classes import UNKNOWN
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
        The archive has no images or its labels do not fit them or are no whole numbers.
    """
    path = request.one
    try:
        members = archive.images(path)
        with np.load(path, allow_pickle=False) as arrays:
            there = arrays.files
            labels = {name: arrays[name] for name in there if name.endswith("labels")}
    except (*archive.BROKEN, UnreadableFilm) as error:
        raise UsageError(
            f"not an archive of films: {path} ({archive.told(error)}). Give a .npz that is whole."
        ) from error
    if not members:
        raise UsageError(
            f"no films in this archive: {path} has {', '.join(there)}, "
            f"not {', '.join(archive.MEMBERS)}."
        )
    findings_there = any(array.shape[1:] == (len(FINDINGS),) for array in labels.values())
    task = request.question(TASKS) if findings_there else None  # else what the classes ask for
    listing = Listing(path.parent, task=task)
    number = others = unknown = 0
    for member in members:
        name = member.name.replace("images", "labels")
        values = labels.get(name, np.zeros((0, 1)))
        for row in _whole(values, len(member), f"{name} of {path}"):
            film = f"{path}#{number}"
            number += 1
            label, findings = _label(row, task == TASKS[1])
            if not label:
                known = bool(findings.get("pneumonia"))
                others += known
                unknown += not known
                continue
            key = f"{path.stem}-{number - 1}"
            listing.add(film, label, key, PARTS[member.name], findings, own=True)
    listing.left_out(others, "neither pneumonia nor no finding")
    listing.left_out(unknown, UNKNOWN)
    if task is not None:
        listing.positive = "pneumonia"
    return listing


def _whole(values: NDArray[Any], films: int, where: str) -> NDArray[Any]:
    """Labels as (films, columns): whole numbers from 0, -1 where unknown."""
    if values.shape[:1] != (films,):
        raise UsageError(
            f"labels do not fit the films: {where} have shape {values.shape} for {films} films. "
            "Give a row of labels for each film."
        )
    values = values.reshape(films, int(np.prod(values.shape[1:])))
    if values.shape[1] not in (1, len(FINDINGS)):
        raise UsageError(
            f"labels of {values.shape[1]} columns: {where}. Read are archives with 1, as "
            f"PneumoniaMNIST, or {len(FINDINGS)}, as ChestMNIST."
        )
    if values.dtype.kind in "biuf":
        right = np.isfinite(values) & (values >= -1) & (values == np.rint(values))
        right &= (values <= 1) | (values.shape[1] == 1)
    else:
        right = np.zeros(values.shape, bool)
    if not right.all():
        row, column = np.argwhere(~right)[0]
        raise UsageError(
            f"not a label: {values[row, column]} for film {row} in {where}. "
            "Labels are whole numbers from 0, findings 0 or 1, and -1 where unknown."
        )
    return values


def _label(row: NDArray[Any], against_all: bool) -> tuple[str, dict[str, str]]:
    """The class, ``""`` where it is unknown or left out, and the findings."""
    texts = ["" if value == -1 else str(int(value)) for value in row]
    if len(row) == 1:
        return texts[0], {}
    findings = dict(zip(FINDINGS, texts, strict=True))
    if findings["pneumonia"] == "1":
        return "pneumonia", findings
    if against_all:
        return "no pneumonia" if findings["pneumonia"] else "", findings
    return ("no finding" if not row.any() else ""), findings
