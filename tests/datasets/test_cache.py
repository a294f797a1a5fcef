from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from hilum.datasets import cache as room
from hilum.datasets.cache import Cache, clear, usage
from hilum.datasets.index import index
from hilum.datasets.manifest import Manifest
from hilum.errors import DiskFull, Locked, Refused, TooManyUnreadable
from hilum.films.preprocess import Preprocessing, described, preprocess
from hilum.films.radiograph import Reason
from hilum.films.read import read
from hilum.progress import Progress

SMALL = Preprocessing(size=16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))  # empty for each test


@pytest.fixture
def films(write, root) -> Manifest:
    write(*(f"{name}/{i}.png" for name in ("NORMAL", "PNEUMONIA") for i in range(20)))
    return index(root, draw=False)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the films that were decoded, in this process."""
    names = []

    def counted(film, preprocessing):
        names.append(Path(film.name).name)
        return described(film, preprocessing)

    monkeypatch.setattr(room, "described", counted)
    return names


def shelf(preprocessing: Preprocessing = SMALL) -> Path:
    return usage()[0] / preprocessing.digest


def truth(manifest: Manifest, preprocessing: Preprocessing = SMALL) -> np.ndarray:
    return np.stack([preprocess(read(file), preprocessing) for file in manifest.files()])


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_those_of_preprocess(films, workers):
    cache = Cache.fill(films, SMALL, workers=workers)
    assert (cache.of(np.arange(40)) == truth(films)).all()
    assert cache.pixels.dtype == np.uint8
    assert not cache.pixels.flags.writeable
    assert cache.rows.dtype == np.int64
    assert cache.unreadable == cache.refused == []


def test_films_are_decoded_once(films, decoded):
    Cache.fill(films, SMALL, workers=0)
    assert len(decoded) == 40
    again = Cache.fill(films, SMALL, workers=0)
    assert len(decoded) == 40
    assert (again.of(np.arange(40)) == truth(films)).all()


def test_a_changed_label_or_one_more_film_decodes_nothing_again(films, decoded, write, root):
    Cache.fill(films, SMALL, workers=0)
    (root / "NORMAL/7.png").rename(root / "PNEUMONIA/70.png")
    write("NORMAL/21.png")
    decoded.clear()
    # A film that moved to another folder is another film; the one more is decoded, no other.
    Cache.fill(index(root, draw=False), SMALL, workers=0)
    assert sorted(decoded) == ["21.png", "70.png"]
    decoded.clear()
    flipped = Manifest(
        films.root, films.path, (1 - films.label).astype(np.int8), films.patient, films.part
    ).select(np.array([p != "NORMAL/7.png" for p in films.path]))
    Cache.fill(flipped, SMALL, workers=0)
    assert decoded == []


def test_a_changed_film_is_decoded_again(films, decoded, write):
    Cache.fill(films, SMALL, workers=0)
    decoded.clear()
    write("NORMAL/3.png", data=films.files()[0].read_bytes())
    cache = Cache.fill(films, SMALL, workers=0)
    assert decoded == ["3.png"]
    assert (cache.of(np.arange(40)) == truth(films)).all()


def test_another_preprocessing_is_another_shelf(films):
    Cache.fill(films, SMALL, workers=0)
    larger = Cache.fill(films, Preprocessing(size=20), workers=0)
    assert larger.pixels.shape[1:] == (20, 20)
    assert (Cache.fill(films, SMALL, workers=0).of(np.arange(40)) == truth(films)).all()


def test_a_selection_finds_its_rows(films):
    Cache.fill(films, SMALL, workers=0)
    some = films.select(np.array([30, 2, 2, 17]))
    assert (Cache.fill(some, SMALL, workers=0).of(np.arange(4)) == truth(some)).all()


# Damage


@pytest.mark.parametrize("name", ["pixels.u8", "index.bin"])
@pytest.mark.parametrize("damage", ["bytes", "cut", "gone", "empty"])
def test_damaged_pixels_are_made_again(films, decoded, name, damage):
    Cache.fill(films, SMALL, workers=0)
    file = shelf() / name
    data = bytearray(file.read_bytes())
    if damage == "bytes":
        data[5 * len(data) // 40] ^= 0x10
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2 + 3])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    decoded.clear()
    cache = Cache.fill(films, SMALL, workers=0)
    assert (cache.of(np.arange(40)) == truth(films)).all()
    assert len(decoded) == {"bytes": 1, "cut": len(decoded), "gone": 40, "empty": 40}[damage]
    assert 1 <= len(decoded) <= 40
    decoded.clear()
    Cache.fill(films, SMALL, workers=0)
    assert decoded == []


def test_a_reason_cut_short_by_a_kill_is_passed_over(films, decoded, write, root):
    write("NORMAL/broken.png", data=b"\x89PNG\r\n\x1a\n")
    with_broken = index(root, draw=False)
    Cache.fill(with_broken, SMALL, workers=0)
    file = shelf() / "reasons.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    cache = Cache.fill(with_broken, SMALL, workers=0)
    assert [path for path, _ in cache.unreadable] == ["NORMAL/broken.png"]
    assert Cache.fill(with_broken, SMALL, workers=0).unreadable == cache.unreadable


# Films without pixels


def test_unreadable_films_are_listed_and_remembered(films, write, root, monkeypatch):
    write("NORMAL/broken.png", data=films.files()[0].read_bytes()[:200])
    manifest = index(root, draw=False)
    cache = Cache.fill(manifest, SMALL, workers=2)
    row = manifest.path.index("NORMAL/broken.png")
    assert cache.rows[row] == -1
    ((path, reason),) = cache.unreadable
    assert path == "NORMAL/broken.png"
    assert isinstance(reason, Reason) and reason.code and reason.text
    with pytest.raises(ValueError, match="without pixels"):
        cache.of(np.array([row]))
    monkeypatch.setattr(room, "Workers", None)  # nothing is left to do
    assert Cache.fill(manifest, SMALL).unreadable == cache.unreadable
    good = np.flatnonzero(cache.rows >= 0)
    assert (cache.of(good) == truth(manifest.select(good))).all()


def test_another_version_tries_unreadable_films_again(films, write, root, monkeypatch, decoded):
    write("NORMAL/broken.png", data=b"\x89PNG\r\n\x1a\n")
    manifest = index(root, draw=False)
    Cache.fill(manifest, SMALL, workers=0)
    tried = []
    monkeypatch.setattr(room, "decode_into", lambda *a: tried.append(a) or room.zlib.crc32(b""))
    Cache.fill(manifest, SMALL, workers=0)
    assert not tried
    monkeypatch.setattr("hilum.datasets.shelf.__version__", "99")
    Cache.fill(manifest, SMALL, workers=0)
    assert len(tried) == 1


def test_a_film_that_is_gone_is_unreadable_and_comes_back(films, root):
    Cache.fill(films, SMALL, workers=0)
    (root / "NORMAL/3.png").rename(root / "x")
    cache = Cache.fill(films, SMALL, workers=0)
    assert [(path, reason.code) for path, reason in cache.unreadable] == [
        ("NORMAL/3.png", "missing")
    ]
    (root / "x").rename(root / "NORMAL/3.png")
    assert Cache.fill(films, SMALL, workers=0).unreadable == []


def test_too_many_unreadable_films_stop_the_run_and_keep_what_was_made(films, write, root, decoded):
    write("PNEUMONIA/bad0.png", "PNEUMONIA/bad1.png", "PNEUMONIA/bad2.png", data=b"not a film")
    manifest = index(root, draw=False)
    with pytest.raises(
        TooManyUnreadable, match=r"2 so far \(PNEUMONIA/bad0\.png: .*; PNEUMONIA/bad1\.png"
    ) as caught:
        Cache.fill(manifest, SMALL, workers=0)
    assert "\n" not in str(caught.value)
    assert len(decoded) == 40
    cache = Cache.fill(manifest, SMALL, workers=0, limit=0.1)
    assert len(decoded) == 40
    assert len(cache.unreadable) == 3
    with pytest.raises(TooManyUnreadable, match="3 of 43"):
        Cache.fill(manifest, SMALL, workers=0)


def test_one_unreadable_film_never_stops_a_run_unless_told(films, write, root):
    write("PNEUMONIA/bad.png", data=b"")
    manifest = index(root, draw=False)
    assert len(Cache.fill(manifest, SMALL, workers=0).unreadable) == 1
    with pytest.raises(TooManyUnreadable):
        Cache.fill(manifest, SMALL, workers=0, limit=0)


@pytest.mark.films
def test_refused_films_have_no_pixels_and_a_reason(films_folder, tmp_path):
    """A CT among chest films: readable, but no model must learn or judge it."""
    chosen = sorted((films_folder / "dicom/other").rglob("*.dcm"))
    ct = next(p for p in chosen if _modality(p) == "CT")
    chest = films_folder / "dicom/chest/ivmartel_gdcm-CR-MONO1-10-chest.dcm"
    manifest = Manifest(
        Path("/"), (str(ct)[1:], str(chest)[1:]), np.array([0, 1], np.int8), ("a", "b"), ("", "")
    )
    cache = Cache.fill(manifest, SMALL, workers=0)
    assert cache.rows.tolist()[0] == -1
    assert cache.rows[1] >= 0
    assert [path for path, _ in cache.refused] == [manifest.path[0]]
    assert cache.unreadable == []


def _modality(path: Path) -> str | None:
    try:
        return read(path).header.modality
    except Exception:
        return None


# Room


def test_no_room_is_said_before_the_first_film(films, monkeypatch, decoded):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(1, 1, room.MARGIN + 100))
    with pytest.raises(DiskFull, match=r"no room for 40 decoded films.*HILUM_CACHE"):
        Cache.fill(films, SMALL, workers=0)
    assert decoded == []


def test_a_disk_that_fills_up_keeps_what_was_made(films, monkeypatch, decoded):
    write_at = os.pwrite

    def full(descriptor, data, place):
        if len(decoded) > 25 and len(data) == 256:
            raise OSError(28, "No space left on device")
        return write_at(descriptor, data, place)

    monkeypatch.setattr(room.os, "pwrite", full)
    with pytest.raises(DiskFull, match="kept"):
        Cache.fill(films, SMALL, workers=0)
    monkeypatch.setattr(room.os, "pwrite", write_at)
    decoded.clear()
    cache = Cache.fill(films, SMALL, workers=0)
    assert len(decoded) == 15
    assert (cache.of(np.arange(40)) == truth(films)).all()


def test_usage_and_clear(films):
    assert usage()[1] == 0
    Cache.fill(films, SMALL, workers=0)
    folder, size = usage()
    assert size >= 40 * 256
    assert clear() == (folder, size)
    assert usage()[1] <= 4096 * 2  # the lock
    assert (Cache.fill(films, SMALL, workers=0).of(np.arange(40)) == truth(films)).all()


def test_pixels_outlive_a_clearing(films):
    cache = Cache.fill(films, SMALL, workers=0)
    clear()
    assert (cache.of(np.arange(40)) == truth(films)).all()


def test_estimate_and_progress_are_told(films):
    class Listening(Progress):
        def say(self, text):
            said.append(text)

    said: list[str] = []
    Cache.fill(films, SMALL, workers=0, progress=Listening())
    assert "40 films to 16 × 16" in said[0]


# Two processes and a kill

FILL = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.films.preprocess import Preprocessing
from hilum.progress import Progress
class Gated(Progress):
    # Stands still behind the seventh film for as long as there is a file called gate.
    @contextmanager
    def stage(self, name, total=None):
        films = 0
        def advance(steps=1):
            nonlocal films
            films += steps
            if films == 7:
                print("at the gate", flush=True)
                while Path(sys.argv[2]).exists():
                    time.sleep(0.01)
        yield advance
    def say(self, text):
        print(text, flush=True)
manifest = Manifest.read(sys.argv[1])
Cache.fill(manifest, Preprocessing(size=16), workers=int(sys.argv[3]), progress=Gated())
print("done", flush=True)
"""


