"""Fewer films of a data set: whole patients, every part and class thinned alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hilum.datasets.manifest import Manifest
from hilum.datasets.split import note_leaks


def sample(manifest: Manifest, share: float, *, parts: tuple[str, ...] | None = None) -> Manifest:
    """A share of the patients of each part and class, all their films.

    A smaller share lies within a larger one.

    Parameters
    ----------
    share : of the films, in (0, 1]; at least one patient of each part and class stays
    parts : the parts to thin; all where None
    """
    if share >= 1:
        return manifest
    label, part = np.asarray(manifest.label), np.array(manifest.part, object)
    of_patient: dict[tuple[str, int], dict[str, list[int]]] = {}
    keep = np.zeros(len(manifest), bool)
    first: dict[
        str, tuple[str, int]
    ] = {}  # a patient of several classes counts to its first film's
    for row, patient in enumerate(manifest.patient):
        if parts is not None and part[row] not in parts:
            keep[row] = True
        else:
            key = first.setdefault(patient, (str(part[row]), int(label[row])))
            of_patient.setdefault(key, {}).setdefault(patient, []).append(row)
    for number, key in enumerate(sorted(of_patient)):
        group = of_patient[key]
        wanted = share * sum(len(rows) for rows in group.values())
        order = np.random.default_rng((0, number)).permutation(sorted(group))
        taken = 0
        for patient in order.tolist():
            if taken and taken + len(group[patient]) / 2 > wanted:
                break
            keep[group[patient]] = True
            taken += len(group[patient])
    made = manifest.select(keep)
    notes = {"films": len(made), "of": len(manifest), "parts": list(parts or ()), "seed": 0}
    made = replace(made, notes={**manifest.notes, "sampled": notes})
    note_leaks(made)
    return made


def of_films(manifest: Manifest, films: int | None) -> Manifest:
    """About so many films in all; the manifest as it is where None or more than there are."""
    return manifest if films is None else sample(manifest, films / len(manifest))
