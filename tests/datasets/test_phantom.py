"""Made-up films: what they promise to the demo and to other tests."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hilum.datasets.phantom import PATTERNS, SHORTCUTS, Patient, draw, make
from hilum.errors import FolderTaken, UsageError

TINY: dict[str, Any] = {"size": (64, 80)}


def auroc(positive: list[float] | np.ndarray, negative: list[float] | np.ndarray) -> float:
    """Share of pairs in which the positive is higher; ties count half."""
    p, n = np.asarray(positive, float)[:, None], np.asarray(negative, float)[None, :]
    return float((p > n).mean() + 0.5 * (p == n).mean())


def files(root: Path, folder: str) -> list[Path]:
    return sorted(path for path in root.rglob(f"{folder}/*"))


def films_in(root: Path) -> list[Path]:
    """All files but the one that says what they are."""
    return [path for path in root.rglob("*") if path.is_file() and path.name != "about.json"]


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in films_in(root)}


# One film


@settings(max_examples=12)
@given(
    st.integers(0, 2**40),
    st.booleans(),
    st.tuples(st.integers(48, 140), st.integers(48, 140)),
)
def test_a_film_has_its_size_and_the_seed_makes_it(
    seed: int, positive: bool, size: tuple[int, int]
) -> None:
    film = draw(seed, positive=positive, size=size)
    assert film.shape == size
    assert film.dtype == np.uint8
    assert film.std() > 15  # something is on it
    assert np.array_equal(film, draw(seed, positive=positive, size=size))
    assert not np.array_equal(film, draw(seed + 1, positive=positive, size=size))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_opacity_brightens_lung_and_nothing_else(pattern: str) -> None:
    """The same film with and without: brighter by far in a part of it, alike elsewhere."""
    for seed in range(5):
        plain = draw(seed, positive=False).astype(float)
        ill = draw(seed, positive=True, pattern=pattern, strength=1.0).astype(float)
        change = ill - plain
        assert np.percentile(change, 99) > 12
        assert (np.abs(change) < 8).mean() > 0.55  # scatter lifts all a little
        assert change.min() > -20  # dark twigs of bronchi at most
        brightened = plain[change > 15]
        assert np.median(brightened) < np.percentile(plain, 75)  # it was dark: lung


def test_strength_is_ordered() -> None:
    plain = draw(3, positive=False).astype(float)
    changes = [
        np.abs(draw(3, positive=True, strength=s).astype(float) - plain).mean()
        for s in (0.2, 0.5, 1.0)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_unknown_patterns_are_refused() -> None:
    with pytest.raises(ValueError, match="no such pattern"):
        draw(0, positive=True, pattern="cavity")


def test_films_of_one_patient_differ_but_show_the_same_child() -> None:
    """Correlation within patients is above that between them, pose and exposure drawn anew."""
    rng = np.random.default_rng(0)
    people = [Patient.drawn(rng) for _ in range(12)]
    size = (72, 90)
    films = [
        [draw(97 * i + j, positive=False, size=size, patient=p) for j in (0, 1)]
        for i, p in enumerate(people)
    ]
    assert not any(np.array_equal(a, b) for a, b in films)
    first = np.stack([a.ravel() for a, _ in films]).astype(float)
    second = np.stack([b.ravel() for _, b in films]).astype(float)
    table = np.corrcoef(first, second)[:12, 12:]
    within, between = np.diag(table).mean(), table[~np.eye(12, dtype=bool)].mean()
    assert within > between + 0.02


def test_a_film_is_drawn_quickly() -> None:
    """About 6 ms at 160 px and 35 ms at 512 px on one free core; far above means a mistake."""
    for size, limit in (((160, 160), 0.030), ((512, 512), 0.200)):
        draw(0, positive=True, size=size)
        spent = []
        for seed in range(5):
            begin = time.process_time()
            draw(seed, positive=True, size=size)
            spent.append(time.process_time() - begin)
        assert min(spent) < limit  # a busy machine slows some of them


# A data set


@pytest.fixture(scope="module")
def kermany(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("phantom") / "set", films=240, seed=4, **TINY)


def test_names_and_folders_are_kermanys(kermany: Path) -> None:
    paths = [p.relative_to(kermany) for p in films_in(kermany)]
    assert len(paths) == 240
    assert {p.parts[:2] for p in paths} == {
        (part, label) for part in ("train", "test") for label in ("NORMAL", "PNEUMONIA")
    }
    keys: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        part, label, name = path.parts
        if label == "PNEUMONIA":
            person, agent, number = Path(name).stem.split("_")
            assert person.startswith("person") and agent in ("bacteria", "virus") and int(number)
            keys[f"{agent}{person}"].add(part)
        else:
            prefix, patient, _film = Path(name).stem.rsplit("-", 2)
            assert prefix in ("IM", "NORMAL2-IM")
            keys[f"{prefix}{patient}"].add(part)
    assert all(len(parts) == 1 for parts in keys.values())  # a patient lies in one part
    assert 240 / 4 <= len(keys) < 240  # several films a patient
    share = len([p for p in paths if p.parts[1] == "PNEUMONIA"]) / 240
    assert 0.5 < share < 0.7
    assert 0.7 < len([p for p in paths if p.parts[0] == "train"]) / 240 < 0.9


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for layout, formats in (("kermany", ("jpeg", "png")), ("dicom", None)):
        a, b, c = (
            make(
                tmp_path / f"{layout}{i}",
                films=6,
                seed=seed,
                layout=layout,
                formats=formats,
                **TINY,
            )
            for i, seed in enumerate((1, 1, 2))
        )
        assert content(a) == content(b)
        assert set(content(a).values()).isdisjoint(set(content(c).values()) - {b""})


def test_brightness_alone_does_not_tell_the_class(kermany: Path) -> None:
    mean = {
        label: [float(np.asarray(Image.open(p)).mean()) for p in files(kermany, label)]
        for label in ("NORMAL", "PNEUMONIA")
    }
    assert 0.2 < auroc(mean["PNEUMONIA"], mean["NORMAL"]) < 0.8


def file_features(path: Path) -> dict[str, float]:
    with Image.open(path) as film:
        width, height = film.size
        profile = float("icc_profile" in film.info)
        table = sum(film.quantization[0]) if hasattr(film, "quantization") else 0
    return {
        "quality": -float(table),
        "profile": profile,
        "shape": width / height,
        "size": float(width * height),
        "bytes": float(path.stat().st_size),
    }


def told_by_files(root: Path) -> dict[str, float]:
    """How well each feature of the file separates the classes, 0.5 to 1."""
    of = {
        label: [file_features(p) for p in files(root, label)] for label in ("NORMAL", "PNEUMONIA")
    }
    told = {}
    for name in of["NORMAL"][0]:
        value = auroc([f[name] for f in of["PNEUMONIA"]], [f[name] for f in of["NORMAL"]])
        told[name] = max(value, 1 - value)
    return told


def test_the_file_does_not_tell_the_class(kermany: Path) -> None:
    assert max(told_by_files(kermany).values()) < 0.7


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_planted_shortcut_tells_the_class_outside_the_test_part(
    shortcut: str, tmp_path: Path
) -> None:
    root = make(
        tmp_path / "set",
        films=90,
        shortcut=shortcut,
        parts={"train": 0.6, "test": 0.4},
        size=(48, 60),
    )
    assert told_by_files(root / "train")[shortcut] > 0.95
    assert told_by_files(root / "test")[shortcut] < 0.75


def test_flat_has_class_folders_and_mendeleys_names(tmp_path: Path) -> None:
    root = make(tmp_path / "set", patients=12, layout="flat", **TINY)
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"NORMAL", "PNEUMONIA"}
    for path in files(root, "PNEUMONIA"):
        agent, patient, film = path.stem.split("-")
        assert agent in ("BACTERIA", "VIRUS") and len(patient) == 7 and len(film) == 4


def test_parts_can_be_named_or_left_out(tmp_path: Path) -> None:
    parts = {"train": 0.7, "val": 0.1, "test": 0.2}
    root = make(tmp_path / "a", patients=20, parts=parts, **TINY)
    assert {p.name for p in root.iterdir() if p.is_dir()} == set(parts)
    for part in parts:
        assert files(root / part, "NORMAL") and files(root / part, "PNEUMONIA")
    root = make(tmp_path / "b", patients=6, parts={}, **TINY)
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"NORMAL", "PNEUMONIA"}


def test_films_of_the_dicom_layout_are_valid_radiographs(tmp_path: Path) -> None:
    import pydicom

    root = make(
        tmp_path / "set",
        films=12,
        layout="dicom",
        formats=("dicom", "dicom-monochrome1"),
        parts={"train": 0.5, "test": 0.5},
        **TINY,
    )
    with (root / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert {row["label"] for row in rows} == {"0", "1"}
    assert {row["part"] for row in rows} == {"train", "test"}
    seen = defaultdict(list)
    for row in rows:
        film = pydicom.dcmread(root / row["path"])
        assert film.file_meta.MediaStorageSOPInstanceUID == film.SOPInstanceUID
        assert (film.Modality, film.BodyPartExamined, film.BitsStored) == ("DX", "CHEST", 12)
        assert film.PatientID == row["patient"]
        assert 1 <= int(film.PatientAge[:3]) <= 5
        pixels = film.pixel_array
        assert pixels.max() <= 4095 and pixels.max() > 2000
        if film.PhotometricInterpretation == "MONOCHROME1":
            assert film.PresentationLUTShape == "INVERSE"
            pixels = 4095 - pixels
        # As shown: air at the corners is dark, the spine in the middle bright.
        h, w = pixels.shape
        middle = pixels[h // 3 : h // 2, int(0.46 * w) : int(0.54 * w)].mean()
        assert middle > 1.5 * pixels[h // 3 : h // 2, int(0.2 * w) : int(0.35 * w)].mean()
        seen[film.PhotometricInterpretation].append(film.SOPInstanceUID)
    assert set(seen) == {"MONOCHROME1", "MONOCHROME2"}
    assert len({uid for uids in seen.values() for uid in uids}) == 12


def test_mixed_formats_lie_side_by_side(tmp_path: Path) -> None:
    root = make(tmp_path / "set", films=24, formats=("jpeg", "png", "dicom"), **TINY)
    endings = [p.suffix for p in films_in(root)]
    assert set(endings) == {".jpeg", ".png", ".dcm"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layout": "nih"}, "no such layout: nih"),
        ({"formats": ("jpg",)}, "Did you mean 'jpeg'"),
        ({"shortcut": "profil"}, "Did you mean 'profile'"),
        ({"films": 3, "patients": 5}, "no fewer films than patients"),
        ({"patients": 0}, "two patients or more"),
        ({"films": 0}, "two patients or more"),
        ({"parts": {"train": 1.0, "test": 0.0}}, "share above 0"),
    ],
)
def test_what_cannot_be_made_is_refused(
    wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "set", **{"size": (48, 48), **wrong})


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderTaken):
        make(tmp_path, films=4)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@given(st.integers(2, 40), st.integers(0, 60), st.integers(0, 9))
@settings(max_examples=15)
def test_numbers_of_films_and_patients_are_kept(patients: int, more: int, seed: int) -> None:
    from hilum.datasets.phantom import _films_a_patient

    rng = np.random.default_rng(seed)
    counts = _films_a_patient(rng, patients + more, patients)
    assert len(counts) == patients and counts.sum() == patients + more and counts.min() >= 1
    assert _films_a_patient(rng, patients + more + 4, None).sum() == patients + more + 4


@pytest.mark.slow
def test_a_small_network_learns_the_class(tmp_path: Path) -> None:
    """300 films, a few seconds: far above brightness, which stays near chance."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    pytest.importorskip("torch")
    root = make(
        tmp_path / "set", films=450, seed=5, parts={"train": 0.7, "test": 0.3}, size=(96, 120)
    )

    def load(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        films, labels = [], []
        for label, name in enumerate(("NORMAL", "PNEUMONIA")):
            for path in files(root / part, name):
                small = Image.open(path).resize((80, 80), Image.Resampling.BILINEAR)
                film = np.asarray(small, np.float32)
                films.append((film - film.mean()) / film.std())
                labels.append(float(label))
        return torch.from_numpy(np.stack(films))[:, None], torch.tensor(labels)

    def block(n_in: int, n_out: int) -> list[nn.Module]:
        convolution = nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False)
        return [convolution, nn.BatchNorm2d(n_out), nn.ReLU()]

    torch.manual_seed(0)
    network = nn.Sequential(
        *block(1, 16),
        *block(16, 32),
        *block(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 1),
    )
    films, labels = load("train")
    epochs, batch = 20, 32
    optimiser = torch.optim.AdamW(network.parameters(), 6e-3, weight_decay=0.02)
    steps = epochs * (len(films) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(films))[: len(films) // batch * batch].split(batch):
            x = films[rows].flip(3) if torch.rand(()) < 0.5 else films[rows]
            shift = torch.randint(-5, 6, (2,)).tolist()
            loss = F.binary_cross_entropy_with_logits(
                network(x.roll(shift, (2, 3)))[:, 0], labels[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    films, labels = load("test")
    with torch.no_grad():
        logits = network.eval()(films)[:, 0].numpy()
    assert auroc(logits[labels == 1], logits[labels == 0]) > 0.85
