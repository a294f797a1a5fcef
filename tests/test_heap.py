from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

GIB = 2**30

#: What the kernel says of 64 MiB that a process has taken: flags of their pages, and what it holds.
KEEPS = """
import ctypes, re, resource, sys
from pathlib import Path
from hilum import heap
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), resource.RLIM_INFINITY))
held = lambda name: int(re.search(name + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = held("VmRSS")
kept = heap.keep() and heap.keep()  # once is enough
grown = held("VmRSS") - before
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
at = libc.malloc(64 << 20)
middle, flags = at + (32 << 20), ""
for line in Path("/proc/self/smaps").read_text().splitlines():
    if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
        inside = int(area[1], 16) <= middle < int(area[2], 16)
    elif inside and line.startswith("VmFlags"):
        flags = line
libc.free(at)
again = libc.malloc(64 << 20)
ctypes.memset(again, 1, 64 << 20)
libc.free(again)
left = held("VmRSS") - before
heap.give_back()
given = left - (held("VmRSS") - before)
print(int(kept), int("hg" in flags.split()), grown >> 10, int(again == at), left >> 10, given >> 10)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="asks glibc's allocator on a kernel that has huge pages",
)
@pytest.mark.parametrize(
    ("limit", "filled"),
    [(None, ""), (8 * GIB, ""), (None, "165")],
    ids=["free", "few addresses", "filled"],
)
def test_memory_is_kept_in_huge_pages_that_take_none_before_they_are_used(
    limit: int | None, filled: str
) -> None:
    given = [] if limit is None else [str(limit)]
    environment = {**os.environ, **({"MALLOC_PERTURB_": filled} if filled else {})}
    ran = subprocess.run(
        [sys.executable, "-c", KEEPS, *given],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept, huge, mebibytes, same, left, given_back = map(int, ran.stdout.split())
    strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    assert kept and same and mebibytes < 8
    assert left >= 64 and given_back >= 60
    assert huge == (limit is None and not filled and not strict)
