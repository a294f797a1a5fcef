"""The pure parts of benchmarks/gpu.py, and that it refuses where there is nothing to measure."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_a_step_of_the_papers_network_in_operations_and_bytes(module: Any) -> None:
    roofline = module("roofline")
    # Forward 2 · 16 · Σ out² · out channels · 9 · in channels and the dense layers, three times
    # but for the first layer's input gradient.
    places = [(498, 32, 1), (247, 32, 32), (121, 32, 32), (58, 64, 32), (27, 64, 64)]
    layers = [s * s * out * 9 * into for s, out, into in places]
    layers += [10816 * 128, 128 * 64, 64]
    assert roofline.gflop_a_step() == pytest.approx(32 * (3 * sum(layers) - layers[0]) / 1e9)
    full = [out * s * s for s, out, _ in places]
    pooled = [out * (s // 2) ** 2 for s, out, _ in places]
    own = 16 * (12 * 500**2 + 10 * sum(full[1:]) + (10 + 2) * sum(pooled)) / 1e9
    assert roofline.gigabytes_a_step(2) == pytest.approx(own)
    plain = 16 * (12 * 500**2 + 10 * sum(full) + (10 + 16 + 10) * sum(pooled)) / 1e9
    assert roofline.gigabytes_a_step(2, own=False) == pytest.approx(plain)
    assert plain > 2 * own  # what the kernels save


def test_shares_say_which_limit_binds(module: Any) -> None:
    roofline = module("roofline")
    limits = roofline.Limits(tflops=100.0, gigabytes=2000.0)
    # 80 GFLOP at 100 TFLOP/s: 0.8 ms; 1 GB at 2,000 GB/s: 0.5 ms.
    assert roofline.shares(1.6, limits, 80.0, 1.0) == {
        "tensor_cores": 0.5, "bandwidth": 0.3125, "limit_ms": 0.8, "of_limit": 0.5,
        "bound_by": "tensor cores",
    }  # fmt: skip
    assert roofline.shares(1.6, limits, 8.0, 1.0)["bound_by"] == "bandwidth"


def test_goals_are_judged_with_the_figure_reached(module: Any) -> None:
    gpu = module("gpu_text")
    result = {
        "paper": {"float32": {"seconds": 11.0}, "bfloat16": {"seconds": 9.0}},
        "textbook": {"ratios": {"float32": {"ratio": 4.9}, "bfloat16": {"ratio": 6.0}}},
        "fast": {"seconds_to_quality": None},
    }
    found = [(g["reached"], g["met"]) for g in gpu.judged(result)]
    assert found == [(9.0, True), (4.9, False), (None, False)]
    epochs = [SimpleNamespace(seconds=0.5, val_auroc=a) for a in (0.5, 0.9, 0.95)]
    assert gpu.reached(epochs, 0.901) == 1.0 and gpu.reached(epochs, 0.99) is None


def test_the_record_is_a_page_of_tables(module: Any) -> None:
    roofline, gpu = module("roofline"), module("gpu_text")
    step = {"seconds": 9.0, "start_up_seconds": 3.0, "ms_per_step": 2.0,
            "shares": roofline.shares(2.0, roofline.Limits(300.0, 2500.0), 80.0, 1.9)}  # fmt: skip
    beside = {"ratio": 6.0, "least": 5.0, "most": 7.0}
    result = {
        "gpu": "A GPU", "what": "training", "versions": {"torch": "2.9"},
        "paper": {"float32": step},
        "textbook": {"ratios": {"float32": beside}, "ms_per_step": {"textbook float32": 12.0}},
        "cpu": {"steps": 6, "paper": 6.13, "cpu:1": {"ms_per_step": 400.0, "ratio": 200.0}},
        "fast": {"seconds_to_quality": 2.0, "films": "films", "cpu_val_auroc": 0.9951,
                 "cuda_val_auroc": 0.9949, "cpu": {"seconds": 20.0, "start_up_seconds": 1.0},
                 "cuda": {"seconds": 2.0, "start_up_seconds": 3.0}},
        "limits": {"tflops_bfloat16": 700.0},
        "profile": [{"kernel": "conv", "ms_per_step": 0.5}],
    }  # fmt: skip
    page = gpu.text({**result, "goals": gpu.judged(result)})
    assert "| paper's ten epochs, s | 10.0 | 9.0 | yes |" in page
    assert "| cpu:1 | 400.0 | 200.0 (the paper: 6.13) |" in page
    assert "| float32 | 9.0 | 3.0 | 2.0 | 0.38 | bandwidth |" in page


def test_the_kept_pages_are_what_their_figures_come_to(module: Any) -> None:
    gpu = module("gpu_text")
    kept = sorted((BENCHMARKS.parent / "docs" / "records" / "gpu").glob("*.json"))
    assert kept
    for figures in kept:
        result = json.loads(figures.read_text("utf-8"))
        assert gpu.judged(result) == result["goals"]
        assert figures.with_suffix(".md").read_text("utf-8") == gpu.text(result) + "\n"


def test_what_is_timed_apart_changes_nothing(module: Any) -> None:
    """On a CPU: the start-up's step is undone, the epochs are those of a plain training."""
    import numpy as np

    from hilum.machine import Place
    from hilum.training.backends import make_learner
    from hilum.training.learner import class_weights
    from hilum.training.loop import fit, steps_in_epoch
    from hilum.training.parts import Films
    from hilum.training.recipe import Recipe
    from hilum.training.schedule import LearningRate

    gpu = module("gpu")
    changes = ["training.epochs=2", "training.batch=8", "network.options.width=4",
               "preprocessing.size=32"]  # fmt: skip
    recipe, place = Recipe.load("fast", changes), Place("cpu", 1, 1, "float32")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32), dtype=np.uint8)
    films = Films(pixels, np.arange(40), (np.arange(40) % 3 > 0).astype(np.int8), np.arange(40))
    found, epochs = gpu.run(recipe, place, films, films)
    plain = make_learner(recipe, place, class_weights(films.labels, "balanced"))
    expected: list[Any] = []
    rate = LearningRate(recipe, steps_in_epoch(40, recipe))
    fit(plain, recipe, films, films, rate=rate, ended=expected.append)
    assert [e.loss for e in epochs] == [e.loss for e in expected]
    assert found["start_up_seconds"] > 0 and found["seconds"] > 0 and len(found["epochs"]) == 2


