"""One film in four coats: how far do a network's pixels, and its answers, differ?

    HILUM_FILMS=... python benchmarks/jpeg_and_dicom.py [--model BUNDLE]

Each of Kermany's original JPEG files is read as it is (the decoder may scale by a power of two),
as a full-size decode, wrapped into DICOM as it is, and as uncompressed DICOM of the decoded
values. Differences of the uint8 pixels from the first go to
``docs/records/films/jpeg_and_dicom.json``; with a model also differences of the logit and the
number of decisions that change at its default operating point.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from hilum.films import jpeg
from hilum.films.picture import png
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read
from hilum.storage import write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "films"))
import dicoms


def coats(data: bytes) -> dict[str, bytes]:
    """The same film as files of four kinds."""
    full = read(data).pixels
    wrapped = dicoms.header(full)
    if jpeg.read_header(data).components == 3:
        wrapped.SamplesPerPixel, wrapped.PlanarConfiguration = 3, 0
        wrapped.PhotometricInterpretation = "YBR_FULL_422"
    wrapped.PixelData = encapsulate([data])
    wrapped["PixelData"].is_undefined_length = True
    wrapped.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return {
        "JPEG": data,
        "full decode (PNG)": png(full),
        "DICOM, the JPEG inside": dicoms.file(wrapped),
        "DICOM, uncompressed": dicoms.film(full),
    }


def differences(found: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    by_film = [np.abs(a.astype(int) - b) for a, b in zip(found, wanted, strict=True)]
    every = np.concatenate([film.ravel() for film in by_film])
    return {
        "films_that_differ": int(sum(film.any() for film in by_film)),
        "mean": round(float(every.mean()), 4),
        "p99": round(float(np.quantile(every, 0.99)), 1),
        "largest": int(every.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128, 160, 224, 500])
    parser.add_argument("--model", type=Path, help="a bundle: also compare its answers")
    parser.add_argument("--out", type=Path, default=Path("docs/records/films/jpeg_and_dicom.json"))
    options = parser.parse_args()
    files = sorted((Path(os.environ["HILUM_FILMS"]) / "kermany_original").rglob("*.jpeg"))
    model: Any = None
    if options.model:
        from hilum.inference.model import load

        model = load(options.model)
        options.sizes = [model.bundle.preprocessing.size]
    record: dict[str, Any] = {
        "command": "python benchmarks/jpeg_and_dicom.py"
        + (f" --model {options.model}" if options.model else ""),
        "films": len(files),
        "sizes": {},
    }
    pixels: dict[int, dict[str, list[np.ndarray]]] = {size: {} for size in options.sizes}
    scaled = dict.fromkeys(options.sizes, 0)
    for file in files:
        data = file.read_bytes()
        for size in options.sizes:
            film = read(data)
            scaled[size] += film.decode(2 * size).values.shape != film.pixels.shape
        for coat, content in coats(data).items():
            for size in options.sizes:
                found = preprocess(read(content), Preprocessing(size))
                pixels[size].setdefault(coat, []).append(found)
    for size, by_coat in pixels.items():
        plain = by_coat["JPEG"]
        entry: dict[str, Any] = {"films_decoded_scaled": scaled[size]}
        for coat, found in by_coat.items():
            entry[coat] = differences(found, plain)
            if model is not None:
                logits, base = model.logits(np.stack(found)), model.logits(np.stack(plain))
                bundle = model.bundle
                threshold = bundle.operating_points[bundle.default_operating_point].threshold
                decided = model.probability(logits) >= threshold
                entry[coat]["largest_logit_difference"] = round(
                    float(np.abs(logits - base).max()), 4
                )
                entry[coat]["decisions_that_change"] = int(
                    (decided != (model.probability(base) >= threshold)).sum()
                )
        record["sizes"][str(size)] = entry
    if model is not None:
        record["model"] = model.bundle.digest
    write_json(options.out, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
