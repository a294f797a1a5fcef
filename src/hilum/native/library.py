"""The compiled kernels: found, or built from the sources here at first use, and loaded.

Building takes a C++ compiler and some eight seconds of processor time, once; the library is kept in
the cache folder under the digest of sources, flags and compiler.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from hilum import machine, storage
from hilum.errors import Refused

FOLDER = Path(__file__).parent  # of the sources and their headers

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


# A cache folder that is nobody's home, cannot be written or read, is full, or allows no programs.
CACHE_TROUBLE = (OSError, Refused, RuntimeError)


class Unavailable(Exception):
    """There are no kernels here; the message says why."""


def level() -> str:
    """The best build for this processor; raises ``Unavailable``."""
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
        more = ("avx512_bf16", "avx512_vnni")
        chosen += [f"-m{one.replace('_', '')}" for one in more if one in machine.cpu_flags()]
    return chosen


def compile_to(target: Path, chosen: list[str]) -> None:
    """Compile the library under the name ``target``, whole or not at all.

    Raises
    ------
    Unavailable
        The compiler fails.
    """
    with tempfile.TemporaryDirectory(prefix="hilum-kernels-") as folder:
        made = Path(folder) / "kernels.so"

        def run(*told: str | Path) -> None:
            command = [compiler(), *chosen, *map(str, told)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)

        def compiled(source: Path) -> Path:
            part = Path(folder) / f"{source.stem}.o"
            run("-c", source, "-o", part)
            return part

        try:
            with ThreadPoolExecutor(machine.cores()) as pool:
                parts = list(pool.map(compiled, sorted(FOLDER.glob("*.cpp"))))
            run("-shared", *parts, "-o", made)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [""]
            raise Unavailable(f"the compiler could not build them ({said[0]})") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.atomic_write(target) as stream:
            stream.write(made.read_bytes())


@cache
def _compiler_version(path: str) -> str:
    said = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
    return said.stdout.splitlines()[0]


def place(level: str) -> tuple[Path, str]:
    """Where the library is or will be, and where it is from; raises ``Unavailable``."""
    chosen = flags(level)
    try:
        version = _compiler_version(compiler())
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise Unavailable(f"the C++ compiler does not answer ({error})") from error
    sources = sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.hpp")])
    key = storage.digest(*sources, " ".join(chosen), version)[:16]
    return machine.cache_folder() / "kernels" / f"{level}-{key}.so", f"built by {version}"


def _built(level: str) -> tuple[Path, str]:
    """The same; built if it is not there."""
    path, origin = place(level)
    if not path.exists():
        with storage.lock(path.with_suffix(".lock"), wait=True):  # one builds, others wait for it
            if not path.exists():
                compile_to(path, flags(level))
    return path, origin


@cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None; and a line on what it is, or why there is none."""
    try:
        if platform.system() != "Linux":
            raise Unavailable(f"they are made for Linux, not for {platform.system()}")
        chosen = level()
        path, origin = _built(chosen)
        return ctypes.CDLL(str(path)), f"{chosen}, {origin}"
    except Unavailable as error:
        return None, str(error)
    except CACHE_TROUBLE as error:
        return None, f"the library cannot be written or loaded ({error})"


def ready() -> ctypes.CDLL | None:
    """The library where it need not be built first, else None; it may be ready the next time."""
    path = _expected()
    try:
        there = path is not None and path.exists()
    except OSError:
        return None
    return load()[0] if there else None


@cache
def _expected() -> Path | None:
    try:
        return place(level())[0]
    except (Unavailable, *CACHE_TROUBLE):
        return None


def build_ahead() -> None:
    """Begin what :func:`load` may have to build, while something else is done."""
    threading.Thread(target=load, name="kernels").start()
