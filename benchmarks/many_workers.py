"""Data-parallel training on 2 to 1,024 workers: predicted, checked where it can be, written down.

    python benchmarks/many_workers.py             # docs/scaling.md's tables from what is recorded
    python benchmarks/many_workers.py --measure   # predict two processes and slowed networks, then
                                                  # measure them (root and iproute2; two minutes)
    python benchmarks/many_workers.py --record    # keep it: docs/records/scaling/, docs/scaling.md

The model is ``scaling_model.py`` (steps and epochs) and ``ring.py`` (an exchange over TCP);
``scaling_check.py`` measures beside it, ``scaling_page.py`` writes.
"""

from __future__ import annotations

import argparse
import json

from scaling_check import LINKS, beside, measure
from scaling_model import predictions, work_of
from scaling_page import OUT, RECORDS, record, tables

KIND = "avx512"  # of processor (sides.KINDS) that ``checked.json`` was measured on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure what is predicted")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and networks")
    given = parser.parse_args()
    kept = OUT / "checked.json"
    rounds, links = (2, list(LINKS)[::2]) if given.quick else (4, list(LINKS))
    found = measure(rounds, links) if given.measure else json.loads(kept.read_text("utf-8"))
    measured = beside(found)
    scaling = json.loads((RECORDS / "benchmarks" / KIND / "scaling.json").read_text("utf-8"))
    work = work_of(scaling, measured)
    rows = predictions(work)
    for name, text in tables(measured, rows).items():
        print(f"{name}\n{text}\n")
    if given.record:
        record(measured, work, rows)


if __name__ == "__main__":
    main()
