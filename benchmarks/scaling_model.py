"""Data-parallel training on 2 to 1,024 workers, on paper: from measured figures to epochs.

    python benchmarks/scaling_model.py             # docs/scaling.md's tables from what is recorded
    python benchmarks/scaling_model.py --measure   # predict two processes and slowed networks, then
                                                   # measure them (root and iproute2; two minutes)
    python benchmarks/scaling_model.py --record    # keep it: docs/records/scaling/, docs/scaling.md

The model knows nothing of hilum. A step is the computation of the worker's films, a line in their
number, and the exchange of gradients by a ring. Gradients come in two parts, as the engine sends
them: an early one, ready when the way back has hardly begun (the last layers, where nearly all of
this network's parameters lie), and a late one that nothing hides. What a real cluster adds (jitter,
stragglers, disks, switches that are shared) is left out: these are bounds for a quiet network.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sides

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "records"
OUT = RECORDS / "scaling"


@dataclass(frozen=True)
class Network:
    """What one worker sees of it.

    Attributes
    ----------
    bytes_a_second : of one worker's link, in each direction
    latency : seconds from one worker to the next, software included
    """

    name: str
    bytes_a_second: float
    latency: float


@dataclass(frozen=True)
class Work:
    """A training step on one worker.

    Attributes
    ----------
    fixed, film : seconds a step takes anyway, and for each of the worker's films
    backward : share of the step that is left when the way back begins (it can hide an exchange)
    early, late : bytes of gradients that are ready at its beginning, and only at its end
    start : seconds before the first step
    """

    fixed: float
    film: float
    backward: float
    early: float
    late: float
    start: float = 0.0


def exchange_seconds(workers: int, size: float, network: Network) -> float:
    """A ring all-reduce of ``size`` bytes: 2 (n - 1) messages of size / n, one after another.

    Each worker sends 2 (n - 1) / n times the bytes, whatever the number of workers (Patarasuk and
    Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002).
    """
    if workers == 1:
        return 0.0
    messages = 2 * (workers - 1)
    return messages * (network.latency + size / workers / network.bytes_a_second)


def step_seconds(workers: int, films: float, work: Work, network: Network) -> float:
    """One synchronous step, each worker with so many films.

    The early gradients travel during the way back and cost what is longer than it; the late ones
    travel when it is over.
    """
    computed = work.fixed + work.film * films
    early = exchange_seconds(workers, work.early, network)
    late = exchange_seconds(workers, work.late, network)
    return computed + max(0.0, early - work.backward * computed) + late


def epoch_seconds(
    workers: int, dataset: int, batch: int, work: Work, network: Network, start: bool = False
) -> float:
    """An epoch over ``dataset`` films in global batches of ``batch``; the fullest worker counts.

    Parameters
    ----------
    start : with the seconds before the first step
    """
    steps = math.ceil(dataset / batch)
    share = math.ceil(batch / workers)
    return steps * step_seconds(workers, share, work, network) + (work.start if start else 0.0)


def efficiency(workers: int, batch: int, work: Work, network: Network) -> float:
    """One worker's time for a batch over ``workers`` times their time: 1 wastes nothing."""
    alone = step_seconds(1, batch, work, network)
    share = math.ceil(batch / workers)
    return alone / workers / step_seconds(workers, share, work, network)


# Latency: half a small message's round trip through the software, not the wire's. Order of
# magnitude from vendors and textbooks; assumptions, not measured here.
NETWORKS = (
    Network("1 Gbit/s Ethernet", 1e9 / 8, 50e-6),
    Network("10 Gbit/s Ethernet", 10e9 / 8, 30e-6),
    Network("100 Gbit/s Ethernet", 100e9 / 8, 15e-6),
    Network("400 Gbit/s InfiniBand", 400e9 / 8, 3e-6),
)
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DATASETS = {"NIH ChestX-ray14, 112,120 films": 112_120, "100 million films": 100_000_000}
BATCH = 16
# The batch from which more films a step no longer save steps is not known for these data. Goyal et
# al. 2017 (https://arxiv.org/abs/1706.02677) kept ImageNet's accuracy up to 8,192.
LARGEST_BATCH = 8192
PRICE_CORE_HOUR, PRICE_GPU_HOUR = 0.05, 3.00  # assumptions, dollars
EPOCHS = 10


