"""The model of many workers beside measurement: two processes, and cables that are slowed."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sides
from hilum.training.learner import new_network
from hilum.training.recipe import Recipe
from machines import MTU
from ring import Network
from scaling_model import BATCH, Work, step_seconds

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
CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
ETHERNET, HEADERS = 1500, 52  # bytes of a packet; of IP and TCP with time stamps in it


def measure(rounds: int, links: list[str], steps: int = 2) -> dict[str, Any]:
    """Two processes on loopback and between two machines whose cable is slowed.

    What the model is given: the step of one process with half the batch beside a second process
    like it (two cores that work are slower than one that works alone), in the same minutes; the
    nominal rate and delay of the slowed cable; for what no setting slows, the all-reduce of 4
    bytes and of 8 MiB on the unslowed one. It never sees a step of the group that it predicts.
    """
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
                        "round_trip": statistics.median(small) / 2e3,  # two messages
                        "bytes_a_second": LARGE
                        / (statistics.median(large) - statistics.median(small))
                        * 1e3,
                    }
                    whole = pair.hello["gradient_bytes"]
            rows.append({"network": title, "megabits": megabits, "held_back_ms": milliseconds,
                         "ms": round(statistics.median(times), 1), "least": round(min(times), 1),
                         "most": round(max(times), 1)})  # fmt: skip
            print(rows[-1], file=sys.stderr)
    return {
        "what": "a step of the paper's network in two processes, batch 16, predicted and measured",
        **sides.about_machine(),
        "rounds": rounds,
        "load_average": round(statistics.median(load), 2),
        "congestion_control": CONTROL.read_text("utf-8").strip(),
        "half_batch_ms": round(statistics.median(alone), 1),
        "backward_share": round(statistics.median(backward), 3),
        **first_dense(),
        "gradient_bytes": whole,
        "cable": {k: round(v, 6) for k, v in base.items()},
        "start_seconds": round(start, 1),
        "networks": rows,
    }


def first_dense() -> dict[str, int]:
    """Bytes of the paper's first dense layer, whose gradient is ready early, and of its factors of
    one film."""
    weight = new_network(Recipe.load("paper2021")).dense1.weight
    return {"early_bytes": 4 * weight.numel(), "film_bytes": 4 * sum(weight.shape)}


def beside(measured: dict[str, Any]) -> dict[str, Any]:
    """What was measured, with ``predicted_ms`` and ``error`` of each cable by the model."""
    base, early = measured["cable"], measured["early_bytes"]
    work = Work(
        measured["half_batch_ms"] / 1e3, 0.0, measured["backward_share"], early,
        measured["gradient_bytes"] - early, measured["film_bytes"],
    )  # fmt: skip
    rows = []
    for row in measured["networks"]:
        rate, held = row["megabits"] * 1e6 / 8, row["held_back_ms"] / 1e3
        network = Network(
            row["network"],
            min(rate or base["bytes_a_second"], base["bytes_a_second"]),
            base["round_trip"] / 2 + held,
            measured["congestion_control"],
            (MTU if held else ETHERNET) - HEADERS,
        )
        ms = 1e3 * step_seconds(2, BATCH // 2, work, network)
        rows.append({**row, "predicted_ms": round(ms, 1), "error": round(ms / row["ms"] - 1, 3)})
    return {**measured, "networks": rows}
