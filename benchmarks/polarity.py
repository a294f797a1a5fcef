"""Make the mean chest film of ``hilum.films.polarity`` and see whom its threshold refers.

    HILUM_FILMS=... python benchmarks/polarity.py

The mean is of 700 of Kermany's and 400 of NIH's training films, drawn by a seed. The likeness of
all films, and of the strangers' pictures, goes to ``docs/records/films/polarity.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hilum.films import polarity
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read
from hilum.storage import write_json

SIZE = Preprocessing(64)


def load(files: list[Path]) -> np.ndarray:
    return np.stack([preprocess(read(file), SIZE) for file in files])


def standardised(films: np.ndarray) -> np.ndarray:
    small = films.reshape(len(films), 8, 8, 8, 8).mean((2, 4))
    small -= small.mean((1, 2), keepdims=True)
    return small / np.linalg.norm(small, axis=(1, 2), keepdims=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if "HILUM_FILMS" not in os.environ:
        raise SystemExit("polarity: name the folder of the films in HILUM_FILMS.")
    folder = Path(os.environ["HILUM_FILMS"])
    random = np.random.default_rng(0)
    sets = {
        "kermany_224": sorted((folder / "kermany_224").rglob("*.jpeg")),
        "nih/images_256": sorted((folder / "nih/images_256").glob("*.jpg")),
        "ood": sorted(file for file in (folder / "ood").rglob("*") if file.is_file()),
    }
    films = {name: load(files) for name, files in sets.items()}
    drawn = [
        films["kermany_224"][random.permutation(len(films["kermany_224"]))[:700]],
        films["nih/images_256"][random.permutation(len(films["nih/images_256"]))[:400]],
    ]
    mean = sum(standardised(part).mean(0) for part in drawn)
    mean = (mean + mean[:, ::-1]) / 2
    half = np.rint(100 * mean / np.abs(mean).max()).astype(int)[:, :4]
    record: dict[str, Any] = {
        "command": "python benchmarks/polarity.py",
        "left_half_of_the_mean": half.tolist(),
        "threshold": polarity.NEGATIVE,
    }
    for name, values in films.items():
        found = np.array([polarity.likeness(film) for film in values])
        low = np.argsort(found)[:5]
        record[name] = {
            "n": len(found),
            "median": round(float(np.median(found)), 3),
            "p1": round(float(np.quantile(found, 0.01)), 3),
            "least": {sets[name][i].name: round(float(found[i]), 3) for i in low},
            "referred": int((found < polarity.NEGATIVE).sum()),
            "negatives_referred": int((-found < polarity.NEGATIVE).sum()),
        }
    write_json(Path("docs/records/films/polarity.json"), record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
