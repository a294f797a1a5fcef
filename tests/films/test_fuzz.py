"""A few hundred of benchmarks/fuzz_films.py's mutations: each is one answer and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hilum.errors import UnreadableFilm
from hilum.films.workers import Workers


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_films.py"
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("fuzz_films", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_films"] = module
    spec.loader.exec_module(module)
    return module


def test_mutations_cost_one_answer_each(fuzz: ModuleType) -> None:
    films = fuzz.seeds(None)
    good = films["grey.png"]
    right = fuzz.answer(good)
    items = []
    for _, data in fuzz.mutations(films, 300, seed=7):
        items += [data, good]
    with Workers(1, seconds=20, memory=2 << 30) as workers:
        found = dict(workers.map(fuzz.answer, items))
    assert len(found) == 600
    assert all(found[number] == right for number in range(1, 600, 2))
    broken = [answer for answer in found.values() if isinstance(answer, UnreadableFilm)]
    assert len(broken) > 100  # they do break
    assert {answer.code for answer in broken} <= {
        "truncated", "corrupt", "not-a-film", "no-pixels", "unsupported", "too-large", "constant",
        "empty", "crashed", "timeout",
    }  # fmt: skip


def test_mutations_are_the_same_for_the_same_seed(fuzz: ModuleType) -> None:
    films = {"a": bytes(range(256)) * 4}
    assert list(fuzz.mutations(films, 20, 1)) == list(fuzz.mutations(films, 20, 1))
    assert list(fuzz.mutations(films, 20, 1)) != list(fuzz.mutations(films, 20, 2))
