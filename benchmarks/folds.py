"""Rules for an operating point, judged on films that were held out of the training part.

    python benchmarks/folds.py DATA --out FOLDER             # train, score, judge the rules
    python benchmarks/folds.py DATA --out FOLDER --record    # keep it: docs/records/fast/folds.csv

DATA's test part is never opened. Its training part is cut into folds of whole patients; for each
fold a model learns from the others, and its thresholds are chosen on the validation part by every
rule. The films of the fold, which no choice of that model has seen, then say what a rule keeps:
as they are, and under shifts that hilum neither trains nor chooses on (``shifted.py``).
Runs that are in FOLDER are not made again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hilum
from hilum import machine
from hilum.datasets.cache import Cache
from hilum.datasets.index import open_data
from hilum.datasets.manifest import Manifest
from hilum.datasets.split import place
from hilum.decision import Calibration, OperatingPoint, decide
from hilum.evaluation import thresholds
from hilum.evaluation.metrics import auroc, cells, rates
from hilum.evaluation.thresholds import Choice
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.inference.engine import Engine
from hilum.training.finish import validation_choice
from hilum.training.parts import Films, films_of
from hilum.training.recipe import Recipe
from hilum.training.shards import Team
from shifted import HELD_OUT, SIZE, hold_out

RECORD = Path(__file__).parents[1] / "docs/records/fast/folds.csv"
FOLDS = 5
Logits = dict[str, NDArray[np.float32]]

#: Rule and options by the name that the table calls them.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "equal rates": ("equal_rates", {}),
    **{f"equal costs, a miss counts {k:g}": ("equal_costs", {"miss": k})
       for k in (1.25, 1.5, 2.0, 3.0)},
    "youden": ("youden", {}),
    "accuracy": ("accuracy", {}),
    "probability = prevalence": ("probability", {}),
    **{f"recall at least {k:g}": ("recall_at_least", {"recall": k}) for k in (0.97, 0.98, 0.99)},
}  # fmt: skip


def fold_of(patient: str) -> int:
    return int(place(patient, "fold", "hilum") * FOLDS)


def trained(manifest: Manifest, fold: int, seed: int, folder: Path, on: list[str]) -> Path:
    """The run that has not seen the fold: its films stand as the test part."""
    run, films = folder / f"run-{fold}-{seed}", folder / f"fold-{fold}.csv"
    if not (run / "model.hilum" / "bundle.json").exists():
        part = [
            "test" if p == "train" and fold_of(who) == fold else p
            for p, who in zip(manifest.part, manifest.patient, strict=True)
        ]
        replace(manifest, part=tuple(part)).write(films)
        command = [sys.executable, "-m", "hilum", "train", str(films), "--seed", str(seed)]
        subprocess.run([*command, *on, "--out", str(run), "--quiet"], check=True)
    return run


def held_out_logits(engine: Engine, manifest: Manifest, films: Films, size: int) -> Logits:
    """The same films under the shifts that hilum knows nothing of."""
    large = Cache.fill(manifest, Preprocessing(SIZE))
    pixels = large.of(np.arange(len(manifest)))
    found = {}
    for name in HELD_OUT:
        moved = hold_out(pixels, films.identity, name)
        small = np.stack([preprocess(hilum.read(film), Preprocessing(size)) for film in moved])
        found[name] = engine.run(small)[0]
    return found


def scored(run: Path) -> tuple[Choice, NDArray[np.int8], Logits]:
    """The choice that the run's thresholds are made on; labels and logits of the fold's films."""
    model, manifest = hilum.load(run), Manifest.read(run / "films.csv")
    recipe = Recipe.load(run / "recipe.toml")
    size = recipe.preprocessing.size
    cache = Cache.fill(manifest, recipe.preprocessing)
    validation = films_of(manifest, cache, "validation")
    team = Team(machine.cores(), machine.cores())
    choice = validation_choice(model.bundle, recipe, manifest, cache, validation, team)
    fold = films_of(manifest, cache, "test")
    logits = {"plain": model.engine.run(fold.pixels[fold.rows])[0]}
    logits |= held_out_logits(model.engine, manifest.of_part("test"), fold, size)
    return choice, np.asarray(fold.labels), logits


def judged(choice: Choice, label: NDArray[np.int8], logits: Logits) -> list[dict[str, Any]]:
    """A row for each rule: its threshold, and its rates on each set of the fold."""
    calibration = thresholds.calibrate(choice)
    rows = []
    for name, (rule, options) in RULES.items():
        point = thresholds.choose(choice, calibration, "balanced", rule, **options)
        row: dict[str, Any] = {"rule": name, "threshold": point.threshold}
        for condition, logit in logits.items():
            kept = rates_at(point, calibration, label, logit)
            row |= {f"{condition}_{name}": value for name, value in kept.items()}
        rows.append(row)
    return rows


def rates_at(
    point: OperatingPoint,
    calibration: Calibration,
    label: NDArray[np.int8],
    logit: NDArray[np.float32],
) -> dict[str, float]:
    decision = decide(calibration.probability(logit), point)
    rate = rates(cells(label, decision).sum(0))
    kept = {k: float(rate[k]) for k in ("recall", "specificity", "accuracy")}
    return {**kept, "auroc": float(auroc(label, logit))}


def summary(rows: list[dict[str, Any]]) -> None:
    """Means over folds and seeds: plain, and over the held-out shifts."""
    heads = ("recall", "specificity", "accuracy", "auroc")
    print("rule", *(f"plain {h}" for h in heads), *(f"held out {h}" for h in heads), sep="\t")
    for name in RULES:
        mine = [row for row in rows if row["rule"] == name]
        plain = [statistics.fmean(row[f"plain_{h}"] for row in mine) for h in heads]
        moved = [statistics.fmean(row[f"{s}_{h}"] for row in mine for s in HELD_OUT) for h in heads]
        print(name, *(f"{v:.4f}" for v in (*plain, *moved)), sep="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of Kermany's films, or a manifest")
    parser.add_argument("--out", required=True, type=Path, help="for runs")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--on", help="the place (default: the best here)")
    parser.add_argument("--record", action="store_true", help="write docs/records/fast/folds.csv")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    whole = open_data(given.data)
    manifest = whole.select(np.array([p in ("train", "validation") for p in whole.part]))
    rows = []
    for fold in range(FOLDS):
        for seed in range(given.seeds):
            on = ["--on", given.on] if given.on else []
            run = trained(manifest, fold, seed, given.out.resolve(), on)
            choice, label, logits = scored(run)
            n = {"films": len(label), "positives": int(label.sum())}
            rows += [{"fold": fold, "seed": seed, **n, **r} for r in judged(choice, label, logits)]
            print(f"fold {fold}, seed {seed}: done", file=sys.stderr, flush=True)
    summary(rows)
    if given.record:
        with RECORD.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                             for row in rows)  # fmt: skip


if __name__ == "__main__":
    main()
