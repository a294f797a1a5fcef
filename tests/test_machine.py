from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum import machine
from hilum.errors import PlaceUnavailable, UsageError
from hilum.machine import Place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("cpu", Place("cpu")),
        ("cpu:2", Place("cpu", 1, 2)),
        ("cpu:2x1", Place("cpu", 2, 1)),
        ("cpu:2@bfloat16", Place("cpu", 1, 2, "bfloat16")),
        ("cuda", Place("cuda", 1, 1)),
        ("cuda:4@float32", Place("cuda", 4, 1, "float32")),
        ("reference", Place("reference", 1, 1)),
        ("mps", Place("mps", 1, 1)),
    ],
)
def test_places_are_read_and_written_alike(text: str, place: Place) -> None:
    assert Place.parse(text) == place
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "cpu:0", "cpu:٣", "cpu:2x0", "cpu:-1", "cuda:2x1", "mps:2", "reference:2",
     "cpu@float16", "reference@bfloat16", "cpu:2x", "cpu;2", "cpu:1025", "cpu:2x1025"],
)  # fmt: skip
def test_impossible_places_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Place.parse(text)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 64), st.integers(1, 64))
def test_any_group_of_processes_round_trips(processes: int, threads: int) -> None:
    place = Place("cpu", processes, threads)
    assert Place.parse(f"cpu:{processes}x{threads}").resolved() == place


def test_a_resolved_place_has_its_threads() -> None:
    assert Place.parse("cpu").resolved().threads == machine.cores()


def test_an_absent_gpu_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(PlaceUnavailable, match="GPUs are seen"):
        Place("cuda", torch.cuda.device_count() + 1).resolved()


def test_an_apple_gpu_is_taken_by_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert machine.best_place().kind == "cpu"
    assert Place("mps", 1, 1).resolved().kind == "mps"


def test_what_a_launcher_has_set_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("HILUM_CACHE", "somewhere")
    own = machine.own_environment()
    assert own["HILUM_CACHE"] == "somewhere" and not {"RANK", "LOCAL_RANK"} & own.keys()


def test_what_is_here() -> None:
    assert machine.cores() >= 1
    assert 0 <= machine.free_cores(0.05) <= machine.cores()
    assert machine.memory_bytes() > 2**28
    assert machine.processor()


GIB = 2**30


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("", {"cpu.max": "100000 100000", "memory.max": str(GIB)}, 1, GIB),  # a container's own
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, 0, None),
        # A job of a scheduler: its limits lie below the root, and those above it hold as well.
        ("0::/slurm/job/step", {"slurm/job/cpu.max": "150000 100000",
                                "slurm/cpu.max": "400000 100000", "slurm/memory.max": str(2 * GIB),
                                "slurm/job/step/memory.max": str(3 * GIB)}, 1.5, 2 * GIB),
        ("0::/not/here", {"memory.max": str(GIB)}, 0, GIB),  # the machine's path, in a container
        ("4:memory:/job\n2:cpu,cpuacct:/job\n0::/", {
            "cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
            "memory/job/memory.limit_in_bytes": str(GIB)}, 2, GIB),
    ],
    ids=["container", "no limit", "job", "unseen", "version 1"],
)  # fmt: skip
def test_limits_of_every_control_group_above_hold(
    own: str, files: dict[str, str], cores: float, memory: int | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n" if own else "")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    assert machine._cgroup_quota() == cores
    assert machine.memory_bytes() == (whole if memory is None else min(whole, memory))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"avx2"}, "(AVX2)"),
        ({"avx2", "avx512f", "avx512_bf16"}, "(AVX-512, bfloat16)"),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "(AVX-512, bfloat16, AMX)"),
    ],
)
def test_a_processor_is_told_with_what_it_computes(
    flags: set[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    assert machine.processor.__wrapped__().endswith(said)
