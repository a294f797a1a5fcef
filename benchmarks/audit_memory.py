"""Memory of an audit's own process, stage by stage, without films: made-up answers of its workers.

    python benchmarks/audit_memory.py
    python benchmarks/audit_memory.py --films 1000 20000 --out /tmp/audit_memory.csv

A manifest of so many made-up names, four films a patient, is written and read; in the place of
processes that read films, texts and 64 × 64 pictures by chance answer ``survey.look``. All else is
the audit as it is. Each number of films runs in an interpreter of its own; Linux tells after each
stage what is resident and the most that was since the last (``VmHWM``). That is how one sees which
stage grows; ``size.py`` measures the whole, with real files.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HEADS = ("films", "stage", "resident_mib", "peak_mib")
#: Module, function and what its stage is called.
STAGES = (
    ("survey", "survey", "looking"),
    ("duplicates", "find", "comparing"),
    ("probes", "probe", "probing"),
    ("audit", "findings", "findings"),
    ("audit", "_write_facts", "tables"),
    ("document", "write_report", "report"),
)


class MadeUp:
    """In the place of ``Workers``: answers by chance."""

    def __init__(self, *_: Any) -> None:
        self._rng = np.random.default_rng(0)

    def __enter__(self) -> MadeUp:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Any, items: Iterable[Any], **_: Any) -> Iterator[tuple[int, Any]]:
        answers = {"look": self._look, "pixel_digest": lambda: bytes(32)}
        answer = answers.get(function.__name__, lambda: np.zeros((120, 160), np.uint8))
        for number, _ in enumerate(items):
            yield number, answer()

    def _look(self) -> Any:
        from hilum.audit.survey import Look, perceptual_hash

        rng = self._rng
        film = rng.integers(0, 256, (64, 64), np.uint8)
        size, quality = float(rng.integers(2000, 5000)), float(rng.integers(70, 95))
        numbers = (size, 120.0, 96.0, 8.0, 0.0, 0.0, 0.0, quality, 0.0, 2.0, 0.0)
        words = ("jpeg", "L", "baseline")
        return Look(numbers, words, rng.bytes(16), perceptual_hash(film), film.tobytes(), ())


def listed(folder: Path, films: int) -> None:
    """Write the manifest of so many films that are not there."""
    from hilum.datasets.manifest import Manifest
    from hilum.datasets.split import draw_parts

    label = np.arange(films) // 4 % 2
    patient = [f"mendeley-{10**7 + row // 4}" for row in range(films)]
    stem = ("NORMAL/NORMAL", "PNEUMONIA/VIRUS")
    path = [
        f"{stem[k]}-{10**7 + row // 4}-{row % 4:04d}.jpeg" for row, k in enumerate(label.tolist())
    ]
    shares = {"validation": 0.15, "test": 0.15}
    part, _ = draw_parts(patient, label.astype(np.int8), [""] * films, shares)
    columns = (tuple(path), label.astype(np.int8), tuple(patient), part)
    Manifest(folder, *columns).write(folder / "films.csv")


def watched(folder: Path, films: int) -> None:
    """Audit, and print a line after each stage."""
    import importlib

    from hilum.audit import audit
    from hilum.datasets.manifest import Manifest

    def tell(stage: str) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        resident, peak = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        print(f"{films},{stage},{resident:.0f},{peak:.0f}", flush=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    def telling(function: Any, stage: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            tell(stage)
            return result

        return run

    for room, name, stage in STAGES:
        module = importlib.import_module(f"hilum.audit.{room}")
        setattr(module, name, telling(getattr(module, name), stage))
    audit.Workers = MadeUp  # type: ignore[assignment, misc]
    manifest = Manifest.read(folder / "films.csv")
    tell("manifest")
    audit.audit(manifest, out=folder / "audit")


def main() -> None:
    """Measure each number of films in a fresh interpreter, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path("docs/records/datasets/audit_memory.csv"))
    parser.add_argument("--watched", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watched:
        watched(options.watched, options.films[0])
        return
    rows = []
    for films in options.films:
        with tempfile.TemporaryDirectory() as folder:
            listed(Path(folder), films)
            command = [sys.executable, __file__, "--films", str(films), "--watched", folder]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(told, end="", flush=True)
        rows += list(csv.reader(told.splitlines()))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEADS, *rows])


if __name__ == "__main__":
    main()