def work_of(scaling: dict[str, Any], network: dict[str, Any]) -> Work:
    """The paper's network on one core, from the records of ``scaling.py`` and ``--measure``."""
    curve = scaling["batch_line"]
    whole = scaling["gradient_bytes"]
    early = network["early_bytes"]
    return Work(
        fixed=max(0.0, curve["fixed"]) / 1e3,
        film=curve["each_batch"] / 1e3,
        backward=scaling["backward_share"],
        early=early,
        late=whole - early,
        start=network["start_seconds"],
    )


# --- prediction beside measurement --------------------------------------------------------------

# name: (Mbit/s, milliseconds that each packet is held back); 0 for none
LINKS = {
    "cable": (0, 0),
    "1,000 Mbit/s": (1000, 0),
    "200 Mbit/s": (200, 0),
    "100 Mbit/s": (100, 0),
    "50 Mbit/s": (50, 0),
    "20 ms held back": (0, 20),
    "100 ms held back": (0, 100),
}
SMALL, LARGE = 4, 1 << 23


def measure(rounds: int, links: list[str], steps: int = 2) -> dict[str, Any]:
    """Two processes on loopback and between two machines whose cable is slowed.

    What the model is given: the step of one process with half the batch beside a second process
    like it (two cores that work are slower than one that works alone), in the same minutes; the
    nominal rate and delay of the slowed cable; for what no setting slows, the all-reduce of 4
    bytes and of 8 MiB on the unslowed one. It never sees a step of the group that it predicts.
    """
    import time

    from machines import Trainees, two_machines
    from scaling import make_films

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-bench-"))
        films = make_films(Path(folder), "paper2021", 64)
        apart = stack.enter_context(Trainees("paper2021", "cpu:1", films, apart=2))
        alone: list[float] = []
        backward: list[float] = []

        def look_alone() -> None:
            answers = apart.ask(batch=BATCH // 2, steps=steps)
            slowest = max(answers, key=lambda answer: statistics.median(answer["ms"]))
            alone.append(statistics.median(slowest["ms"]))
            pairs = zip(slowest["backward_ms"], slowest["ms"], strict=True)
            backward.append(statistics.median(after / whole for after, whole in pairs))

        apart.ask(batch=BATCH // 2, steps=2)
        load: list[float] = []
        rows: list[dict[str, Any]] = []
        base: dict[str, float] = {}
        start = 0.0
        for title in links:
            megabits, milliseconds = LINKS[title]
            with ExitStack() as linked:
                inside, address = linked.enter_context(two_machines(megabits, milliseconds))
                began = time.perf_counter()
                pair = linked.enter_context(
                    Trainees("paper2021", "cpu:2x1", films, inside=inside, address=address)
                )
                pair.ask(batch=BATCH, steps=2)
                start = start or time.perf_counter() - began
                times: list[float] = []
                for _ in range(rounds):
                    look_alone()
                    load.append(os.getloadavg()[0])
                    times += pair.ask(batch=BATCH, steps=steps)[0]["ms"]
                if not base:
                    small, large = pair.ask(exchange=[SMALL, LARGE], times=8)[0]["ms"]
                    base = {
                        "latency": statistics.median(small) / 2e3,
                        "bytes_a_second": LARGE
                        / (statistics.median(large) - statistics.median(small))
                        * 1e3,
                    }
                    whole = pair.hello["gradient_bytes"]
            rows.append({"network": title, "megabits": megabits, "held_back_ms": milliseconds,
                         "ms": round(statistics.median(times), 1), "least": round(min(times), 1),
                         "most": round(max(times), 1)})  # fmt: skip
            print(rows[-1], file=sys.stderr)
    early = early_bytes()
    work = Work(statistics.median(alone) / 1e3, 0.0, statistics.median(backward), early,
                whole - early)  # fmt: skip
    for row in rows:
        rate = row["megabits"] * 1e6 / 8 or base["bytes_a_second"]
        network = Network(
            row["network"],
            min(rate, base["bytes_a_second"]),
            base["latency"] + row["held_back_ms"] / 1e3,
        )
        predicted = 1e3 * step_seconds(2, BATCH // 2, work, network)
        row["predicted_ms"] = round(predicted, 1)
        row["error"] = round(predicted / row["ms"] - 1, 3)
    return {
        "what": "a step of the paper's network in two processes, batch 16, predicted and measured",
        **sides.about_machine(),
        "rounds": rounds,
        "load_average": round(statistics.median(load), 2),
        "half_batch_ms": round(1e3 * work.fixed, 1),
        "backward_share": round(work.backward, 3),
        "early_bytes": early,
        "gradient_bytes": whole,
        "cable": {k: round(v, 6) for k, v in base.items()},
        "start_seconds": round(start, 1),
        "networks": rows,
    }


def early_bytes() -> int:
    """Bytes of the dense layers of the paper's network: the engine's first bucket."""
    from hilum.networks.build import build

    network = build("paper2021", 500)
    return sum(
        p.numel() * p.element_size()
        for p in network.parameters()
        if p.dim() != 4 and p.numel() > 64
    )


# --- tables -------------------------------------------------------------------------------------


def predictions(work: Work) -> list[dict[str, Any]]:
    """Epochs, efficiency and cost for all numbers of workers, networks and ways of growing."""
    rows = []
    for title, films in DATASETS.items():
        for network in NETWORKS:
            for workers in WORKERS:
                for way, batch in (("strong", 512), ("weak", BATCH * workers)):
                    seconds = epoch_seconds(workers, films, batch, work, network)
                    total = EPOCHS * seconds + work.start
                    rows.append({
                        "dataset": title, "network": network.name, "workers": workers,
                        "scaling": way, "batch": batch, "epoch_seconds": round(seconds, 2),
                        "efficiency": round(efficiency(workers, batch, work, network), 4),
                        "dollars": round(total * workers / 3600 * PRICE_CORE_HOUR, 2),
                        "beyond_largest_batch": batch > LARGEST_BATCH,
                    })  # fmt: skip
    return rows


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def tables(measured: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, str]:
    """Markdown by name of its place in docs/scaling.md."""
    checked = ["| network | predicted, ms | measured, ms | least–most | error |",
               "|---|---:|---:|---:|---:|"]  # fmt: skip
    for row in measured["networks"]:
        checked.append(
            f"| {row['network']} | {row['predicted_ms']} | {row['ms']} | "
            f"{row['least']}–{row['most']} | {row['error']:+.1%} |"
        )
    checked += [
        "",
        f"{measured['processor']}, {measured['cores']} cores, load average "
        f"{measured['load_average']}; {measured['rounds']} rounds of 2 steps, in turn with the "
        f"step that the model was given ({measured['half_batch_ms']:.0f} ms, "
        f"{measured['backward_share']:.0%} of it the way back).",
    ]
    own = 2  # processes of the run itself
    checked += sides.busy(measured["load_average"] - own, measured["cores"])
    found = {"checked": "\n".join(checked)}
    names = [network.name for network in NETWORKS]
    for way in ("strong", "weak"):
        lines = [f"| workers | batch | {' | '.join(names)} |", "|---:|---:|" + "---:|" * len(names)]
        nih = [r for r in rows if r["dataset"].startswith("NIH") and r["scaling"] == way]
        for workers in WORKERS:
            cells = [r for r in nih if r["workers"] == workers]
            mark = " *" if cells[0]["beyond_largest_batch"] else ""
            lines.append(
                f"| {workers:,} | {cells[0]['batch']:,}{mark} | "
                + " | ".join(
                    f"{duration(r['epoch_seconds'])}, {r['efficiency']:.0%}" for r in cells
                )
                + " |"
            )
        found[way] = "\n".join(lines)
    lines = ["| films | workers | network | ten epochs | core hours | cost |",
             "|---|---:|---|---:|---:|---:|"]  # fmt: skip
    chosen = ("10 Gbit/s Ethernet", "100 Gbit/s Ethernet")
    for title in DATASETS:
        for workers in (1, 16, 128, 512):
            for name in chosen if workers > 1 else chosen[:1]:
                (row,) = (
                    r for r in rows
                    if (r["dataset"], r["workers"], r["network"], r["scaling"])
                    == (title, workers, name, "weak")
                )  # fmt: skip
                seconds = EPOCHS * row["epoch_seconds"]
                lines.append(
                    f"| {title} | {workers} | {name if workers > 1 else '–'} | {duration(seconds)} "
                    f"| {seconds * workers / 3600:,.0f} | ${row['dollars']:,.2f} |"
                )
    found["cost"] = "\n".join(lines)
    return found


def figure(measured: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Efficiency against workers, both ways of growing, and prediction against measurement."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = page.subplots(1, 3)
    for axis, way, title in ((left, "strong", "batch of 512 shared out"),
                             (middle, "weak", "16 films a worker")):  # fmt: skip
        for network, mark in zip(NETWORKS, "osv^", strict=True):
            own = [r for r in rows if r["dataset"].startswith("NIH") and r["scaling"] == way
                   and r["network"] == network.name]  # fmt: skip
            axis.plot([r["workers"] for r in own], [r["efficiency"] for r in own],
                      marker=mark, markersize=4, label=network.name)  # fmt: skip
        if way == "weak":
            axis.axvline(LARGEST_BATCH / BATCH, color="grey", linestyle=":")
            axis.text(LARGEST_BATCH / BATCH, 0.03, "batch 8,192 ", ha="right", color="grey")
        axis.set(xscale="log", xlabel="workers", title=title, ylim=(0, 1.05))
        axis.set_xticks(WORKERS[::2], [f"{w:,}" for w in WORKERS[::2]])
        axis.minorticks_off()
    left.set_ylabel("efficiency")
    left.legend(fontsize=7, loc="lower left")
    for row in measured["networks"]:
        low, high = row["ms"] - row["least"], row["most"] - row["ms"]
        right.errorbar(row["predicted_ms"], row["ms"], yerr=[[low], [high]], fmt="o", capsize=3,
                       label=row["network"])  # fmt: skip
    most = 1.1 * max(max(r["most"], r["predicted_ms"]) for r in measured["networks"])
    right.plot([0, most], [0, most], color="grey", linestyle=":")
    right.set(xlim=(0, most), ylim=(0, most), xlabel="predicted, ms a step",
              ylabel="measured", title="two processes")  # fmt: skip
    right.legend(fontsize=7)
    return page


def record(measured: dict[str, Any], work: Work, rows: list[dict[str, Any]]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    import csv

    with (OUT / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    settings = {"work": asdict(work), "networks": [asdict(network) for network in NETWORKS],
                "largest_batch": LARGEST_BATCH, "dollars_a_core_hour": PRICE_CORE_HOUR,
                "epochs": EPOCHS}  # fmt: skip
    for name, content in (("checked", measured), ("settings", settings)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (OUT / f"{name}.json").write_text(text + "\n", "utf-8")
    page = figure(measured, rows)
    page.savefig(OUT / "scaling.png", dpi=110)
    page.savefig(OUT / "scaling.svg", metadata={"Date": None})
    sides.put(ROOT / "docs" / "scaling.md", tables(measured, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure what is predicted")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and networks")
    given = parser.parse_args()
    kept = OUT / "checked.json"
    rounds, links = (2, list(LINKS)[::2]) if given.quick else (4, list(LINKS))
    measured = measure(rounds, links) if given.measure else json.loads(kept.read_text("utf-8"))
    scaling = json.loads((RECORDS / "benchmarks" / "scaling.json").read_text("utf-8"))
    work = work_of(scaling, measured)
    rows = predictions(work)
    for name, text in tables(measured, rows).items():
        print(f"{name}\n{text}\n")
    if given.record:
        record(measured, work, rows)


if __name__ == "__main__":
    main()
