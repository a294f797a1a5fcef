"""What is here: cores, places, memory; and the only code that sets threads.

Thread and allocator settings must be made before numpy and torch load, so this module imports
neither until a function needs torch.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from hilum.errors import PlaceUnavailable, UsageError

Kind = Literal["reference", "cpu", "cuda", "mps"]
PRECISIONS = ("auto", "float32", "bfloat16")
MOST_THREADS = 1024  # of a process: the libraries that start them crash on many more
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
#: What torchrun and launchers like it tell their processes.
LAUNCHERS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    "TORCHELASTIC_USE_AGENT_STORE",
)

_PLACE = re.compile(
    r"(?P<kind>reference|cpu|cuda|mps)(?::(?P<a>\d+)(?:x(?P<b>\d+))?)?(?:@(?P<precision>\w+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Place:
    """Where a training runs: ``reference``, ``cpu:2``, ``cpu:2x1``, ``cuda``, ``cuda:4``, ``mps``.

    Attributes
    ----------
    kind : the sort of processor
    processes : data-parallel processes (CPU) or GPUs
    threads : threads in each process; 0 means all cores that are granted (see ``resolved``)
    precision : ``auto``, ``float32`` or ``bfloat16``
    """

    kind: Kind
    processes: int = 1
    threads: int = 0
    precision: str = "auto"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``kind[:T|:PxT|:K][@precision]``; raises ``UsageError``."""
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"no such place: {text or repr(text)}. There are reference, cpu, cpu:T, cpu:PxT, "
                "cuda, cuda:K and mps, each with @float32 or @bfloat16 behind it."
            )
        kind, a, b = match["kind"], match["a"], match["b"]
        precision = match["precision"] or "auto"
        if precision not in PRECISIONS:
            raise UsageError(
                f"no such precision: {precision} in {text}. There are {', '.join(PRECISIONS)}."
            )
        first, second = int(a) if a else 0, int(b) if b else 0
        if (a and first == 0) or (b and second == 0):
            raise UsageError(f"a place needs at least one: {text}. Write {kind}:1 or more.")
        if kind == "cpu":
            processes, threads = (first, second) if b else (1, first)
            if threads > MOST_THREADS:
                raise UsageError(
                    f"no such place: {text}. A process has {MOST_THREADS:,} threads at most."
                )
            return cls("cpu", processes, threads, precision)
        if kind == "cuda":
            if b:
                raise UsageError(f"a GPU has no threads to choose: {text}. Write cuda:{first}.")
            return cls("cuda", first or 1, 1, precision)
        if a:
            raise UsageError(f"this place takes no number: {text}. Write {kind}.")
        if kind == "reference" and precision == "bfloat16":
            raise UsageError("the reference computes in float64: reference@bfloat16. Leave @ out.")
        return cls(kind, 1, 1, precision)  # type: ignore[arg-type]

    def __str__(self) -> str:
        name = str(self.kind)
        if self.kind == "cpu" and self.processes > 1:
            name += f":{self.processes}x{self.threads or 1}"
        elif self.kind == "cpu" and self.threads:
            name += f":{self.threads}"
        elif self.kind == "cuda" and self.processes > 1:
            name += f":{self.processes}"
        return name if self.precision == "auto" else f"{name}@{self.precision}"

    @property
    def parallel(self) -> bool:
        """Whether more than one core computes: a GPU, several threads or processes."""
        if self.kind == "cpu":
            return self.processes * (self.threads or cores()) > 1
        return self.kind != "reference"

    @property
    def device(self) -> str:
        """The torch device type: ``cpu``, ``cuda`` or ``mps``."""
        return "cpu" if self.kind == "reference" else self.kind

    def resolved(self) -> Place:
        """The same place with its threads filled in, if it exists here.

        Raises
        ------
        PlaceUnavailable
        """
        if self.kind in ("reference", "cpu"):
            if self.processes > 1 and not self.threads:
                return replace(self, threads=max(1, cores() // self.processes))
            return self if self.threads else replace(self, threads=cores())
        import torch

        if self.kind == "cuda":
            have = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if have < self.processes:
                raise PlaceUnavailable(
                    f"no such place here: {self}, {have} GPUs are seen. "
                    "Use --on cpu, or look at hilum doctor."
                )
        elif not torch.backends.mps.is_available():
            raise PlaceUnavailable(f"no such place here: {self}. Use --on cpu.")
        return self


def best_place() -> Place:
    """The best place here: a GPU where torch sees one, else all cores of the CPU.

    ``mps`` is for who names it: nobody has tried hilum on one.
    """
    import torch

    if torch.cuda.is_available():
        return Place("cuda", 1, 1).resolved()
    return Place("cpu").resolved()


def cores() -> int:
    """Cores that this process may use: the affinity mask, cut by the cgroup's quota."""
    try:
        granted = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        granted = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(granted, int(quota) if quota >= 1 else 1) if quota else granted)


def _cgroup_quota() -> float:
    """Cores by the least quota, 0 where there is none (v2 ``cpu.max``, v1 ``cfs_quota``)."""
    quotas = []
    for folder in _control_groups("cpu"):
        for quota_file, period_file in (("cpu.max", ""), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                words = (folder / quota_file).read_text().split()
                words += (folder / period_file).read_text().split() if period_file else []
                quotas.append(int(words[0]) / int(words[1]))  # v2 says max, v1 -1, for none
            except (OSError, ValueError):
                continue
    return min((quota for quota in quotas if quota > 0), default=0.0)


def _control_groups(controller: str) -> list[Path]:
    """The folders whose limits hold for this process: of its control group (v2, or v1's of that
    controller) and of all above it. A container often sees its own as the root."""
    roots = {"": CGROUPS, controller: CGROUPS / controller}
    folders = list(roots.values())
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, names, path = line.split(":", 2)
        for name in set(names.split(",")) & set(roots):
            own = roots[name] / path.strip("/")
            folders += [f for f in (own, *own.parents) if f.is_relative_to(roots[name])]
    return folders


def own_environment() -> dict[str, str]:
    """This process's environment without what a launcher has set, for a process that it starts:
    that is not one of the launcher's."""
    return {name: value for name, value in os.environ.items() if name not in LAUNCHERS}


def launched() -> bool:
    """Whether a launcher, torchrun or a run of hilum's own, started this process among several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def free_cores(seconds: float = 0.2) -> float:
    """Cores that are idle right now, measured over ``seconds``; all of them where unknown."""

    def jiffies() -> tuple[int, int]:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    try:
        total0, idle0 = jiffies()
        time.sleep(seconds)
        total1, idle1 = jiffies()
    except (OSError, ValueError, IndexError):
        return float(cores())
    share = (idle1 - idle0) / max(1, total1 - total0)
    return min(float(cores()), share * (os.cpu_count() or 1))


def thread_settings(threads: int) -> dict[str, str]:
    """The environment that gives a process to be started so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def set_threads(threads: int) -> None:
    """Set the number of threads of every maths library, loaded or still to be loaded."""
    os.environ.update(thread_settings(threads))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def set_torch_threads(threads: int) -> None:
    """Torch's operators that the calling thread runs are computed in so many threads."""
    import torch

    torch.get_num_threads()  # a thread's first operator takes what another has set last
    torch.set_num_threads(threads)


@contextmanager
def torch_threads(threads: int) -> Iterator[int]:
    """For a while, torch's own operators run in so many threads; yields how many it was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """For a while, scikit-learn's OpenMP loops run in one thread.

    They are short here, and threads that wait for each other at the end of each loop take twenty
    times as long on a machine with other work.
    """
    import sklearn.ensemble  # only what is loaded can be told  # noqa: F401
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(1, user_api="openmp"):
        yield


def default_threads() -> None:
    """Before numpy loads: the granted cores, unless the user chose a number by environment."""
    if "OMP_NUM_THREADS" not in os.environ:
        set_threads(cores())


@cache
def processor() -> str:
    """The CPU's model name and, since it may stand for several speeds, what it computes with."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    names = {"avx512f": "AVX-512", "avx512_bf16": "bfloat16", "amx_bf16": "AMX"}
    vectors = [said for flag, said in names.items() if flag in cpu_flags()]
    if not vectors and "avx2" in cpu_flags():
        vectors = ["AVX2"]
    return f"{name} ({', '.join(vectors)})" if vectors else name


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU by the kernel's names; empty where unknown."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(field: str) -> str:
    """What Linux says of the first processor; empty where unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, cut by the cgroup's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                total = min(total, int((folder / name).read_text()))
            except (OSError, ValueError):
                continue
    return total


def cache_folder() -> Path:
    """Where decoded films are kept: ``$HILUM_CACHE``, else the platform's cache folder."""
    chosen = os.environ.get("HILUM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("hilum"))


def config_folder() -> Path:
    """Where the key for patient hashes lives: ``$HILUM_CONFIG``, else the platform's folder."""
    chosen = os.environ.get("HILUM_CONFIG")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_config_dir("hilum"))
