from __future__ import annotations

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
    ["", "gpu", "cpu:0", "cpu:2x0", "cpu:-1", "cuda:2x1", "mps:2", "reference:2", "cpu@float16",
     "reference@bfloat16", "cpu:2x", "cpu;2", "cpu:1025", "cpu:2x1025"],
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
