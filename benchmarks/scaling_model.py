"""Data-parallel training on 2 to 1,024 workers, on paper: from measured figures to epochs.

A step is the computation of the worker's films, a line in their
number, and the exchange of gradients by a ring (``ring.py``). Gradients come in two parts, as the
engine sends them: an early one, ready when the way back has hardly begun (the first dense layer,
where nearly all of this network's parameters lie), and a late one, ready when it ends. Of the early
part workers send each other its factors where these are fewer (``hilum.training.factors``). What a
real cluster adds (jitter, stragglers, disks, switches that are shared) is left out: these are
bounds for a quiet network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hilum.training.factors import worth_it
from ring import Network, exchange_seconds, gather_seconds, sending_rate


@dataclass(frozen=True)
class Work:
    """A training step on one worker.

    Attributes
    ----------
    fixed, film : seconds a step takes anyway, and for each of the worker's films
    backward : share of the step that is left when the way back begins (it can hide an exchange)
    early, late : bytes of gradients that are ready at its beginning, and only at its end
    factors : bytes of a film's factors of the early part; 0 where it is always summed
    start : seconds before the first step
    """

    fixed: float
    film: float
    backward: float
    early: float
    late: float
    factors: float = 0.0
    start: float = 0.0


def step_seconds(workers: int, films: float, work: Work, network: Network) -> float:
    """One synchronous step, each worker with so many films.

    The early gradients travel from the beginning of the way back on, the late ones from its end;
    gloo works at both exchanges at once, which share the link.
    """
    computed = work.fixed + work.film * films
    forward = computed * (1 - work.backward)
    if work.factors and worth_it(work.factors / 4, workers * films, work.early / 4):
        largest = work.factors * films
        early = gather_seconds(workers, largest, network, idle=forward)
    else:
        largest = work.early / workers
        early = exchange_seconds(workers, work.early, network, burst=largest, idle=forward)
    silent = max(0.0, computed - forward - early)
    late = exchange_seconds(workers, work.late, network, burst=largest, idle=silent)
    sent = 2 * (workers - 1) / workers * work.late / sending_rate(network, largest)
    return max(computed + late, forward + early + sent)


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
        factors=network["film_bytes"],
        start=network["start_seconds"],
    )


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
