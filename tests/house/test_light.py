"""What loads when: ``import hilum`` and ``--help`` stay light, answers need the plain install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hilum.bundle import Bundle

HEAVY = ("torch", "scipy", "sklearn", "matplotlib")

BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Block())
from hilum.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_import_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys, hilum\nfrom hilum.cli.app import run\nrun(['--help'])\n"
        f"print([m for m in ('numpy', 'rich', 'pydicom', 'onnxruntime', *{HEAVY!r}) "
        "if m in sys.modules])"
    )
    done = python(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_help_takes_under_a_third_of_a_second() -> None:
    def once() -> float:
        """Processor time, which a busy machine lengthens less than it does the clock's."""
        before = os.times()
        subprocess.run([sys.executable, "-m", "hilum", "--help"], capture_output=True, check=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    assert min(once() for _ in range(7)) < 0.3


def test_predict_with_heat_maps_needs_the_plain_install_alone(
    bundle: Bundle, grey_films: Path, tmp_path: Path
) -> None:
    model = bundle.write(tmp_path / "m.hilum")
    done = python(
        BLOCK, "predict", str(grey_films), "--model", str(model), "--heatmaps", str(tmp_path / "h")
    )
    assert done.returncode == 0, done.stderr
    assert "pneumonia suspected" in done.stdout
    assert (tmp_path / "h" / "bright.png").is_file()


def test_a_missing_extra_is_named_with_the_line_to_type(grey_films: Path) -> None:
    done = python(BLOCK, "train", str(grey_films))
    assert done.returncode == 3
    assert 'pip install "hilum[train]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_a_missing_extra_is_told_before_films_are_read(
    command: str, grey_films: Path, bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "films"
    for k, name in enumerate(("NORMAL", "PNEUMONIA")):
        (folder / name).mkdir(parents=True)
        for i, film in enumerate(sorted(grey_films.glob("*.png"))):
            (folder / name / f"{k}{i}.png").write_bytes(film.read_bytes())
    done = python(BLOCK, command, str(folder), "--out", str(tmp_path / "out"))
    assert done.returncode == 3
    assert 'pip install "hilum[report]"' in done.stderr
    assert "decoding" not in done.stderr and not (tmp_path / "out").exists()


def test_training_asks_for_all_that_it_will_need(monkeypatch: pytest.MonkeyPatch) -> None:
    from hilum import errors

    for absent in ("torch", "onnx", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setattr(errors, "find_spec", lambda name, absent=absent: name != absent or None)
            with pytest.raises(errors.MissingExtra, match=r"^training needs.*train"):
                errors.require("train")
