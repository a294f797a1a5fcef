"""Films a second on one core, and what isolation costs.

    HILUM_FILMS=... python benchmarks/film_speed.py

Reads and preprocesses films in this process and in one isolated worker, turn by turn, and gives
processor time (which neighbours on the machine disturb least) and wall time, best of the rounds.
Processor time of isolation is that of both processes; its cost is the median over the rounds, each
film set decoded here and isolated one right after the other. Results go to
``docs/records/films/speed.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read
from hilum.films.workers import Workers
from hilum.machine import processor
from hilum.storage import write_json


def pixels(path: str, size: int) -> Any:
    return preprocess(read(path), Preprocessing(size))


def processor_seconds() -> float:
    """Of this process."""
    return time.process_time()


def child_seconds(process: int) -> float:
    """Processor time of a child that still runs (Linux)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def main() -> None:
    import film_speed  # this file by its name: workers cannot import __main__

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/records/films/speed.json"))
    options = parser.parse_args()
    folder = Path(os.environ["HILUM_FILMS"])
    sets = {
        "kermany_original": [(500, 170), (224, 170), (128, 170)],
        "kermany_224": [(224, 2000), (128, 2000)],
        "nih/images_256": [(224, 857), (128, 857)],
    }
    rows = []
    with Workers(1) as workers:
        for name, cases in sets.items():
            every = sorted(str(path) for path in (folder / name).rglob("*.jp*g"))
            for size, count in cases:
                films = every[:: max(1, len(every) // count)][:count]
                function = partial(film_speed.pixels, size=size)
                for _ in workers.map(function, films[:5]):
                    pass
                best = {"here": (1e9, 1e9), "isolated": (1e9, 1e9)}
                child = workers._workers[0].process.pid
                ratios = []
                for _ in range(options.rounds):
                    cpu, wall = processor_seconds(), time.perf_counter()
                    for film in films:
                        function(film)
                    own = (processor_seconds() - cpu, time.perf_counter() - wall)
                    best["here"] = tuple(map(min, best["here"], own))
                    cpu, wall = processor_seconds() + child_seconds(child), time.perf_counter()
                    for _ in workers.map(function, films):
                        pass
                    after = processor_seconds() + child_seconds(child)
                    spent = (after - cpu, time.perf_counter() - wall)
                    best["isolated"] = tuple(map(min, best["isolated"], spent))
                    ratios.append((spent[0] / own[0], spent[1] / own[1]))
                here, isolated = best["here"], best["isolated"]
                rows.append(
                    {
                        "films": name,
                        "n": len(films),
                        "size": size,
                        "films_a_second_by_processor_time": round(len(films) / here[0]),
                        "films_a_second_by_wall_time": round(len(films) / here[1]),
                        "isolated_by_wall_time": round(len(films) / isolated[1]),
                        "cost_of_isolation_processor": round(median(r for r, _ in ratios) - 1, 3),
                        "cost_of_isolation_wall": round(median(r for _, r in ratios) - 1, 3),
                    }
                )
                print(rows[-1], flush=True)
    record = {
        "command": "python benchmarks/film_speed.py",
        "processor": processor(),
        "rounds": options.rounds,
        "load_at_the_end": os.getloadavg()[0],
        "rows": rows,
    }
    write_json(options.out, record)
    print(json.dumps(record["rows"], indent=1))


if __name__ == "__main__":
    main()
