"""Wall time to the quality that the Keras recipe has after its ten epochs.

    python benchmarks/time_to_quality.py DATA --out FOLDER            # about an hour on two cores
    python benchmarks/time_to_quality.py DATA --out FOLDER --reuse    # keep the sides that are done
    python benchmarks/time_to_quality.py DATA --out FOLDER --quick    # a few films, an epoch: a try
    python benchmarks/time_to_quality.py DATA --out FOLDER --record   # keep the result under docs/

One split by patient and hash, made by ``hilum index``, serves all sides; so do the test films, as
they are and under shifts (``shifted.py``). A side's time runs from its start to its ready model,
imports, decoding and validation included, without the time to score the test films. The target is
what Keras has at its end: accuracy and AUROC on the plain test films, and the means of both over
the imitated shifts. A side reaches it when the means over its seeds reach all four. Shifts held out
from hilum's training and choices are shown beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sides
from hilum.datasets.manifest import Manifest
from hilum.evaluation.metrics import auroc
from hilum.training.recipe import Recipe
from hilum.training.shifts import SHIFTS
from shifted import HELD_OUT, make_sets
from sides import OWN, PEERS, Load

KERAS, RESNET, HILUM = "Keras's default", "ResNet-18 at 128 px", "hilum fast"
HALF = "hilum fast, half its epochs"  # what is enough for Keras's quality need not be all
OPTIONS = {HILUM: [], HALF: [f"--set=training.epochs={Recipe.load('fast').training.epochs // 2}"]}
GOALS = {KERAS: 50.0, RESNET: 3.0}
Quality = dict[str, float]


# --- the data -------------------------------------------------------------------------------------


def indexed(data: str, folder: Path, limit: int) -> Manifest:
    """The manifest ``films.csv`` by ``hilum index``, kept where it exists; some films by limit."""
    target = folder / "films.csv"
    if not target.exists():
        command = [str(OWN), "-m", "hilum", "index", data, "-o", str(target), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if limit:
            some(Manifest.read(target), limit).write(target)
    return Manifest.read(target)


def some(manifest: Manifest, limit: int) -> Manifest:
    """About ``limit`` films, as many of each part and class."""
    groups: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(manifest.part, np.asarray(manifest.label).tolist(), strict=True)):
        groups.setdefault(key, []).append(row)
    each = max(2, limit // len(groups))
    return manifest.select(np.sort(np.concatenate([rows[:each] for rows in groups.values()])))


def linked(manifest: Manifest, folder: Path) -> None:
    """FOLDER/PART/LABEL/NAME for the peers: links to the films."""
    if folder.exists():
        return
    for file, path, part, label in zip(
        manifest.files(), manifest.path, manifest.part, manifest.label, strict=True
    ):
        name = folder / part / str(int(label)) / path.replace("/", "_")
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(file.resolve())


# --- runs -----------------------------------------------------------------------------------------


def plan(given: argparse.Namespace) -> list[tuple[str, str]]:
    """(side, name of its result) in the order of running: the slow among hilum's seeds."""
    wanted = given.sides.split(",")
    mine = [
        (side, f"{name}-{seed}")
        for seed in range(given.seeds)
        for side, name in ((HILUM, "hilum"), (HALF, "half"))
        if name in wanted
    ]
    peers = [(KERAS, "keras")] if "keras" in wanted else []
    if "resnet18" in wanted:
        peers += [(RESNET, f"resnet18-{seed}") for seed in range(given.resnet_seeds)]
    return in_turn(mine, peers)


