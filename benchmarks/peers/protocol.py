"""What a side of a benchmark and the script that asks it say to each other, a line at a time.

A side says hello with one line of JSON, then answers each line "K WORK" on its standard input with
the milliseconds of doing that work K times, each, and the processor time of all. A side of one
work alone needs no name for it. Standard library alone: it is also read in the peers' own
environments.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], object]


def serve(hello: dict[str, Any], works: Work | Mapping[str, Work]) -> None:
    """Answer until the input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print goes elsewhere
    print(json.dumps(hello), file=out, flush=True)
    for line in sys.stdin:
        count, *name = line.split()
        work = works if callable(works) else works[name[0]]
        times = []
        cpu = time.process_time()
        for _ in range(int(count)):
            began = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - began))
        cpu_ms = 1e3 * (time.process_time() - cpu)
        print(json.dumps({"ms": times, "cpu_ms": cpu_ms}), file=out, flush=True)
