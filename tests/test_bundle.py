from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.bundle import Bundle
from hilum.errors import BundleRefused, FolderTaken, UsageError


def test_a_bundle_comes_back_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.write(tmp_path / "m.hilum")
    back = Bundle.read(folder)
    assert back == bundle.sealed()
    assert len(back.digest) == 64


def test_the_model_of_a_run_folder_is_found(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "run" / "model.hilum")
    assert Bundle.read(tmp_path / "run").name == "brightness"


def test_an_existing_folder_is_never_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "m.hilum")
    with pytest.raises(FolderTaken):
        bundle.write(tmp_path / "m.hilum")


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "MODEL_CARD.md"])
def test_every_change_by_hand_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    folder = bundle.write(tmp_path / "m.hilum")
    file = folder / name
    if name == "bundle.json":
        content = json.loads(file.read_text())
        content["operating_points"]["balanced"]["threshold"] = 0.4
        file.write_text(json.dumps(content))
    else:
        file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleRefused, match="changed after it was sealed"):
        Bundle.read(folder)
    assert Bundle.read(folder, allow_modified=True).name == "brightness"


def test_a_newer_format_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.write(tmp_path / "m.hilum")
    content = json.loads((folder / "bundle.json").read_text())
    content["format"] = 99
    (folder / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleRefused, match="newer hilum"):
        Bundle.read(folder)


@pytest.mark.parametrize("damage", ["{", '{"format": 1}', "[]", '{"format": "x"}', "null"])
def test_a_broken_description_is_one_line(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    folder = bundle.write(tmp_path / "m.hilum")
    (folder / "bundle.json").write_text(damage)
    with pytest.raises(BundleRefused) as caught:
        Bundle.read(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_missing_model_and_an_unfinished_run_are_told_apart(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = bundle.write(tmp_path / "m.hilum")
    (folder / "MODEL_CARD.md").unlink()
    with pytest.raises(BundleRefused, match="incomplete"):
        Bundle.read(folder)
    with pytest.raises(BundleRefused, match="no such model"):
        Bundle.read(tmp_path / "none")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    with pytest.raises(BundleRefused, match="--resume"):
        Bundle.read(tmp_path / "run")


def test_an_unknown_operating_point_names_the_nearest(bundle: Bundle) -> None:
    assert bundle.point().name == "balanced"
    with pytest.raises(UsageError, match="'screening'"):
        bundle.point("screning")