def start(manifest: Path, gate: Path, workers: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FILL, str(manifest), str(gate), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
    )


def lines_until(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            return
    raise AssertionError(f"ended before it said {wanted!r}")


@pytest.fixture
def gate(tmp_path) -> Path:
    (tmp_path / "gate").touch()
    return tmp_path / "gate"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_where_it_was(films, tmp_path, gate, decoded, workers):
    films.write(tmp_path / "films.csv")
    process = start(tmp_path / "films.csv", gate, workers)
    lines_until(process, "at the gate")
    process.send_signal(signal.SIGKILL)
    process.wait()
    cache = Cache.fill(films, SMALL, workers=0)
    assert len(decoded) == 40 - 7
    assert (cache.of(np.arange(40)) == truth(films)).all()
    time.sleep(0.2)  # should a worker have outlived its run, it must not write here
    assert (cache.of(np.arange(40)) == truth(films)).all()


def test_two_runs_at_once(films, tmp_path, gate, decoded):
    films.write(tmp_path / "films.csv")
    first = start(tmp_path / "films.csv", gate, 0)
    lines_until(first, "at the gate")
    with pytest.raises(Locked):
        clear()
    second = start(tmp_path / "films.csv", gate, 0)
    lines_until(second, "waiting")
    gate.unlink()
    lines_until(first, "done")
    lines_until(second, "done")
    assert first.wait() == second.wait() == 0
    cache = Cache.fill(films, SMALL, workers=0)
    assert decoded == []
    assert len(cache.pixels) == 40  # the second made nothing
    assert (cache.of(np.arange(40)) == truth(films)).all()


@pytest.mark.films
def test_kermany_whole(films_folder):
    """All 5,232 films: counts as published, every one decodes, pixels as preprocess makes them."""
    manifest = index(films_folder / "kermany_224")
    assert len(manifest) == 5232
    assert (manifest.label == 0).sum() == 1349
    pneumonia = {manifest.patient[i] for i in np.flatnonzero(manifest.label == 1)}
    assert len(pneumonia) == 2443 + 7
    assert manifest.notes["merged"]["films"] == 16
    for part, share in (("validation", 0.15), ("test", 0.15)):
        assert abs(len(manifest.of_part(part)) / 5232 - share) < 0.02
    cache = Cache.fill(manifest, SMALL)
    assert not cache.unreadable and not cache.refused
    some = np.arange(0, 5232, 97)
    assert (cache.of(some) == truth(manifest.select(some))).all()


def test_keys_that_end_in_zeros_are_found_again(films, write, root, monkeypatch, decoded):
    from hashlib import blake2b

    class Ending:  # one key in 256 ends so
        def __init__(self, data, digest_size):
            self._key = blake2b(data, digest_size=digest_size - 1).digest() + b"\0"

        def digest(self):
            return self._key

    monkeypatch.setattr("hilum.datasets.shelf.blake2b", Ending)
    write("NORMAL/broken.png", data=b"\x89PNG\r\n\x1a\n")
    manifest = index(root, draw=False)
    cache = Cache.fill(manifest, SMALL, workers=0)
    assert len(decoded) == 40
    again = Cache.fill(manifest, SMALL, workers=0)
    assert len(decoded) == 40
    assert again.unreadable == cache.unreadable != []
    assert (again.rows == cache.rows).all()


def test_a_cache_that_cannot_be_written_is_one_line(
    films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(Refused, match=r"cannot be kept: .*Set HILUM_CACHE to a folder"):
        Cache.fill(films, SMALL, workers=0)
