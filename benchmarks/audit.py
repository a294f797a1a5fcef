"""How the audit's time and memory grow with the number of films.

    python benchmarks/audit.py --films 1000 5000 20000 --out docs/records/audit/scaling.csv

Draws made-up films of 96 × 120 pixels (about 10 ms each) and audits them in a process of its own,
with one and with two reading processes. Peak memory is that of the audit's own process; a reading
process takes about as much whatever the number of films. On a busy machine the seconds of the clock
say little; those of the processor (``cpu``) hold.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = ("looking", "comparing", "probing", "reporting", "total", "own_cpu", "readers_cpu")
_RUN = """
import json, resource, sys
from hilum.audit.audit import audit
from hilum.datasets.index import open_data
found = audit(open_data(sys.argv[1], draw=False), out=sys.argv[2], workers=int(sys.argv[3]))
own, readers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({**found.seconds, "groups": len(found.groups),
                  "flagged": len(found.probing.flagged),
                  "own_cpu": own.ru_utime + own.ru_stime, "peak": own.ru_maxrss / 1024,
                  "readers_cpu": readers.ru_utime + readers.ru_stime}))
"""


def measured(folder: Path, workers: int) -> dict[str, float]:
    """One audit in a fresh interpreter: seconds of each step, and its peak memory in MiB."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        told = subprocess.run(
            [sys.executable, "-c", _RUN, str(folder), f"{out}/audit", str(workers)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return {**json.loads(told), "total": time.perf_counter() - start}


def main() -> None:
    """Draw, audit, write the table."""
    from hilum.datasets import phantom
    from hilum.machine import processor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--folder", type=Path, help="where films are drawn, and kept")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    base = chosen.folder or Path(tempfile.mkdtemp())
    rows = []
    for films in chosen.films:
        folder = base / f"n{films}"
        if not folder.exists():
            phantom.make(folder, films=films, size=(96, 120), seed=films)
        for workers in (1, 2):
            found = measured(folder, workers)
            load = os.getloadavg()[0]
            rows.append(
                [films, workers, *(f"{found[k]:.1f}" for k in SECONDS),
                 f"{found['peak']:.0f}", found["groups"], found["flagged"], f"{load:.1f}",
                 processor()]
            )  # fmt: skip
            print(rows[-1], flush=True)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    with chosen.out.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            ["films", "processes", *(f"{k}_s" for k in SECONDS), "peak_mib", "groups_of_copies",
             "flagged", "load", "processor"]
        )  # fmt: skip
        table.writerows(rows)


if __name__ == "__main__":
    main()
