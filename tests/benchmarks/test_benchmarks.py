"""The parts of the benchmark scripts that need no peer: ratios, tables, shifts, verdicts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hilum.datasets.manifest import Manifest
from hilum.training.shifts import SHIFTS

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script by name, as it is when it is run."""
    import importlib

    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(FOLDER) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def test_ratios_are_taken_round_by_round(scripts: Any) -> None:
    sides: ModuleType = scripts("sides")
    medians = {"slow": [10.0, 40.0, 30.0], "fast": [5.0, 10.0, 10.0]}
    (row,) = sides.compare(medians, [("slow", "fast", 2.0), ("slow", "absent", 1.0)])
    assert row == {"of": "slow", "over": "fast", "ratio": 3.0, "least": 2.0, "most": 4.0,
                   "goal": 2.0}  # fmt: skip
    assert sides.ratio_table([row])[-1] == "| slow / fast | 3.0 | 2.0–4.0 | ≥ 2.0 |"
    assert sides.spread([1 / 3, 0.5, 1]) == {"ratio": 0.5, "least": 0.33, "most": 1}
    assert sides.spread([1 / 3], digits=3)["ratio"] == 0.333


def test_a_table_takes_the_place_of_the_one_before(scripts: Any) -> None:
    sides = scripts("sides")
    page = "a\n<!-- x -->\nold\n<!-- end x -->\nb\n"
    once = sides.placed(page, "x", "new")
    assert once == "a\n<!-- x -->\nnew\n<!-- end x -->\nb\n"
    assert sides.placed(once, "x", "new") == once
    for name, lost in (("y", page), ("x", page.replace("end x", "end"))):
        with pytest.raises(SystemExit, match=f"no place for the table: <!-- {name} -->"):
            sides.placed(lost, name, "new")


def test_a_page_takes_all_tables_or_none(scripts: Any, tmp_path: Path) -> None:
    sides, page = scripts("sides"), tmp_path / "page.md"
    page.write_text("<!-- x -->\n<!-- end x -->\n<!-- y -->\n<!-- end y -->\nrest\n", "utf-8")
    sides.put(page, {"x": "1", "y": "2"})
    both = "<!-- x -->\n1\n<!-- end x -->\n<!-- y -->\n2\n<!-- end y -->\nrest\n"
    assert page.read_text("utf-8") == both
    with pytest.raises(SystemExit):
        sides.put(page, {"x": "3", "z": "4"})
    assert page.read_text("utf-8") == both


def test_a_busy_machine_is_told(scripts: Any) -> None:
    sides = scripts("sides")
    assert sides.busy(1.0, 2) == []
    assert "busy with other work" in sides.busy(1.1, 2)[-1]


def test_the_page_has_a_place_for_every_table(scripts: Any) -> None:
    sides = scripts("sides")
    benchmarks = (
        "step",
        "step-parts",
        "epoch",
        "time-to-quality",
        "ingest",
        "scaling",
    )
    tables = {
        "benchmarks": benchmarks,
        "scaling": ("checked", "strong", "weak", "cost"),
        "parallelism": ("step", "learn", "stale", "delay", "batch", "claims"),
    }
    for page, names in tables.items():
        text = (FOLDER.parent / "docs" / f"{page}.md").read_text("utf-8")
        for name in names:
            assert sides.placed(text, name, "here").count("here\n<!-- end") == 1


