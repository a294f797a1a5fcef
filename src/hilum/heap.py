"""The memory that a training keeps, and how it lies: in huge pages, where Linux gives them."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
from functools import cache
from pathlib import Path
from threading import current_thread, main_thread

from hilum import machine

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def keep() -> bool:
    """Let glibc keep freed memory, in huge pages, instead of giving each large tensor back.

    Without it a training step of the paper's network takes half a million page faults. Returns
    whether the allocator took the setting (glibc only). Works at any time, for what is
    allocated afterwards; huge pages are taken by a program's main thread alone, whose heap it is.
    Constants: ``malloc.h`` (M_TRIM_THRESHOLD -1, where -1 stands for never; M_TOP_PAD -2,
    M_MMAP_MAX -4).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    taken = [libc.mallopt(-4, 0), libc.mallopt(-1, -1), libc.mallopt(-2, 64 << 20)]
    if all(taken) and current_thread() is main_thread():
        _take_huge_pages()
    return all(taken)


def give_back() -> None:
    """Give the kernel what glibc keeps of freed memory: others need it now."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _take_huge_pages() -> None:
    """Grow the heap, untouched, by half the memory, and ask for it in huge pages (Linux); once.

    Where a process walks through much memory the processor looks pages of 4 KiB up again and
    again, which takes longest on virtual machines (docs/benchmarks.md). glibc asks for larger ones
    only when told at its start (its tunable ``glibc.malloc.hugetlb``). Half, since the kernel
    refuses more than there is, and glibc leaves a heap that was refused.
    """
    if _addresses_count() or _is_filled():
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page, size = os.sysconf("SC_PAGE_SIZE"), machine.memory_bytes() // 2
    begin = libc.malloc(size)
    if begin:
        libc.madvise(-(-begin // page) * page, size - page, 14)  # MADV_HUGEPAGE of mman.h
        libc.free(begin)


def _addresses_count() -> bool:
    """Whether addresses count as memory: under a limit of them, or without overcommitment; so they
    may where the kernel does not say."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return True
    return strict or any(limit != resource.RLIM_INFINITY for limit in limits)


def _is_filled() -> bool:
    """Whether glibc writes to all memory that it gives, to find defects (``MALLOC_PERTURB_``)."""
    return "MALLOC_PERTURB_" in os.environ or "perturb" in os.environ.get("GLIBC_TUNABLES", "")


def huge_pages() -> str | None:
    """To whom Linux gives huge pages: ``always``, ``madvise`` (who asks) or ``never``; None where
    it has none."""
    try:
        chosen = re.search(r"\[(\w+)\]", HUGE_PAGES.read_text())
    except OSError:
        return None
    return chosen[1] if chosen else None
