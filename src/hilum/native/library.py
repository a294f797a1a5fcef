"""The compiled kernels: found, or built from the sources here at first use, and loaded.

Each source is a library of its own, so that nobody waits for what only another network needs.
Building takes a C++ compiler and one to five seconds of processor time each, once; a library is
kept in the cache folder under the digest of source, headers, flags and compiler.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from hilum import machine, storage
from hilum.errors import Refused, UsageError

FOLDER = Path(__file__).parent  # of the sources and their headers
NAMES = ("films", "residual", "muon", "blocks")  # of the sources, and so of the libraries

# What a processor must have for each build, the best first (x86-64 psABI, micro-architecture
# levels), by the names of /proc/cpuinfo.
LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"},
}
# No -ffast-math: it would flush denormal numbers to zero in the whole process.
FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-pthread", "-w"),
    *("-fvisibility=hidden", "-fno-gnu-unique"),  # two builds in one process stay apart
)
MEMORY_FULL = -1  # what a function of theirs answers then (layers.hpp)

# A cache folder that is nobody's home, cannot be written or read, is full, or allows no programs.
CACHE_TROUBLE = (OSError, Refused, RuntimeError)


class Unavailable(Exception):
    """There are no kernels here; the message says why."""


def check_switch() -> None:
    """Raise ``UsageError`` where ``HILUM_KERNELS`` is neither ``on`` nor ``off``: a slip of the pen
    would leave the kernels on in silence."""
    given = os.environ.get("HILUM_KERNELS", "")
    if given not in ("", "on", "off"):
        raise UsageError(
            f"the environment's HILUM_KERNELS is {given!r}. It takes on or off; without it the "
            "kernels are on."
        )


def level() -> str:
    """The best build for this processor; raises ``Unavailable``, so that nothing is used, where
    ``HILUM_KERNELS`` is ``off``."""
    if os.environ.get("HILUM_KERNELS") == "off":
        raise Unavailable("HILUM_KERNELS=off")
    for name, needed in LEVELS.items():
        if needed <= machine.cpu_flags():
            return name
    raise Unavailable(f"they need a processor with AVX2, this one is {platform.machine()}")


def compiler() -> str:
    """The C++ compiler: ``$CXX``, else g++; raises ``Unavailable``."""
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"there is no C++ compiler ({name}) to build them")
    return found


def flags(level: str) -> list[str]:
    """The compiler's flags for a build, with what the CPU has beyond its level."""
    chosen = [*FLAGS, f"-march={level}"]
    if level == "x86-64-v4":
        chosen.append("-mprefer-vector-width=512")
        more = {"avx512_bf16": "avx512bf16", "avx512_vnni": "avx512vnni", "amx_bf16": "amx-bf16"}
        chosen += [f"-m{name}" for flag, name in more.items() if flag in machine.cpu_flags()]
    return chosen


def compile_to(target: Path, name: str, chosen: list[str]) -> None:
    """Compile a library to the file ``target``, whole or not at all.

    Raises
    ------
    Unavailable
        The compiler fails.
    """
    with tempfile.TemporaryDirectory(prefix="hilum-kernels-") as folder:
        made = Path(folder) / "kernels.so"
        command = [compiler(), *chosen, "-shared", str(FOLDER / f"{name}.cpp"), "-o", str(made)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [""]
            why = next((line for line in said if "error:" in line), said[0])
            raise Unavailable(f"the compiler could not build them ({why})") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_file(target, made.read_bytes())


@cache
def _compiler_version(path: str) -> str:
    said = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
    return said.stdout.splitlines()[0]


def place(name: str, level: str) -> tuple[Path, str]:
    """Where a library is or will be, and where it is from; raises ``Unavailable``."""
    chosen = flags(level)
    try:
        version = _compiler_version(compiler())
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise Unavailable(f"the C++ compiler does not answer ({error})") from error
    sources = [FOLDER / f"{name}.cpp", *sorted(FOLDER.glob("*.hpp"))]
    key = storage.digest(*sources, " ".join(chosen), version)[:16]
    return machine.cache_folder() / "kernels" / f"{name}-{level}-{key}.so", f"built by {version}"


def _built(name: str, level: str) -> tuple[Path, str]:
    """The same; built if it is not there."""
    path, origin = place(name, level)
    if not path.exists():
        with storage.lock(path.with_suffix(".lock"), wait=True):  # one builds, others wait for it
            if not path.exists():
                compile_to(path, name, flags(level))
    return path, origin


class Library(ctypes.CDLL):
    """A library as it is loaded: its functions raise ``MemoryError`` where memory is full."""

    def __getitem__(self, name: Any) -> Any:
        function: Any = super().__getitem__(name)
        function.errcheck = _checked
        return function


def _checked(answer: int, *_: Any) -> int:
    if answer == MEMORY_FULL:
        raise MemoryError
    return answer


@cache
def load(name: str) -> tuple[ctypes.CDLL | None, str]:
    """A library, or None; and a line on what it is, or why there is none."""
    try:
        if platform.system() != "Linux":
            raise Unavailable(f"they are made for Linux, not for {platform.system()}")
        chosen = level()
        path, origin = _built(name, chosen)
        return Library(str(path)), f"{chosen}, {origin}"
    except Unavailable as error:
        return None, str(error)
    except CACHE_TROUBLE as error:
        return None, f"the library cannot be written or loaded ({error})"


def expected(name: str) -> bool:
    """Whether a library is there or can probably be built; nothing is built to know it."""
    return _expected(name) is not None


def ready(name: str) -> ctypes.CDLL | None:
    """A library where it need not be built first, else None; it may be ready the next time."""
    path = _expected(name)
    try:
        there = path is not None and path.exists()
    except OSError:
        return None
    return load(name)[0] if there else None


@cache
def _expected(name: str) -> Path | None:
    try:
        return place(name, level())[0]
    except (Unavailable, *CACHE_TROUBLE):
        return None


def build(names: Iterable[str]) -> None:
    """Have libraries loaded, those that are not there yet built side by side."""
    with ThreadPoolExecutor(machine.cores()) as pool:
        list(pool.map(load, names))


def build_ahead(names: Iterable[str]) -> None:
    """Begin with :func:`build`, while something else is done."""
    threading.Thread(target=build, args=(names,), name="kernels").start()
