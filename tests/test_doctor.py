"""What the doctor says of huge pages, and of GPUs by what torch and the driver answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from hilum import doctor  # noqa: E402


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One GPU, as torch would describe it."""
    here = SimpleNamespace(name="NVIDIA Test", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda k: here)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda k: (20 * 2**30, 80 * 2**30))
    monkeypatch.setattr(doctor, "_driver", lambda: "570.1")
    return monkeypatch


def test_a_gpu_is_named_with_memory_capability_and_versions(seen: pytest.MonkeyPatch) -> None:
    first, versions, kernels = doctor._gpus()
    assert first.value == "NVIDIA Test, compute capability 9.0, 20.0 of 80.0 GiB free"
    assert first.well and "driver 570.1" in versions.value and "GPU kernels" in kernels.value


def test_a_gpu_that_does_not_answer_is_not_well(seen: pytest.MonkeyPatch) -> None:
    def lost(k: int) -> None:
        raise RuntimeError("CUDA error: unknown error\nmore")

    seen.setattr(torch.cuda, "mem_get_info", lost)
    first = doctor._gpus()[0]
    assert not first.well and first.value.endswith("GiB: CUDA error: unknown error")


def test_a_driver_without_a_torch_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_driver", lambda: "570.1")
    (found,) = doctor._gpus()
    assert not found.well and "570.1" in found.value and "pytorch.org" in found.remedy
    monkeypatch.setattr(doctor, "_driver", lambda: None)
    (found,) = doctor._gpus()
    assert found.well is None and found.value == "no GPU seen by torch"


@pytest.mark.parametrize(
    ("setting", "well", "said"),
    [
        ("[always] madvise never", True, "given to all"),
        ("always [madvise] never", True, "who asks"),
        ("always madvise [never]", None, "a quarter longer"),
    ],
)
def test_huge_pages_that_are_switched_off_are_told(
    setting: str, well: bool | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.heap, "HUGE_PAGES", tmp_path / "enabled")
    assert doctor._pages() == []
    (tmp_path / "enabled").write_text(setting + "\n")
    (found,) = doctor._pages()
    assert found.well is well and said in found.value
    assert ("echo madvise" in found.remedy) == (well is None)
