"""Findings that follow from counts alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hilum.audit.probes import Probing
from hilum.audit.rules import findings
from hilum.datasets.manifest import Manifest


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ((4, 69), True),  # few of one class, and the share is 95 % instead of 37 %
        ((50, 50), False),
        ((45, 55), True),  # 15 points exactly
        ((2, 14), False),  # too few films to speak of a share
        ((0, 73), False),  # a class is missing: another finding says so
    ],
)
def test_the_share_of_positives_is_told_where_it_differs(test: tuple[int, int], told: bool) -> None:
    of_train = (60, 40)
    label = [kind for counts in (of_train, test) for kind in (0, 1) for _ in range(counts[kind])]
    part = ["train"] * sum(of_train) + ["test"] * sum(test)
    films = tuple(f"{row}.png" for row in range(len(label)))
    manifest = Manifest(Path("x"), films, np.array(label, np.int8), films, tuple(part))
    seen = SimpleNamespace(readable=np.ones(len(films), bool), unreadable=[], refused=[])
    found = {finding.code: finding for finding in findings(manifest, seen, [], Probing())}  # type: ignore[arg-type]
    assert ("unequal-balance" in found) is told
    assert ("one-class" in found) is (not test[0])
