"""The figures of a recipe over several seeds, as a newcomer would get them.

    python benchmarks/seeds.py DATA --out FOLDER                 # train and judge seeds 0 to 4
    python benchmarks/seeds.py DATA --out FOLDER --record        # keep them: docs/records/fast/
    python benchmarks/seeds.py DATA --out FOLDER --on cpu:2@float32

Each seed is one ``hilum train`` and one ``hilum evaluate`` on the part that it drew. A run that is
in FOLDER already (``run-hilum-N``, as ``time_to_quality.py`` leaves them) is judged and not made
again.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parents[1] / "docs/records/fast"
Row = dict[str, float]


def judged(data: str, seed: int, folder: Path, recipe: str, on: list[str]) -> Row:
    """One seed's metrics, each with its interval, and its AUROC under the imitated shifts."""
    run, evaluation = folder / f"run-hilum-{seed}", folder / f"judged-{seed}"
    hilum = [sys.executable, "-m", "hilum"]
    if not (run / "model.hilum").exists():
        recipe_and_seed = ["--recipe", recipe, "--seed", str(seed), *on]
        subprocess.run([*hilum, "train", data, *recipe_and_seed, "--out", str(run)], check=True)
    if not evaluation.exists():
        given = [str(run / "films.csv"), "--model", str(run), "--out", str(evaluation)]
        subprocess.run([*hilum, "evaluate", *given, "--quiet"], check=True)
    found = json.loads((evaluation / "metrics.json").read_text())["parts"]["test"][recipe]
    balanced, screening = (
        found["operating_points"][name]["answered"] for name in ("balanced", "screening")
    )
    estimates: dict[str, Any] = {
        "auroc": found["ranking"]["auroc"],
        **{name: balanced[name] for name in ("accuracy", "recall", "specificity")},
        **{f"screening_{name}": screening[name] for name in ("recall", "specificity")},
        **{name: found["calibration"][name] for name in ("calibration_slope", "brier")},
    }
    row: Row = {"seed": seed}
    for name, estimate in estimates.items():
        row |= {name: estimate["value"], f"{name}_low": estimate["low"]}
        row[f"{name}_high"] = estimate["high"]
    shifts = json.loads((run / "environment.json").read_text())["auroc_under_shifts"]
    under = [value for name, value in shifts.items() if name != "plain"]
    row["auroc_shifts_mean"], row["auroc_shifts_worst"] = statistics.mean(under), min(under)
    row["n"] = balanced["accuracy"]["n"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of Kermany's films, or a manifest")
    parser.add_argument("--out", required=True, type=Path, help="for runs and evaluations")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--on", help="the place (default: the best here)")
    parser.add_argument("--record", action="store_true", help="write seeds-PRECISION.csv")
    given = parser.parse_args()
    on = ["--on", given.on] if given.on else []
    rows = [judged(given.data, k, given.out, given.recipe, on) for k in range(given.seeds)]
    rounded = [{key: round(value, 4) for key, value in row.items()} for row in rows]
    shown = ("auroc", "accuracy", "recall", "specificity", "calibration_slope", "auroc_shifts_mean")
    print("seed", *shown, sep="\t")
    for row in rounded:
        print(row["seed"], *(row[name] for name in shown), sep="\t")
    print("mean", *(round(statistics.mean(r[name] for r in rows), 4) for name in shown), sep="\t")
    if given.record:
        run = given.out / "run-hilum-0/environment.json"
        precision = json.loads(run.read_text())["precision"]
        with (RECORDS / f"seeds-{precision}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rounded[0])
            writer.writeheader()
            writer.writerows(rounded)


if __name__ == "__main__":
    main()
