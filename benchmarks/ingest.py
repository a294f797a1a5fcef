"""JPEG originals to a network's pixels: films a second on one core, and over cores.

    python benchmarks/ingest.py FILMS            # a folder; makes .bench/
    python benchmarks/ingest.py FILMS --quick    # one round, Keras only if it is there
    python benchmarks/ingest.py FILMS --record   # keep the result under docs/

On one core each side is a process held to that core which reads, decodes and resizes every film
when asked, in turn with the others (``peers/decoders.py``). Over cores hilum fills an empty cache,
as ``hilum train`` does before its first epoch, by one worker process and by two; the films are
linked under several names, so that the start of the workers weighs little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sides
from hilum import machine
from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.films.preprocess import Preprocessing
from hilum.native import library
from sides import OWN, Load, Process, Side

SIZES = (500, 224)
LIBRARIES = {  # side: (library of peers/decoders.py, environment or None for hilum's own)
    "hilum": ("hilum", None),
    "hilum, into the cache": ("hilum-cache", None),
    "Pillow draft": ("pillow-draft", "ingest"),
    "OpenCV reduced": ("opencv-reduced", "ingest"),
    "simplejpeg": ("simplejpeg", "ingest"),
    "simplejpeg, OpenCV's resize": ("simplejpeg-opencv", "ingest"),
    "Keras load_img": ("keras-load-img", "keras"),
    "TensorFlow decode_jpeg": ("tf-decode-jpeg", "keras"),
    "Pillow plain": ("pillow", "ingest"),
}
SCALED = ("Pillow draft", "OpenCV reduced", "simplejpeg")
WHOLE = ("Keras load_img", "Pillow plain")
PLAIN = "hilum"


def find(folder: Path, most: int) -> list[Path]:
    """Up to ``most`` JPEG files, spread over the folder."""
    every = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not every:
        raise SystemExit(f"benchmark: no JPEG files: {folder}. Name a folder of originals.")
    return [p.resolve() for p in every[:: max(1, -(-len(every) // most))]]


def alone(names: list[str], films: list[Path], rounds: int, folder: Path) -> dict[str, Any]:
    """Every library on one core, in turn: films a second by size, and the ratios."""
    listing = folder / "films.txt"
    listing.write_text("".join(f"{film}\n" for film in films), "utf-8")
    turns: dict[int, list[Side]] = {size: [] for size in SIZES}
    load = Load()
    with ExitStack() as stack:
        for name in names:
            library, place = LIBRARIES[name]
            interpreter = OWN if place is None else sides.environment(place)
            arguments = [library, str(listing), ",".join(map(str, SIZES))]
            process = stack.enter_context(Process(name, interpreter, "decoders.py", arguments))
            for size in SIZES:
                turns[size].append(Side(name, process, str(size)))
                process.ask(1, str(size))  # warm up
        for turn in range(rounds):
            for size in SIZES:
                for side in turns[size]:
                    side.measure(1)
            load.round_ended(turn, rounds)
    found: dict[str, Any] = {"load_average": load.entry(), "sides": {}, "ratios": []}
    for name in names:
        hello = next(side.process.hello for side in turns[SIZES[0]] if side.name == name)
        found["sides"][name] = dict(hello)
    for size in SIZES:
        medians = {side.name: side.medians for side in turns[size]}
        for side in turns[size]:
            found["sides"][side.name][str(size)] = rates(side.medians, len(films))
        for row in sides.compare(medians, pairs(medians)):
            found["ratios"].append({"size": size, **row})
    return found


def rates(milliseconds: list[float], films: int) -> dict[str, float]:
    """Films a second of the rounds: median, least, most."""
    every = [1e3 * films / ms for ms in milliseconds]
    return {
        "films_a_second": round(statistics.median(every), 1),
        "least": round(min(every), 1),
        "most": round(max(every), 1),
    }


def pairs(medians: dict[str, list[float]]) -> list[tuple[str, str, float | None]]:
    """All against hilum; goals for the fastest that scales while decoding, and for the slow."""
    scaled = [name for name in SCALED if name in medians]
    fastest = min(scaled, key=lambda name: statistics.median(medians[name]), default="")
    found: list[tuple[str, str, float | None]] = []
    for name in medians:
        if name == PLAIN:
            continue
        found.append((name, PLAIN, 1.0 if name == fastest or name in WHOLE else None))
    return found


def built_kernels() -> Path | None:
    """The folder of the compiled library, built as training does before it fills a cache."""
    if library.load("films")[0] is None:
        return None
    return library.place("films", library.level())[0].parent


def over_cores(films: list[Path], rounds: int, many: int, folder: Path) -> list[dict[str, Any]]:
    """An empty cache filled by one process and by two, in turn."""
    kernels = built_kernels()
    links = folder / "links"
    links.mkdir()
    names = []
    for i in range(many):
        name = links / f"{i:06}.jpeg"
        name.symlink_to(films[i % len(films)])
        names.append(name.name)
    manifest = Manifest(
        root=links,
        path=tuple(names),
        label=[i % 2 for i in range(many)],
        patient=tuple(names),
        part=("",) * many,
    )
    found = []
    for size in SIZES:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(rounds):
            for workers in seconds:
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    os.environ["HILUM_CACHE"] = cache
                    if kernels is not None:
                        (Path(cache) / "kernels").symlink_to(kernels)
                    began = time.perf_counter()
                    Cache.fill(manifest, Preprocessing(size), workers=workers, limit=1.0)
                    seconds[workers].append(time.perf_counter() - began)
            print(f"cache of {size}: round {turn + 1} of {rounds}", file=sys.stderr)
        found.append(
            {
                "size": size,
                "films": many,
                "one": rates([1e3 * s for s in seconds[1]], many),
                "two": rates([1e3 * s for s in seconds[2]], many),
                **sides.spread(sides.quotients(seconds[1], seconds[2])),
                "goal": 1.9,
            }
        )
    return found


def measure(names: list[str], films: list[Path], rounds: int, many: int) -> dict[str, Any]:
    pace = sides.matrix_products()
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        first = alone(names, films, rounds, Path(folder))
        cores = []
        if many and machine.cores() >= 2:
            cores = over_cores(films, max(1, rounds // 3), many, Path(folder))
        elif many:
            print("one core alone is granted here: nothing over cores", file=sys.stderr)
    return {
        "what": "JPEG files to grey squares, films a second on one core; caches filled over cores",
        **sides.about_machine(),
        "films": len(films),
        "megapixels_a_film": megapixels(films),
        "rounds": rounds,
        "gemm": [pace, sides.matrix_products()],
        **first,
        "over_cores": cores,
    }


def megapixels(films: list[Path]) -> float:
    """Median size of the films as stored."""
    from hilum.films.read import read

    headers = [read(film).header for film in films]
    return round(statistics.median(h.width * h.height for h in headers) / 1e6, 2)


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""

    def cell(rate: dict[str, float]) -> str:
        return f"{rate['films_a_second']:.0f} ({rate['least']:.0f}–{rate['most']:.0f})"

    lines = [
        "| one core, films a second | " + " | ".join(f"to {s} × {s}" for s in SIZES) + " |",
        "|---|" + "---:|" * len(SIZES),
    ]
    for name, entry in result["sides"].items():
        cells = " | ".join(cell(entry[str(size)]) for size in SIZES)
        lines.append(f"| {name} | {cells} |")
    named = [
        {**r, "of": f"{r['size']} px: time of {r['of']}", "over": r["over"]}
        for r in result["ratios"]
        if r["goal"] is not None
    ]
    lines += ["", *sides.ratio_table(named)]
    if result["over_cores"]:
        lines += [
            "",
            "| an empty cache filled, films a second | one process | two | ratio | goal |",
            "|---|---:|---:|---:|---:|",
        ]
        for r in result["over_cores"]:
            ratio = f"{r['ratio']} ({r['least']}–{r['most']})"
            lines.append(
                f"| {r['films']:,} films to {r['size']} × {r['size']} | {cell(r['one'])} "
                f"| {cell(r['two'])} | {ratio} | ≥ {r['goal']} |"
            )
    lines += [
        "",
        f"{sides.footer(result, result['sides'].values())}; {result['films']} films of "
        f"{result['megapixels_a_film']} megapixels (median), {result['rounds']} rounds, "
        "sides in turn.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("films", type=Path, help="folder of JPEG originals")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--most", type=int, default=170, help="films a round on one core")
    parser.add_argument("--many", type=int, default=2040, help="films of a cache; 0: none")
    parser.add_argument("--quick", action="store_true", help="one round, Keras only if there")
    parser.add_argument("--record", action="store_true", help="keep it under docs/")
    given = parser.parse_args()
    films = find(given.films, given.most)
    names, rounds, many = list(LIBRARIES), given.rounds, given.many
    if given.quick:
        rounds, many = 1, many // 4
        if not sides.environment("keras").exists():
            names = [name for name in names if LIBRARIES[name][1] != "keras"]
    for place in sorted({LIBRARIES[name][1] for name in names} - {None}):
        sides.make_environment(place)
    result = measure(names, films, rounds, many)
    print(table(result))
    if given.record:
        sides.record(result, "ingest", {"ingest": table})


if __name__ == "__main__":
    main()
