"""The ways of parallel training that the paper's literature names, measured on this machine.

    python benchmarks/parallelism/run.py                        # everything, eight to ten minutes
    python benchmarks/parallelism/run.py --quick                # a look, under a minute
    python benchmarks/parallelism/run.py --parts step,learn-0   # some of it; parts are kept
    python benchmarks/parallelism/run.py --record               # and put what there is under docs/

Groups of processes of one thread each, joined by gloo over loopback; most have two processes. Each
part leaves ``.bench/parallelism/PART.json``; ``--record`` merges those that there are, of this
call or earlier ones, into ``docs/records/parallelism/`` and ``docs/parallelism.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from hilum import machine

machine.set_threads(1)  # before torch loads: a process is one thread

from measure import PARTS, SEEDS, Scale, step, surroundings  # noqa: E402

from hilum.storage import write_json  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / ".bench" / "parallelism"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", help=f"some of them, by commas: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller, fewer, one seed")
    parser.add_argument("--record", action="store_true", help="keep what there is under docs/")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # the folder of films, for `link`
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(step(Scale(Path(given.inside), given.quick))))
        return
    left_out = [f"{part}-{s}" for part in ("learn", "stale") for s in SEEDS[1:]]
    usual = [name for name in PARTS if not (given.quick and name in left_out)]
    names = given.parts.split(",") if given.parts else usual
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}. There are: {', '.join(PARTS)}.")
    kept = KEPT / "quick" if given.quick else KEPT
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hilum-parallelism-") as folder:
        for name in names:
            around, begun = surroundings(), time.perf_counter()
            found = PARTS[name](Scale(Path(folder), given.quick))
            taken = time.perf_counter() - begun
            write_json(kept / f"{name}.json", {**found, "took_s": round(taken, 1), **around})
            print(f"{name}: {taken:.0f} s, load {around['load_average']}", file=sys.stderr)
    sys.path.append(str(ROOT / "benchmarks"))  # what all benchmarks share
    from record import page, record

    there = {name: kept / f"{name}.json" for name in usual}
    parts = {n: json.loads(p.read_text("utf-8")) for n, p in there.items() if p.exists()}
    if given.record:
        record(parts, [n for n in usual if n not in parts], ROOT / "docs", quick=given.quick)
    print("\n\n".join(page(parts).values()))


if __name__ == "__main__":
    main()