def in_turn(mine: list[tuple[str, str]], peers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A B A B, as far as there are both."""
    order = []
    for i in range(max(len(mine), len(peers))):
        order += mine[i : i + 1] + peers[i : i + 1]
    return order


def run(side: str, name: str, folder: Path, given: argparse.Namespace) -> None:
    """One run of a side in a process of its own; its words go to NAME.log."""
    tests, result = str(folder / "tests.npz"), str(folder / f"{name}.part")
    films, seed = str(folder / "films"), name.rpartition("-")[2]
    print(f"{name} ...", file=sys.stderr, flush=True)
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        began = str(time.time())
        if side == KERAS:
            python, script = sides.make_environment("keras"), "keras_quality.py"
            began = str(time.time())
            arguments = [films, tests, result, began, str(given.keras_epochs)]
        elif side == RESNET:
            python, script = OWN, "resnet18_quality.py"
            arguments = [films, tests, result, began, str(given.resnet_epochs), seed]
        else:
            python, script = OWN, "hilum_quality.py"
            manifest, out = str(folder / "films.csv"), str(folder / f"run-{name}")
            arguments = [manifest, tests, result, seed, out, "--quiet", *OPTIONS[side]]
            arguments += [f"--set={change}" for change in given.set]
        command = [str(python), str(PEERS / script), *arguments]
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"benchmark: {name} has failed; see {folder / name}.log.")
    Path(result).replace(folder / f"{name}.jsonl")  # only what has finished bears the name
    last = lines_of(folder / f"{name}.jsonl")[-1]
    print(f"{name}: {last['seconds']:.1f} s", file=sys.stderr, flush=True)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# --- what came out --------------------------------------------------------------------------------


def judged(
    scores: Mapping[str, Sequence[float]], label: NDArray[np.int8], threshold: float
) -> dict[str, Quality]:
    """Accuracy and AUROC on each set; ``shifted`` and ``held out`` are means over their sets."""
    found = {}
    for name, values in scores.items():
        score = np.asarray(values)
        accuracy = float(((score >= threshold) == (label == 1)).mean())
        found[name] = {"accuracy": accuracy, "auroc": float(auroc(label, score))}
    for name, group in (("shifted", SHIFTS), ("held out", HELD_OUT)):
        if all(one in found for one in group):
            found[name] = mean([found[one] for one in group])
    return found


def mean(qualities: Sequence[Quality]) -> Quality:
    return {k: statistics.fmean(q[k] for q in qualities) for k in ("accuracy", "auroc")}


def reaches(found: Mapping[str, Quality], target: Mapping[str, Quality], shifted: str) -> bool:
    """Accuracy and AUROC, on plain films and on the set ``shifted``."""
    return all(
        found[name][k] >= target[name][k]
        for name in ("plain", shifted)
        for k in ("accuracy", "auroc")
    )


def summary(runs: list[list[dict[str, Any]]], label: NDArray[np.int8]) -> dict[str, Any]:
    """A side's runs: seconds and quality of each, and the mean over them; epochs likewise.

    Parameters
    ----------
    runs : the lines of each run's result file, the last one ``finished``
    label : (n,) of the test films
    """
    each = [
        {
            **{k: v for k, v in lines[-1].items() if k not in ("scores", "finished")},
            "quality": rounded(judged(lines[-1]["scores"], label, lines[-1]["threshold"])),
        }
        for lines in runs
    ]
    epochs = []
    for at in zip(*(lines[:-1] for lines in runs), strict=False):
        quality = [judged(line["scores"], label, 0.5) for line in at]
        epochs.append(
            {
                "epoch": at[0]["epoch"],
                "seconds": round(statistics.fmean(line["seconds"] for line in at), 2),
                **rounded({name: mean([q[name] for q in quality]) for name in quality[0]}),
            }
        )
    names = each[0]["quality"]
    return {
        "seconds": round(statistics.fmean(one["seconds"] for one in each), 2),
        "quality": rounded({name: mean([one["quality"][name] for one in each]) for name in names}),
        "runs": each,
        "epochs": epochs,
    }


def rounded(found: Mapping[str, Quality]) -> dict[str, Quality]:
    return {name: {k: round(v, 5) for k, v in quality.items()} for name, quality in found.items()}


def against(entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Say who reached Keras's quality, and when; the ratios of times to hilum's."""
    target = entries.get(KERAS, {}).get("quality")
    for entry in entries.values():
        if target is None:
            continue
        entry["reached"] = reaches(entry["quality"], target, "shifted")
        entry["first_epoch"] = next(
            ({k: e[k] for k in ("epoch", "seconds")} for e in entry["epochs"]
             if reaches(e, target, "mixed")), None,
        )  # fmt: skip
    return [
        {
            "of": name,
            "over": mine,
            **sides.spread([entries[name]["seconds"] / one["seconds"] for one in runs]),
            "goal": goal,
            "reached": entries[name]["reached"],
        }
        for mine, runs in ((side, entries.get(side, {}).get("runs", [])) for side in OPTIONS)
        if runs and entries[mine].get("reached")
        for name, goal in GOALS.items()
        if name in entries
    ]


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    heads = ("plain", "shifted", "held out")
    lines = [
        "| side | wall time, s | " + " | ".join(f"{h}: accuracy, AUROC" for h in heads)
        + " | reached | first epoch that did |",
        "|---|---:|" + "---:|" * len(heads) + "---|---:|",
    ]  # fmt: skip

    def cells(seconds: float, quality: Mapping[str, Quality]) -> str:
        pairs = [f"{quality[h]['accuracy']:.3f}, {quality[h]['auroc']:.3f}" for h in heads]
        return f"{seconds:,.1f} | " + " | ".join(pairs)

    for name, entry in result["sides"].items():
        first = entry.get("first_epoch")
        when = f"{first['epoch']}, at {first['seconds']:,.1f} s" if first else "none"
        verdict = {True: "yes", False: "no", None: ""}[entry.get("reached")]
        runs = entry["runs"]
        label = f"{name}, mean of {len(runs)} seeds" if len(runs) > 1 else name
        lines.append(f"| {label} | {cells(entry['seconds'], entry['quality'])} "
                     f"| {verdict} | {when} |")  # fmt: skip
        if len(runs) > 1:
            lines += [
                f"| · seed {one['seed']} | {cells(one['seconds'], one['quality'])} | | |"
                for one in runs
            ]
    lines.append("")
    if result["ratios"]:
        lines += sides.ratio_table(
            {**r, "of": f"{r['of']}{'' if r['reached'] else ' (not reached)'}"}
            for r in result["ratios"]
        )
    else:
        lines.append("No ratio: there is no target, or hilum has not reached it.")
    films = result["films"]
    versions = [one for entry in result["sides"].values() for one in entry["runs"]]
    lines += [
        "",
        f"{sides.footer(result, versions)}; {films['train']:,} films to learn from, "
        f"{films['validation']:,} to validate, {films['test']:,} to test; Keras "
        f"{result['keras_epochs']} epochs, ResNet-18 {result['resnet_epochs']}"
        + (f"; of an earlier run: {', '.join(result['reused'])}." if result["reused"] else "."),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="whatever hilum index takes; no test part of its own")
    parser.add_argument("--out", type=Path, required=True, help="where runs and results go")
    parser.add_argument(
        "--sides", default="hilum,half,keras,resnet18", help="some of them, by commas"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of hilum")
    parser.add_argument("--resnet-seeds", type=int, default=1)
    parser.add_argument("--resnet-epochs", type=int, default=6)
    parser.add_argument("--keras-epochs", type=int, default=10)
    parser.add_argument("--reuse", action="store_true", help="keep the results that are there")
    parser.add_argument("--quick", action="store_true", help="few films, one epoch: a try")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    parser.add_argument("--limit", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given = argparse.Namespace(
            **{**vars(given), "seeds": 1, "resnet_epochs": 1, "keras_epochs": 1},
        )
        given.limit = given.limit or 96
        given.record = False  # what few films say is worth no record
    folder = given.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = plan(given)
    there = [name for _, name in jobs if (folder / f"{name}.jsonl").exists()]
    if there and not given.reuse:
        parser.error(f"results are there: {', '.join(there)}. Keep them with --reuse, or choose "
                     "another --out.")  # fmt: skip
    manifest = indexed(given.data, folder, given.limit)
    linked(manifest, folder / "films")
    if not (folder / "tests.npz").exists():
        make_sets(manifest.of_part("test"), folder / "tests.npz")
        os.sync()  # or the first side would run beside the writing of half a gigabyte
    load, before = Load(), sides.matrix_products()
    for number, (side, name) in enumerate(jobs):
        if name not in there:
            run(side, name, folder, given)
        load.round_ended(number, len(jobs))
    label = np.load(folder / "tests.npz")["label"]
    entries = {}
    for side in (KERAS, RESNET, *OPTIONS):
        runs = [lines_of(folder / f"{name}.jsonl") for one, name in jobs if one == side]
        if runs:
            entries[side] = summary(runs, label)
    result = {
        "what": "seconds from start to a ready model, and its quality on the drawn test part",
        **sides.about_machine(),
        "load_average": load.entry(),
        "gemm": [before, sides.matrix_products()],
        "films": {part: manifest.part.count(part) for part in ("train", "validation", "test")},
        "manifest": manifest.digest,
        "keras_epochs": given.keras_epochs,
        "resnet_epochs": given.resnet_epochs,
        "reused": there,
        "shifts": {"shifted": list(SHIFTS), "held out": list(HELD_OUT)},
        "ratios": against(entries),
        "sides": entries,
    }
    print(table(result))
    (folder / "result.json").write_text(json.dumps(result, indent=1), "utf-8")
    if given.record:
        sides.record(result, "time-to-quality", {"time-to-quality": table})


if __name__ == "__main__":
    main()
