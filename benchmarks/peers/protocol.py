"""What a side of a benchmark and the script that asks it say to each other, a line at a time.

A side says hello with one line of JSON, then answers each number k on its standard input with the
milliseconds of k steps and the processor time that they took. Standard library alone: it is also
read in the peers' own environments.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(hello: dict[str, Any], step: Callable[[], object]) -> None:
    """Answer until the input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print goes elsewhere
    print(json.dumps(hello), file=out, flush=True)
    for line in sys.stdin:
        times = []
        cpu = time.process_time()
        for _ in range(int(line)):
            began = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - began))
        cpu_ms = 1e3 * (time.process_time() - cpu)
        print(json.dumps({"ms": times, "cpu_ms": cpu_ms}), file=out, flush=True)
