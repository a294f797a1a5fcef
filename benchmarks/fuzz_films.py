"""Break films in thousands of ways and see that each costs one answer and nothing else.

    HILUM_FILMS=... python benchmarks/fuzz_films.py --mutations 10000 --seed 0

Seeds are small films of every format and transfer syntax (made here; with HILUM_FILMS also the
small files of its ``dicom`` and ``ood`` folders). Each mutation is read in an isolated worker and
every hundredth is followed by a good film whose pixels must be right. Counts by outcome go to
``docs/records/films/fuzz.json``; what crashed or hung is kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hilum.errors import UnreadableFilm
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read
from hilum.films.workers import Workers
from hilum.machine import processor
from hilum.storage import write_json

PREPROCESSING = Preprocessing(64)


def answer(data: bytes) -> str:
    """Digest of the pixels, as far as they can be had."""
    film = read(data)
    return hashlib.sha256(preprocess(film, PREPROCESSING).tobytes()).hexdigest()


def seeds(films: Path | None) -> dict[str, bytes]:
    """Small good files, by name."""
    import io

    from PIL import Image
    from pydicom import uid

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "films"))
    import dicoms

    found: dict[str, bytes] = {}

    def keep(name: str, image: Image.Image, kind: str, **options: object) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        found[name] = stream.getvalue()

    grey = Image.fromarray(dicoms.chest(bits=8))
    deep = Image.fromarray(dicoms.chest(bits=16))
    keep("grey.jpg", grey, "JPEG", quality=80)
    keep("colour.jpg", grey.convert("RGB"), "JPEG", quality=80)
    keep("progressive.jpg", grey, "JPEG", progressive=True)
    keep("cmyk.jpg", grey.convert("CMYK"), "JPEG")
    keep("restarts.jpg", grey, "JPEG", restart_marker_rows=1)
    keep("grey.png", grey, "PNG")
    keep("deep.png", deep, "PNG")
    keep("palette.png", grey.convert("P"), "PNG")
    keep("alpha.png", grey.convert("RGBA"), "PNG")
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        keep(f"{compression}.tif", grey, "TIFF", compression=compression)
    keep("deep.tif", deep, "TIFF")
    for bits in (8, 12):
        pixels = dicoms.chest(bits=bits)
        for syntax in (
            uid.ImplicitVRLittleEndian,
            uid.ExplicitVRLittleEndian,
            uid.ExplicitVRBigEndian,
            uid.DeflatedExplicitVRLittleEndian,
            uid.RLELossless,
            uid.JPEGLosslessSV1,
            uid.JPEGLSLossless,
            uid.JPEG2000Lossless,
            uid.JPEG2000,
        ):
            name = f"{syntax.keyword}-{bits}.dcm"
            found[name] = dicoms.encoded(dicoms.header(pixels, BitsStored=bits), syntax)
    found["JPEGBaseline.dcm"] = dicoms.encoded(
        dicoms.header(dicoms.chest(bits=8)), uid.JPEGBaseline8Bit
    )
    if films:
        for path in sorted([*films.glob("dicom/*/*"), *films.glob("ood/*/*")]):
            if path.stat().st_size <= 120_000:
                found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return found


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """One of several ways in which files break, sometimes two."""
    broken = bytearray(data)
    for _ in range(1 + int(random.integers(2))):
        size = len(broken)
        if size < 2:
            break
        # Headers are short and matter most: half of all places lie within the first kilobyte.
        at = int(random.integers(min(size, 1024) if random.random() < 0.5 else size))
        length = int(random.integers(1, 1 + min(64, size - at)))
        match int(random.integers(8)):
            case 0:  # bits flip
                for place in random.integers(0, size, 1 + int(random.integers(8))):
                    broken[place] ^= 1 << int(random.integers(8))
            case 1:  # random bytes
                broken[at : at + length] = random.bytes(length)
            case 2:  # extreme bytes
                value = (0x00, 0xFF, 0x7F, 0x80)[int(random.integers(4))]
                broken[at : at + length] = bytes([value]) * length
            case 3:  # cut
                del broken[at:]
            case 4:  # a piece lost
                del broken[at : at + length]
            case 5:  # a piece twice
                broken[at:at] = broken[at : at + length]
            case 6:  # a piece elsewhere
                target = int(random.integers(size))
                broken[target : target + length] = broken[at : at + length]
            case _:  # a number changed by a little or a lot
                step = int(random.choice([-1, 1, 16, 127, 255]))
                broken[at] = (broken[at] + step) & 0xFF
    return bytes(broken)


def mutations(found: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` broken films, each by name with a number; the same for the same seed."""
    names = sorted(found)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        yield f"{number}:{name}", mutate(found[name], random)


def main() -> int:
    import fuzz_films  # this file by its name: workers cannot import __main__

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("docs/records/films/fuzz.json"))
    options = parser.parse_args()
    named = os.environ.get("HILUM_FILMS")
    found = seeds(Path(named) if named else None)
    good = found["grey.jpg"]
    right = answer(good)
    names: list[str] = []

    def items() -> Iterator[bytes]:
        for number, (name, data) in enumerate(mutations(found, options.mutations, options.seed)):
            names.append(name)
            yield data
            if number % 100 == 99:
                names.append("good")
                yield good

    outcomes: Counter[str] = Counter()
    wrong, lost, slowest = 0, [], 0.0
    start = time.monotonic()
    with Workers(options.workers, seconds=options.seconds, memory=2 << 30) as workers:
        before = time.monotonic()
        for number, result in workers.map(fuzz_films.answer, items(), chunk=8):
            slowest, before = max(slowest, time.monotonic() - before), time.monotonic()
            code = result.code if isinstance(result, UnreadableFilm) else "read"
            if names[number] == "good":
                wrong += result != right
                continue
            outcomes[code] += 1
            if code in ("crashed", "timeout"):
                lost.append(names[number])
    if options.keep and lost:
        options.keep.mkdir(parents=True, exist_ok=True)
        for name, data in mutations(found, options.mutations, options.seed):
            if name in lost:
                (options.keep / name.replace("/", "_").replace(":", "_")).write_bytes(data)
    record = {
        "command": f"python benchmarks/fuzz_films.py --mutations {options.mutations} "
        f"--seed {options.seed}",
        "processor": processor(),
        "seeds": len(found),
        "mutations": options.mutations,
        "outcomes": dict(outcomes.most_common()),
        "crashed_or_hung": lost,
        "good_films_wrong": wrong,
        "longest_silence_seconds": round(slowest, 2),
        "seconds": round(time.monotonic() - start, 1),
    }
    write_json(options.out, record)
    json.dump(record, sys.stdout, indent=1)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
