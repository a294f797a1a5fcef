from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.datasets import phantom
from hilum.datasets.index import index
from hilum.datasets.provenance import KERMANY
from hilum.errors import UsageError


def test_kermanys_films_are_known_by_their_names(write, root: Path) -> None:
    write(*(f"NORMAL/IM-{i:04d}-0001.png" for i in range(30)))
    write(*(f"PNEUMONIA/person{i}_virus_{i}.png" for i in range(30)))
    notes = index(root, draw=False).notes
    assert notes["licence"] == "CC BY 4.0"
    assert notes["intended_use"]["ages"] == KERMANY["intended_use"]["ages"]


def test_other_names_claim_nothing(write, root: Path) -> None:
    write(*(f"{name}/{i}.png" for name in ("NORMAL", "PNEUMONIA") for i in range(12)))
    assert "source" not in index(root, draw=False).notes


def test_a_folder_speaks_for_itself(write, root: Path) -> None:
    write(*(f"NORMAL/IM-{i:04d}-0001.png" for i in range(9)))
    write(*(f"PNEUMONIA/person{i}_virus_{i}.png" for i in range(9)))
    (root / "about.json").write_text(json.dumps({"source": "ours", "licence": "private"}))
    notes = index(root, draw=False).notes
    assert (notes["source"], notes["licence"]) == ("ours", "private")
    assert "population" not in notes and "passed_over" not in notes
    (root / "about.json").write_text('{"sorce": "ours"}')
    with pytest.raises(UsageError, match="'source'"):
        index(root, draw=False)
    (root / "about.json").write_text("{")
    with pytest.raises(UsageError, match=r"about\.json"):
        index(root, draw=False)


def test_made_up_films_say_so(tmp_path: Path) -> None:
    made = phantom.make(tmp_path / "made", patients=12, size=(48, 56))
    assert "made up" in index(made, draw=False).notes["population"]