def test_tables_of_every_kind_of_processor_stand_together(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = scripts("sides")
    page = tmp_path / "page.md"
    page.write_text("<!-- x -->\n<!-- end x -->\n", "utf-8")
    monkeypatch.setattr(sides, "KEPT", tmp_path)
    monkeypatch.setattr(sides, "PAGE", page)
    monkeypatch.delenv("BENCHMARK_HELD", raising=False)
    for flags, ms in (({"avx2"}, 9), ({"avx2", "avx512_bf16"}, 4), ({"avx2"}, 8)):
        monkeypatch.setattr(sides.machine, "cpu_flags", lambda flags=flags: frozenset(flags))
        sides.record({"ms": ms}, "step", {"x": lambda result: f"| {result['ms']} |"})
    best, rest = "With AVX-512 and bfloat16:\n\n| 4 |", "With AVX2 alone:\n\n| 8 |"
    assert page.read_text("utf-8") == f"<!-- x -->\n{best}\n\n{rest}\n<!-- end x -->\n"


def test_a_side_answers_line_by_line(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = scripts("protocol")
    done: list[str] = []
    works = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    monkeypatch.setattr(sys, "stdin", io.StringIO("2 a\n1 b\n"))
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    protocol.serve({"who": "me"}, works)
    monkeypatch.undo()
    hello, first, second = map(json.loads, out.getvalue().splitlines())
    assert hello == {"who": "me"} and done == ["a", "a", "b"]
    assert len(first["ms"]) == 2 and len(second["ms"]) == 1


@pytest.mark.parametrize("name", ["motion", "vignette", "posterised", "marker"])
def test_held_out_shifts_depend_on_the_film_alone(scripts: Any, name: str) -> None:
    shifted = scripts("shifted")
    films = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    numbers = np.array([5, 6, 7])
    made = shifted.hold_out(films, numbers, name)
    assert made.shape == films.shape and made.dtype == np.uint8
    assert (made != films).any((1, 2)).all()
    np.testing.assert_array_equal(shifted.hold_out(films[1:], numbers[1:], name), made[1:])
    assert name not in SHIFTS


def test_the_mixed_set_takes_the_shifts_in_turn(scripts: Any) -> None:
    shifted = scripts("shifted")
    n = len(SHIFTS) + 1
    sets = {name: np.full((n, 2, 2), k, np.uint8) for k, name in enumerate(SHIFTS)}
    sets["plain"] = np.zeros((n, 2, 2), np.uint8)
    assert shifted.mixed(sets)[:, 0, 0].tolist() == [*range(len(SHIFTS)), 0]


LABEL = np.array([0, 0, 1, 1], np.int8)
GOOD, BAD = [0.1, 0.2, 0.8, 0.9], [0.1, 0.9, 0.2, 0.8]


def lines(seconds: float, plain: list[float], shifted: list[float]) -> list[dict[str, Any]]:
    """A result file: one epoch, then the end."""
    quality = __import__("shifted")
    every = {"plain": plain, "mixed": shifted}
    every |= dict.fromkeys((*SHIFTS, *quality.HELD_OUT), shifted)
    return [
        {"epoch": 1, "seconds": seconds / 2, "scores": {"plain": plain, "mixed": shifted}},
        {"finished": True, "seconds": seconds, "threshold": 0.5, "seed": 0, "scores": every},
    ]


def test_who_reaches_the_target_and_by_how_much(scripts: Any) -> None:
    quality = scripts("time_to_quality")
    entries = {
        quality.KERAS: quality.summary([lines(1000.0, GOOD, BAD)], LABEL),
        quality.RESNET: quality.summary([lines(100.0, BAD, GOOD)], LABEL),
        quality.HILUM: quality.summary([lines(10.0, GOOD, GOOD), lines(20.0, GOOD, BAD)], LABEL),
    }
    assert entries[quality.KERAS]["quality"]["shifted"] == {"accuracy": 0.5, "auroc": 0.5}
    ratios = quality.against(entries)
    assert [entry["reached"] for entry in entries.values()] == [True, False, True]
    assert entries[quality.HILUM]["first_epoch"] == {"epoch": 1, "seconds": 7.5}
    assert entries[quality.RESNET]["first_epoch"] is None
    assert [(r["ratio"], r["least"], r["most"]) for r in ratios] == [(75, 50, 100), (7.5, 5, 10)]


def test_no_ratio_without_the_quality(scripts: Any) -> None:
    quality = scripts("time_to_quality")
    entries = {
        quality.KERAS: quality.summary([lines(1000.0, GOOD, GOOD)], LABEL),
        quality.HILUM: quality.summary([lines(10.0, GOOD, BAD)], LABEL),
    }
    assert quality.against(entries) == []
    assert not entries[quality.HILUM]["reached"]


def test_a_few_films_keep_every_part_and_class(scripts: Any, tmp_path: Path) -> None:
    quality = scripts("time_to_quality")
    part = ("train",) * 20 + ("validation",) * 6 + ("test",) * 6
    names = tuple(f"{i}.png" for i in range(32))
    label = np.arange(32, dtype=np.int8) % 2
    few = quality.some(Manifest(tmp_path, names, label, names, part), 12)
    counts = {(p, int(y)) for p, y in zip(few.part, few.label, strict=True)}
    assert len(few) == 12 and len(counts) == 6


def test_sides_take_turns(scripts: Any) -> None:
    quality = scripts("time_to_quality")
    mine, peers = [("h", "0"), ("h", "1"), ("h", "2")], [("k", "0"), ("r", "0")]
    assert [side for side, _ in quality.in_turn(mine, peers)] == ["h", "k", "h", "r", "h"]


def test_the_goal_is_the_fastest_that_scales(scripts: Any) -> None:
    ingest = scripts("ingest")
    medians = {"hilum": [1.0], "Pillow draft": [1.2], "simplejpeg": [1.1], "Pillow plain": [2.0]}
    goals = {of: goal for of, _, goal in ingest.pairs(medians)}
    assert goals == {"Pillow draft": None, "simplejpeg": 1.0, "Pillow plain": 1.0}


def test_the_parts_of_a_step_fill_it_and_know_their_limit(scripts: Any) -> None:
    step, roofline = scripts("step"), scripts("roofline")
    sums = roofline.gflop_by_part(step.BATCH, step.SIZE)
    assert sum(sums.values()) == pytest.approx(roofline.gflop_a_step(step.BATCH, step.SIZE))
    # Dense layers: 10,816 × 128, 128 × 64 and 64 × 1, three passes, 16 films.
    assert sums["dense"] == pytest.approx(6 * 16 * (10816 * 128 + 128 * 64 + 64) / 1e9)
    parts = {"data": 0.0, "transfer": 0.0, "convolution": 150.0, "pooling": 10.0, "dense": 20.0,
             "optimiser": 10.0, "exchange": 0.0, "other": 10.0}  # fmt: skip
    result = {
        "gflop_a_step": round(sum(sums.values()), 2),
        "sides": {
            "hilum float32": {"ms": 100.0, "precision": "float32", "breakdown": {"parts": parts}},
            "hilum fast": {"ms": 50.0, "precision": "float32", "breakdown": {"parts": parts}},
            "keras float32": {"ms": 400.0},
            "gemm float32": {"ms": 1e3, "gflop": 100.0},
        },
    }
    step.add_limit(result)
    mine, fast = result["sides"]["hilum float32"], result["sides"]["hilum fast"]
    assert sum(step.shown(mine).values()) == pytest.approx(mine["ms"])
    # 80 ms of convolution at 100 GFLOP/s would be 8 GFLOP.
    assert mine["breakdown"]["convolution_of_gemm_limit"] == round(sums["convolution"] / 8, 3)
    assert "share_of_gemm_limit" not in fast and "dense_of_gemm_limit" not in fast["breakdown"]
    first, second = step.parts_table(result).splitlines()[2:4]
    assert first.startswith("| hilum float32 | 0.0 ms, 0% | 80.0 ms, 80% | ")
    assert second == (
        "| hilum fast | 0.0 ms, 0% | 40.0 ms, 80% |  | 5.0 ms, 10% |  | 2.5 ms, 5% | 2.5 ms, 5% |"
    )


@pytest.mark.parametrize("recipe", ["paper2021", "fast"])
def test_hilums_own_side_says_where_its_step_goes(recipe: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 500, 500), dtype=np.uint8)
    np.savez(tmp_path / "films.npz", pixels=pixels, labels=np.arange(64, dtype=np.int8) % 2)
    given = [str(tmp_path / "films.npz"), "float32", recipe]
    code = (  # profiled for one step, not for six
        "import runpy, sys; from hilum.experiments.compare import breakdown\n"
        "breakdown.WARM = breakdown.STEPS = 1\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "runpy.run_path(sys.argv[2])['main'](*sys.argv[3:])"
    )
    peers = FOLDER / "peers"
    asked = subprocess.run(
        [sys.executable, "-c", code, str(peers), str(peers / "hilum_step.py"), *given],
        input="2\n", capture_output=True, text=True,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    hello, answer = map(json.loads, asked.stdout.splitlines())
    assert hello["recipe"] == recipe and len(answer["ms"]) == 2
    parts = hello["breakdown"]["parts"]
    del parts["other"]  # on a busy machine one thread waits for the other
    assert max(parts, key=lambda part: parts[part]) == "convolution"
    if recipe == "fast":
        assert parts["data"] > 0.5  # ms
    else:  # batches are ready; a busy machine may still hold up a look at them
        assert parts["data"] < parts["convolution"] / 10


def test_an_epoch_is_told_by_film(scripts: Any) -> None:
    epoch, sides = scripts("epoch"), scripts("sides")
    process = type("Process", (), {"hello": {"torch": "2"}})()
    side = sides.Side("hilum float32", process)
    side.rounds, side.cpu = [[1000.0], [3000.0], [2000.0]], [4000.0, 4000.0, 4000.0]
    entry = epoch.entry(side, 100)
    assert (entry["ms"], entry["least"], entry["most"], entry["films_a_second"]) == (20, 10, 30, 50)
