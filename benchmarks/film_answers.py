"""What the shipped model answers for every file of the test collections of films.

    HILUM_FILMS=... python benchmarks/film_answers.py

A row a file of ``$HILUM_FILMS/dicom`` and ``ood``, by the same library call as ``hilum predict``,
in ``docs/records/films/answers.csv``: the decision, the codes of its reasons, the code of its
error and the first digits of the model's digest. No pixels.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from pathlib import Path

from hilum.films.read import find
from hilum.inference.model import load
from hilum.storage import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("docs/records/films/answers.csv"))
    options = parser.parse_args()
    root = Path(os.environ["HILUM_FILMS"])
    files = find([root / "dicom", root / "ood"])
    model = load()
    answers = model.answers(files, workers=options.workers)
    counts: Counter[tuple[str, str]] = Counter()
    with atomic_write(options.out, "w") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["film", "decision", "reasons", "error", "model"])
        for file, answer in zip(files, answers, strict=True):
            film = file.relative_to(root)
            counts[film.parts[0], answer.decision or "unreadable"] += 1
            reasons = " ".join(dict.fromkeys(reason.code for reason in answer.reasons))
            error = answer.error.code if answer.error else ""
            digest = answer.model["digest"]
            table.writerow([film.as_posix(), answer.decision or "", reasons, error, digest])
    for (folder, decision), count in sorted(counts.items()):
        print(f"{folder}: {decision} {count}", file=sys.stderr)


if __name__ == "__main__":
    main()
