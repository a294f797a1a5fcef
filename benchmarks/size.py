"""Time and memory of index, cache and audit as the number of films grows.

    python benchmarks/size.py
    python benchmarks/size.py --films 1000 10000 --jobs index audit --out /tmp/size.csv
    python benchmarks/size.py --films 3000 --size 400 500 --jobs fill audit --repeat 2 \
        --out docs/records/datasets/two_processes.csv

The last one asks how much sooner two processes are done than one, in turns (1, 2, 1, 2), on films
that are worth decoding. With ``--folder`` films are kept: the next call draws none that are there.

Makes small films once: 1,000 made-up chests (``hilum.datasets.phantom``, about 96 × 120 pixels),
each under many textures of its own, a few kB of JPEG a film, four films a patient. The largest set
takes 0.4 GB of a temporary folder, smaller sets are its first films by links; all go away at the
end. Each job runs in an interpreter of its own, with one and with two decoding processes; what is
measured is its wall time, the processor time of it and its children, and by a look every 20 ms at
all its processes the most memory that they held at one time (resident set, shared pages counted in
each), and of that the most of the job's own process. ``reading_s`` is the time in which processes
read films: of an audit its first step, of a cache all but the interpreter's start.

On a machine with neighbours the clock says little; the processor's seconds hold.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

JOBS = {
    "index": """
from hilum.datasets.index import index
index(source, draw=True).write(f"{out}/films.csv")
""",
    "fill": """
from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.films.preprocess import Preprocessing
listed = Manifest.read(f"{source}.csv")
start = time.perf_counter()
Cache.fill(listed, Preprocessing(32), workers=workers)
reading = time.perf_counter() - start
""",
    "audit": """
from hilum.audit.audit import audit
from hilum.datasets.manifest import Manifest
found = audit(Manifest.read(f"{source}.csv"), out=f"{out}/audit", workers=workers)
reading = found.seconds["looking"]
""",
}
JOBS["open"] = JOBS["fill"]  # again: nothing to decode, all checksums verified
_BEGIN = "import json, os, time\n"
_END = """
spent = os.times()
print(json.dumps([spent.user + spent.system, spent.children_user + spent.children_system, reading]))
"""
HEADS = ("job", "films", "processes", "seconds", "reading_s", "own_cpu_s", "children_cpu_s",
         "peak_mib", "own_peak_mib", "load")  # fmt: skip
CHESTS = 1000


def draw(folder: Path, films: int, size: tuple[int, int] = (96, 120), seed: int = 0) -> None:
    """Write so many films into ``folder/{NORMAL,PNEUMONIA}``, four a patient.

    Parameters
    ----------
    size : width and height of a film in pixels, about
    """
    from hilum.datasets import phantom
    from hilum.datasets.index import index

    with tempfile.TemporaryDirectory() as drawn:
        phantom.make(drawn, films=min(CHESTS, films), size=size, seed=seed, layout="flat")
        listed = index(drawn, draw=False)
        chests = [[np.asarray(Image.open(file), np.float32) for file, label in
                   zip(listed.files(), listed.label, strict=True) if label == k]
                  for k in (0, 1)]  # fmt: skip
    rng = np.random.default_rng(seed)
    for name in ("NORMAL", "PNEUMONIA"):
        (folder / name).mkdir(parents=True)
    for number in range(films):
        positive = int(number // 4 % 2)
        chest = chests[positive][int(rng.integers(len(chests[positive])))]
        shape = chest.shape[::-1]
        fine, coarse = (
            np.asarray(Image.fromarray(rng.standard_normal(cells, np.float32)).resize(shape, 2))
            for cells in ((36, 30), (9, 8))
        )
        film = 0.6 * chest + 30 + rng.uniform(16, 24) * fine + rng.uniform(8, 20) * coarse
        grey = np.clip(film, 0, 255).astype(np.uint8)
        stem = f"{('NORMAL', 'VIRUS')[positive]}-{10**7 + number // 4}-{number % 4:04d}"
        file = folder / ("NORMAL", "PNEUMONIA")[positive] / f"{stem}.jpeg"
        Image.fromarray(grey).save(file, "JPEG", quality=int(rng.integers(70, 95)))


def first(folder: Path, films: int, into: Path) -> None:
    """The first films of a drawn set, by links."""
    for name in ("NORMAL", "PNEUMONIA"):
        (into / name).mkdir(parents=True)
    for file in folder.glob("*/*.jpeg"):
        _, patient, film = file.stem.split("-")
        if 4 * (int(patient) - 10**7) + int(film) < films:
            os.link(file, into / file.parent.name / file.name)


def measured(job: str, source: Path, workers: int, cache: Path) -> dict[str, Any]:
    """One job in a fresh interpreter."""
    if job == "fill":
        shutil.rmtree(cache, ignore_errors=True)  # of an earlier call or turn
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile("w+") as errors:
        told = f"source, out, workers, reading = {str(source)!r}, {out!r}, {workers}, 0.0\n"
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN + told + JOBS[job] + _END],
            env={**os.environ, "HILUM_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        watch = Watch(process.pid)
        spent, _ = process.communicate()
        seconds = time.perf_counter() - start
        watch.stop()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read())
        if job == "index":
            for ending in ("csv", "json"):
                Path(f"{out}/films.{ending}").rename(f"{source}.{ending}")
    own, children, reading = json.loads(spent)
    return {
        "job": job,
        "seconds": round(seconds, 1),
        "reading_s": round(reading, 2),
        "own_cpu_s": round(own, 1),
        "children_cpu_s": round(children, 1),
        "peak_mib": round(watch.together / 2**20),
        "own_peak_mib": round(watch.own / 2**20),
        "load": round(os.getloadavg()[0], 1),
    }


class Watch:
    """The most memory that a process, and it with all its children, held at one time (Linux)."""

    def __init__(self, process: int) -> None:
        self.own = self.together = 0
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            own = _resident(self._process)
            self.own = max(self.own, own)
            self.together = max(self.together, own + sum(map(_resident, _children(self._process))))


def _children(process: int) -> list[int]:
    try:
        told = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    below = [int(child) for child in told.split()]
    return below + [deeper for child in below for deeper in _children(child)]


def _resident(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Draw, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--jobs", nargs="+", default=["index", "fill", "open", "audit"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=1, help="turns of fill and audit")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 120], help="of a film, pixels")
    parser.add_argument("--folder", type=Path, help="where films are drawn, and kept")
    parser.add_argument("--out", type=Path, default=Path("docs/records/datasets/size.csv"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        base = options.folder or Path(temporary)
        whole = base / f"n{max(options.films)}"
        if not whole.exists():
            begun = whole.with_suffix(".begun")  # a call that was cut off left no whole set
            shutil.rmtree(begun, ignore_errors=True)
            draw(begun, max(options.films), tuple(options.size))
            begun.rename(whole)
        for films in options.films:
            source = base / f"n{films}"
            if not source.exists():
                first(whole, films, source)
            if "index" not in options.jobs and not Path(f"{source}.csv").exists():
                measured("index", source, 1, base / "none")
            for job in options.jobs:
                turns = options.processes * options.repeat if job in ("fill", "audit") else (1,)
                for workers in turns:
                    cache = base / f"cache-{films}-{1 if job == 'open' else workers}"
                    found = {
                        "films": films,
                        "processes": workers,
                        **measured(job, source, workers, cache),
                    }
                    rows.append({head: found[head] for head in HEADS})
                    print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.DictWriter(text, HEADS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    options.out.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
