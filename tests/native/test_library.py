"""The compiled library: found, built once, refused with a reason."""

import ctypes
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hilum import machine
from hilum.errors import UsageError
from hilum.native import library

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
SMALL = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }'


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library of one function, not yet built."""
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path))
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(library.LEVELS["x86-64-v3"]))
    (tmp_path / "small.cpp").write_text(SMALL)
    kept = library.load, library._expected
    for function in kept:
        function.cache_clear()
    yield tmp_path / "kernels"
    for function in kept:
        function.cache_clear()


@pytest.mark.parametrize(
    ("flags", "said"), [({"sse2"}, "AVX2"), (library.LEVELS["x86-64-v3"], "no C++ compiler")]
)
def test_the_reason_is_named(flags: set, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setenv("CXX", "no-such-compiler")
    found, reason = library.load.__wrapped__("films")
    assert found is None and said in reason
    assert library._expected.__wrapped__("films") is None


def test_kernels_are_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_KERNELS", "off")
    assert library.load.__wrapped__("films") == (None, "HILUM_KERNELS=off")
    assert library._expected.__wrapped__("films") is None


@pytest.mark.parametrize("value", ["", "on", "off", None])
def test_the_switch_takes_on_and_off(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HILUM_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("HILUM_KERNELS", value)
    library.check_switch()
    monkeypatch.setenv("HILUM_KERNELS", "0")
    with pytest.raises(UsageError, match="HILUM_KERNELS is '0'"):
        library.check_switch()


@pytest.mark.parametrize("name", library.NAMES)
def test_every_function_answers_whether_memory_was_full(name: str) -> None:
    """An exception that left one would end the process (``layers.hpp``)."""
    _, *functions = (library.FOLDER / f"{name}.cpp").read_text().split("EXPORT ")
    assert functions
    for one in functions:
        assert one.startswith("int matrix_tiles") or "return answer([&] {" in one


@needs_compiler
@pytest.mark.parametrize("folder", ["x" * 300, "~nobody-of-this-name/cache"])
def test_a_cache_folder_that_cannot_be_there_costs_the_kernels_alone(
    small: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_CACHE", folder if folder[0] == "~" else str(small / folder))
    assert library.ready("small") is None
    found, reason = library.load("small")
    assert found is None and "cannot be written" in reason


@needs_compiler
def test_a_full_disk_costs_the_kernels_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found, reason = library.load("small")
    assert found is None and "cannot be written" in reason


@needs_compiler
def test_a_compiler_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    (tmp_path / "broken.cpp").write_text("this is no program")
    with pytest.raises(library.Unavailable, match="could not build"):
        library.compile_to(tmp_path / "made" / "kernels.so", "broken", list(library.FLAGS))
    assert not (tmp_path / "made").exists()


@needs_compiler
def test_two_that_build_at_once_both_get_it(small: Path) -> None:
    found: list[Path] = []

    def build() -> None:
        found.append(library._built("small", "x86-64-v3")[0])

    both = [threading.Thread(target=build) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert found[0] == found[1] and [found[0]] == list(small.glob("*.so"))
    assert ctypes.CDLL(str(found[0])).answer() == 42


@needs_compiler
def test_who_only_takes_what_is_there_builds_nothing(small: Path) -> None:
    assert library.ready("small") is None and not small.exists()
    library._built("small", "x86-64-v3")
    built = library.ready("small")
    assert built is not None and built.answer() == 42
