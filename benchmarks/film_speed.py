"""Films a second on one core, and what isolation costs.

    HILUM_FILMS=... python benchmarks/film_speed.py

Reads and preprocesses films in this process and in one isolated worker, turn by turn, in two ways:
``pixels``, which brings the pixels to this process, as answers need them, and ``cache``, which
writes them into a file as a data set's cache is filled in bulk (``decode_into``). Gives processor
time, which neighbours on the machine disturb least, and wall time. Processor time of isolation is
that of both processes, the caller's share told apart; its cost is the median over the rounds, each
set done here and isolated one right after the other. Speeds are the best of the rounds.

Both sides start alike: a pass over all films on either side is not counted (files come from the
disk once, heaps grow to what they need, a worker starts and imports for half a second whatever the
number of films), and rounds take turns in which side is first. The first records had neither: here
was always first, and paid for the disk. Pixels are dropped where they arrive, on both sides.
Results go to ``docs/records/films/speed.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from hilum.datasets.cache import decode_into
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read
from hilum.films.workers import Workers
from hilum.machine import processor
from hilum.native import library
from hilum.storage import write_json

SETS = {
    "kermany_original": [(500, 170), (224, 170), (128, 170)],
    "kermany_224": [(224, 2000), (128, 2000)],
    "nih/images_256": [(224, 857), (128, 857)],
}


class Spent(NamedTuple):
    """Seconds for one pass over the films: of both processes' processor, of this one's, by the
    clock."""

    processor: float
    caller: float
    wall: float


def pixels(path: str, size: int) -> Any:
    return preprocess(read(path), Preprocessing(size))


def child_seconds(process: int) -> float:
    """Processor time of a child that still runs (Linux)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def spent(answers: Callable[[], Iterable[Any]], child: int) -> Spent:
    own, other, wall = time.process_time(), child_seconds(child), time.perf_counter()
    for _ in answers():
        pass
    own, other = time.process_time() - own, child_seconds(child) - other
    return Spent(own + other, own, time.perf_counter() - wall)


def compare(
    workers: Workers, function: Callable[[Any], Any], tasks: list[Any], rounds: int
) -> tuple[list[Spent], list[Spent]]:
    """What each round took here, and isolated."""
    for _ in workers.map(function, tasks):
        pass
    for task in tasks:
        function(task)
    child = workers._workers[0].process.pid
    sides = [lambda: map(function, tasks), lambda: workers.map(function, tasks)]
    found: tuple[list[Spent], list[Spent]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            found[side].append(spent(sides[side], child))
    return found


def cost(here: list[Spent], isolated: list[Spent], what: str) -> float:
    """Median over the rounds of isolated / here - 1."""
    ratios = [getattr(b, what) / getattr(a, what) for a, b in zip(here, isolated, strict=True)]
    return round(median(ratios) - 1, 3)


def main() -> None:
    import film_speed  # this file by its name: workers cannot import __main__

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--share", type=float, default=1.0, help="of the films, for a quick look")
    parser.add_argument("--out", type=Path, default=Path("docs/records/films/speed.json"))
    options = parser.parse_args()
    folder = Path(os.environ["HILUM_FILMS"])
    library.load("films")  # as training does before it fills a cache
    rows = []
    with Workers(1) as workers, tempfile.NamedTemporaryFile() as file:
        for name, cases in SETS.items():
            every = sorted(str(path) for path in (folder / name).rglob("*.jp*g"))
            for size, most in cases:
                count = max(1, round(most * options.share))
                films = every[:: max(1, len(every) // count)][:count]
                here, isolated = compare(
                    workers, partial(film_speed.pixels, size=size), films, options.rounds
                )
                into = partial(decode_into, file.name, Preprocessing(size))
                kept = compare(workers, into, list(enumerate(films)), options.rounds)
                least = min(one.processor for one in here)
                caller = median(one.caller for one in isolated)
                rows.append(
                    {
                        "films": name,
                        "n": len(films),
                        "size": size,
                        "films_a_second_by_processor_time": round(len(films) / least),
                        "films_a_second_by_wall_time": round(
                            len(films) / min(one.wall for one in here)
                        ),
                        "isolated_by_wall_time": round(
                            len(films) / min(one.wall for one in isolated)
                        ),
                        "cost_of_isolation_processor": cost(here, isolated, "processor"),
                        "cost_of_isolation_wall": cost(here, isolated, "wall"),
                        "microseconds_a_film_in_the_caller": round(1e6 * caller / len(films), 1),
                        "cost_of_isolation_processor_into_the_cache": cost(*kept, "processor"),
                        "cost_of_isolation_wall_into_the_cache": cost(*kept, "wall"),
                    }
                )
                print(rows[-1], flush=True)
    record = {
        "command": f"python benchmarks/film_speed.py --rounds {options.rounds}",
        "processor": processor(),
        "rounds": options.rounds,
        "share_of_the_films": options.share,
        "load_at_the_end": os.getloadavg()[0],
        "rows": rows,
    }
    write_json(options.out, record)
    print(json.dumps(record["rows"], indent=1))


if __name__ == "__main__":
    main()
