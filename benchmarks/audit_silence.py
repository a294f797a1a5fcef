"""How often the audit flags a shortcut in made-up films that have none.

    python benchmarks/audit_silence.py --cohorts 60 --out docs/records/audit/silence.csv

Each cohort has its own patients, four fifths of them train, one fifth test. A row a cohort: the
highest AUROC and the highest lower end among its ``file`` probes, and how many were flagged.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from hilum.audit import probes
from hilum.audit.survey import survey
from hilum.datasets import phantom
from hilum.datasets.index import open_data
from hilum.films.workers import Workers


def main() -> None:
    """Draw, probe, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=60)
    parser.add_argument("--films", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    with chosen.out.open("w", encoding="utf-8", newline="") as stream, Workers(1) as workers:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["seed", "films", "highest_auroc", "highest_lower_end", "flagged"])
        for seed in range(1000, 1000 + chosen.cohorts):
            with tempfile.TemporaryDirectory() as base:
                folder = phantom.make(
                    Path(base) / "films", films=chosen.films, size=(96, 120), seed=seed
                )
                manifest = open_data(folder, draw=False)
                found = probes.probe(manifest, survey(manifest, workers))
            areas = [a for r in found.results if r.probe.kind == "file" for a in r.areas.values()]
            row = [seed, chosen.films, f"{max(a.value or 0 for a in areas):.3f}",
                   f"{max(a.low or 0 for a in areas):.3f}", len(found.flagged)]  # fmt: skip
            table.writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
