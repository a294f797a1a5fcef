"""How often does a start die: the paper's network from many seeds, in each precision.

    python benchmarks/starts.py DATA --seeds 100:400
    python benchmarks/starts.py DATA --seeds 100:400 --precisions float32 --record
    python benchmarks/starts.py DATA --seeds 176,177 --record     # these again, among the others

Each start learns for one epoch; one that answers every validation film alike after it goes on until
it tells them apart. A start has died where it does not within the recipe's ten epochs: its ReLUs
have gone silent, and nothing brings them back. What the precisions have learnt after one epoch is
compared over the seeds that they share, as ``hilum compare`` does. One process for each precision,
with one thread: what is learnt does not depend on threads. ``--record`` keeps every start and the
rates with their intervals in ``docs/records/alike/starts.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum import heap, machine
from hilum.datasets.index import open_data
from hilum.experiments.compare.agreement import compare_runs
from hilum.machine import Place
from hilum.training.backends import make_learner
from hilum.training.learner import class_weights
from hilum.training.loop import Epoch, fit, steps_in_epoch
from hilum.training.parts import Films, open_films
from hilum.training.recipe import Recipe
from hilum.training.schedule import LearningRate

RECORD = Path(__file__).parents[1] / "docs/records/alike/starts.json"
SCORES = ("loss", "val_accuracy", "val_auroc")  # of a start's first epoch
ALIKE = 1e-3  # the logits' standard deviation below which every film is answered alike


class Learns(Exception):
    """The network tells films apart: enough is known of this start."""


def start(recipe: Recipe, parts: tuple[Films, Films], precision: str) -> dict[str, Any]:
    """What became of one start."""
    weights = class_weights(parts[0].labels, recipe.training.class_weights)
    learner = make_learner(recipe, Place.parse(f"cpu:1@{precision}"), weights)
    learner.warm_up(*parts, 0)
    epochs: list[Epoch] = []

    def ended(epoch: Epoch) -> None:
        epochs.append(epoch)
        if learner.logits(parts[1], recipe.preprocessing.size).std() > ALIKE:
            raise Learns

    died = True
    try:
        rate = LearningRate(recipe, steps_in_epoch(len(parts[0]), recipe))
        fit(learner, recipe, *parts, rate=rate, ended=ended)
    except Learns:
        died = False
    first = {name: round(getattr(epochs[0], name), 4) for name in SCORES}
    return {"seed": recipe.training.seed, **first, "epochs": len(epochs), "died": died}


def worker(data: str, size: int, precision: str, seeds: list[int]) -> None:
    """One line of JSON for each start, as soon as its end is known."""
    heap.keep()
    machine.set_threads(1)
    recipe = Recipe.load("paper2021", [f"preprocessing.size={size}"])
    _, parts = open_films(open_data(data), recipe)
    for seed in seeds:
        seeded = replace(recipe, training=replace(recipe.training, seed=seed))
        print(json.dumps(start(seeded, parts, precision)), flush=True)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Starts that died or learnt late, and the deaths' 95 % interval (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    died = [row["seed"] for row in rows if row["died"]]
    low, high = binomtest(len(died), len(rows)).proportion_ci(0.95)
    return {
        "starts": len(rows),
        "died": died,
        "alike_after_one_epoch": [row["seed"] for row in rows if row["epochs"] > 1],
        "loss_above_0.6": sum(row["loss"] > 0.6 for row in rows),
        "died_low": round(low, 4),
        "died_high": round(high, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of films, or a manifest")
    parser.add_argument("--seeds", default="100:400", metavar="FROM:TO|A,B,...")
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--record", action="store_true", help=f"add to {RECORD.name}")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        first, colon, end = given.seeds.partition(":")
        seeds = range(int(first), int(end)) if colon else map(int, first.split(","))
        return worker(given.data, given.size, given.precisions[0], list(seeds))
    again = [sys.executable, __file__, given.data, "--worker", "--size", str(given.size)]
    again += ["--seeds", given.seeds, "--precisions"]

    def run(precision: str) -> list[dict[str, Any]]:
        done = subprocess.run([*again, precision], stdout=subprocess.PIPE, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(run, given.precisions))
    record = json.loads(RECORD.read_text()) if given.record and RECORD.exists() else {}
    for precision, new in zip(given.precisions, found, strict=True):
        kept = {row["seed"]: row for row in record.get(precision, {}).get("each", [])}
        kept |= {row["seed"]: row for row in new}
        rows = [kept[seed] for seed in sorted(kept)]
        record[precision] = {"size": given.size, **summary(rows), "each": rows}
        shown = {key: value for key, value in record[precision].items() if key != "each"}
        print(f"{precision}: {json.dumps(shown)}")
    if {"float32", "bfloat16"} <= record.keys():
        one, two = (
            {row["seed"]: [{**row, "val_loss": None}] for row in record[precision]["each"]}
            for precision in ("float32", "bfloat16")
        )
        record["bfloat16 less float32"] = {
            name: found.as_dict() for name, found in compare_runs(one, two).items()
        }
        for name, found in record["bfloat16 less float32"].items():
            print(f"{name}: {json.dumps(found)}")
    if given.record:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