def test_a_ratio_beside_the_textbook_is_taken_a_step_and_by_round(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With sides that only claim to have worked: eight steps an answer, growing slower."""
    import numpy as np

    from hilum.training.parts import Films

    for script, ms in (("textbook_gpu.py", 80.0), ("hilum_gpu.py", 16.0)):
        (tmp_path / script).write_text(
            "import json, sys\nprint(json.dumps({'steps': 8}), flush=True)\n"
            "for turn, line in enumerate(sys.stdin):\n"
            f"    ms = [{ms} * (turn + 1)] * int(line.split()[0])\n"
            "    print(json.dumps({'ms': ms, 'cpu_ms': 0}), flush=True)\n"
        )
    gpu, sides = module("gpu"), module("sides")
    monkeypatch.setattr(sides, "PEERS", tmp_path)
    films = Films(np.zeros((2, 4, 4), np.uint8), np.arange(2), np.arange(2, dtype=np.int8),
                  np.arange(2))  # fmt: skip
    found = gpu.beside_a_textbook(films, 3)
    # The first answer warms up; rounds are the second to the fourth.
    each = {"textbook": 30, "hilum": 6}
    assert found["ms_per_step"] == {
        f"{side} {precision}": ms for precision in gpu.PRECISIONS for side, ms in each.items()
    }
    assert list(found["ratios"].values()) == [{"ratio": 5, "least": 5, "most": 5}] * 2


def test_it_refuses_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    asked = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True
    )
    assert asked.returncode == 3 and asked.stdout == ""
    assert asked.stderr.count("\n") == 1 and "no GPU is seen by torch" in asked.stderr


@pytest.mark.parametrize(
    "script, last",
    [
        ("textbook_gpu.py", ["0", "float32"]),
        ("textbook_gpu.py", ["0", "bfloat16"]),
        ("hilum_gpu.py", ["float32"]),
    ],
)
def test_the_sides_answer(tmp_path: Path, script: str, last: list[str]) -> None:
    """On a CPU, with chunks of one step."""
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(tmp_path / "pixels.npy", rng.integers(0, 256, (16, 500, 500), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", (np.arange(16) % 2).astype(np.int8))
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1])\n"
        "module = runpy.run_path(sys.argv[2])\n"
        "main = module['main']; main.__globals__['CHUNK'] = 1; main(*sys.argv[3:])"
    )
    peers = BENCHMARKS / "peers"
    asked = subprocess.run(
        [sys.executable, "-c", code, str(peers), str(peers / script), str(tmp_path), *last],
        input="1\n", capture_output=True, text=True,
    )  # fmt: skip
    hello, answer = asked.stdout.splitlines()
    assert '"steps": 1' in hello and '"ms": [' in answer, asked.stderr
