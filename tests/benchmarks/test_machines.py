"""Processes of the scaling benchmarks that end before they should."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# Says hello; at "fill" complains at length, then ends; answers everything else.
WORKER = """
import json, os, sys
print(json.dumps({"pid": os.getpid()}), flush=True)
for line in sys.stdin:
    if "fill" in json.loads(line):
        sys.stderr.write("complaint " * 100_000 + "the reason")
        sys.exit(1)
    print(json.dumps({"heard": json.loads(line)}), flush=True)
"""


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("machines")
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, "utf-8")
    monkeypatch.setattr(module, "WORKER", worker)
    return module


def test_all_of_a_group_answer_and_end(machines: Any) -> None:
    with machines.Trainees("paper2021", "cpu:2x1", Path("films")) as group:
        assert group.ask(steps=2) == 2 * [{"heard": {"steps": 2}}]
    assert [process.returncode for process in group.processes] == [0, 0]


def test_a_process_that_complains_at_length_is_heard(machines: Any) -> None:
    """More than a pipe holds; the other process is not left behind."""
    with (
        pytest.raises(SystemExit, match=r"cpu:1, apart has ended:\n(complaint )+the reason"),
        machines.Trainees("paper2021", "cpu:1", Path("films"), apart=2) as group,
    ):
        group.ask(fill=True)
    assert all(process.returncode is not None for process in group.processes)


def test_a_process_that_never_says_hello_is_told(machines: Any) -> None:
    machines.WORKER.write_text("raise SystemExit('no such recipe')", "utf-8")
    with pytest.raises(SystemExit, match="no such recipe"):
        machines.Trainees("paper2021", "cpu:2x1", Path("films"))
