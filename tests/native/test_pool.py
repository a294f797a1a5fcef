"""The kernels' threads: every piece is done once, and a full memory is an error like others."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.native import library

# Each piece counts itself; those that are marked find no memory.
SOURCE = """
#include "{folder}/layers.hpp"
using namespace hilum;
EXPORT int visit(int pieces, int threads, const uint8_t* full, int* visits) {{
    return answer([&] {{
        Pool::run(pieces, threads, [&](Turn& turn) {{
            do {{
                Buffer<float> room(full[turn.piece] ? (size_t)1 << 60 : 1);
                visits[turn.piece]++;
            }} while (turn.next());
        }});
    }});
}}
"""
# In a process that has no room for the stack of another thread.
WITHOUT_THREADS = """
import ctypes, resource, sys
from hilum.native.library import Library
visit = Library(sys.argv[1]).visit
visits = (ctypes.c_int * 1000)()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 20), resource.RLIM_INFINITY))
visit(1000, 4, bytes(1000), visits)
print(set(visits))
"""
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("g++") is None,
    reason="needs Linux and g++",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        flags = library.flags(library.level())
    except library.Unavailable as why:
        pytest.skip(str(why))
    folder = tmp_path_factory.mktemp("pool")
    (folder / "pool.cpp").write_text(SOURCE.format(folder=library.FOLDER))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FOLDER", folder)
        library.compile_to(folder / "pool.so", "pool", flags)
    return folder / "pool.so"


@given(
    full=st.lists(st.sampled_from([False, False, False, True]), max_size=60),
    threads=st.integers(1, 5),
)
def test_a_piece_without_memory_ends_its_job_alone(
    built: Path, full: list[bool], threads: int
) -> None:
    visit = library.Library(str(built)).visit
    for marked in (full, [False] * len(full)):  # the next job of the same threads is whole
        visits = (ctypes.c_int * len(full))()
        if any(marked):
            with pytest.raises(MemoryError):
                visit(len(full), threads, bytes(marked), visits)
            assert all(n <= (not no) for n, no in zip(visits, marked, strict=True))
        else:
            visit(len(full), threads, bytes(marked), visits)
            assert list(visits) == [1] * len(full)


def test_work_is_done_by_fewer_threads_where_there_is_no_room_for_more(built: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS, built], capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, told.stdout) == (0, "{1}\n"), told.stderr
