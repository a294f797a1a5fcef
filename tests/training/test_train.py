from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread

from hilum import machine
from hilum.bundle import Bundle
from hilum.datasets import phantom
from hilum.datasets.cache import Cache
from hilum.datasets.index import index
from hilum.datasets.manifest import Manifest
from hilum.decision import Calibration
from hilum.errors import (
    FolderTaken,
    Interrupted,
    Locked,
    PlaceUnavailable,
    RecipeError,
    Refused,
    TrainingStopped,
    UsageError,
)
from hilum.evaluation.scores import Scores
from hilum.inference.engine import Engine
from hilum.machine import Place
from hilum.networks.kernels import available
from hilum.progress import Progress
from hilum.storage import digest, lock
from hilum.training import finish as finishing
from hilum.training import memory, placement
from hilum.training import train as single
from hilum.training.graph import Graph
from hilum.training.learner import TorchLearner, new_network
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.run import Run
from hilum.training.shards import Team
from hilum.training.train import resume, train

from .conftest import film, recipe_of

TABLES: dict[str, Any] = {
    "training": {"epochs": 4, "last_batch": "drop"},
    "optimiser": {"name": "muon", "lr": 0.004},
    "schedule": {"name": "linear", "warmup": 0.2},
    "averaging": {"decay": 0.9, "every": 2},
    "network": {"options": {"width": 4, "dropout": 0.2}},
    "finish": {"shifts": ["exposure", "crop"]},
}
QUICK = {**TABLES, "training": {"epochs": 1}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Small films of noise, bright in the middle where positive; two of each patient."""
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    paths, labels, patients, parts = [], [], [], []
    for number in range(72):
        label = number // 2 % 2
        paths.append(f"film{number:02}.png")
        Image.fromarray(film(rng, 40, 48, label)).save(root / paths[-1])
        labels.append(label)
        patients.append(f"patient{number // 2}")
        parts.append(("train", "train", "validation", "test")[number // 4 % 4])
    return Manifest(
        root, tuple(paths), np.array(labels, np.int8), tuple(patients), tuple(parts)
    )  # fmt: skip


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    found = run.last()
    assert found is not None
    weights: dict[str, torch.Tensor] = found[0]["learner"]["average"]
    return weights


def alike(one: Run, two: Run) -> None:
    """The same weights to the bit, the same epochs but for time, the same model."""
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    timeless = [
        [replace(epoch, seconds=0, ms_per_step=0) for epoch in run.epochs] for run in (one, two)
    ]
    assert timeless[0] == timeless[1]
    assert one.bundle.digest == two.bundle.digest


@pytest.fixture(scope="module")
def whole(data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        out = tmp_path_factory.mktemp("runs") / "whole"
        return train(data, recipe_of(**TABLES), on="cpu:1", out=out, workers=0)


def test_a_run_folder_holds_everything(whole: Run, data: Manifest) -> None:
    assert {path.name for path in whole.folder.iterdir()} == {
        "recipe.toml", "films.csv", "films.json", "environment.json", "epochs.csv",
        "checkpoint.pt", "scores.csv", "model.hilum", "lock", "curves.png", "augmented.png",
    }  # fmt: skip
    assert whole.recipe == recipe_of(**TABLES)
    assert Manifest.read(whole.folder / "films.csv").digest == data.digest
    environment = whole.environment
    assert environment["place"] == "cpu:1@float32"
    assert environment["threads"] == 1
    assert environment["torch"] == torch.__version__
    assert [epoch.epoch for epoch in whole.epochs] == [1, 2, 3, 4]
    for name in ("curves.png", "augmented.png"):
        assert Image.open(whole.folder / name).size[0] > 100


def test_what_was_sealed_is_what_was_measured(whole: Run, data: Manifest) -> None:
    bundle = whole.bundle
    scores = Scores.read(whole.folder / "scores.csv")
    rows = np.flatnonzero(np.array(data.part) != "train")  # training films are not scored
    assert scores.film == tuple(data.path[row] for row in rows)
    pixels = Cache.fill(data, bundle.preprocessing, workers=0).of(rows)
    logits, cams = Engine(bundle, threads=1).run(pixels, cam=True)
    np.testing.assert_allclose(scores.logit, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scores.probability, bundle.calibration.probability(logits), rtol=1e-4, atol=1e-6
    )
    assert cams is not None
    np.testing.assert_allclose(cams.mean((1, 2)), logits, atol=1e-4)
    assert bundle.metrics["validation"]["auroc"]["n"] == 16
    assert bundle.metrics["validation"]["auroc"]["value"] > 0.9


def test_the_threads_that_score_validation_change_nothing(whole: Run, data: Manifest) -> None:
    cache = Cache.fill(data, whole.bundle.preprocessing, workers=0)
    films = single.open_films(data, whole.recipe, workers=0)[1][1]

    def scored(threads: int) -> dict[str, Any]:
        given = whole.bundle, whole.recipe, data, cache, films
        team = Team(threads, threads)
        return dict(finishing.validation_choice(*given, team).logits)

    one, three = scored(1), scored(3)
    assert list(one) == ["plain", "exposure", "crop"]
    for shift, logits in one.items():
        assert len(logits) == len(films)
        np.testing.assert_array_equal(logits, three[shift])
    assert not np.array_equal(one["plain"], one["crop"])


def test_the_bundle_says_what_it_is(whole: Run, data: Manifest) -> None:
    bundle = whole.bundle
    assert set(bundle.operating_points) == {"balanced", "screening"}
    assert bundle.default_operating_point == "balanced"
    for point in bundle.operating_points.values():
        assert 0 < point.threshold < 1
        assert "exposure, crop" in point.chosen_on
        assert point.promise is not None
    assert bundle.calibration != Calibration()
    trained = bundle.trained_on
    part = np.array(data.part)
    files = data.files()
    for name, key in (("train", "films"), ("validation", "chosen_on")):
        rows = np.flatnonzero(part == name)
        assert trained[name]["films"] == len(rows)
        assert trained[key] == sorted(digest(files[i])[:16] for i in rows)
    assert bundle.input_statistics["films"] == trained["train"]["films"]
    assert "Not a medical device" in bundle.card
    assert bundle.target == "pneumonia"
    assert Bundle.read(whole.folder).digest == bundle.digest


def test_the_order_of_finishing(
    data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            called.append(name)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in [
        (finishing, "export"),
        (finishing, "parity"),
        (Engine, "run"),
        (finishing, "imitate"),
        (finishing.thresholds, "calibrate"),
        (finishing.thresholds, "choose"),
        (finishing, "measure"),
        (finishing, "card"),
        (Bundle, "sealed"),
    ]:
        watch(owner, name)
    train(data, recipe_of(**QUICK), on="cpu:1", out=tmp_path / "run", workers=0)
    first = list(dict.fromkeys(called))
    assert first == ["export", "parity", "run", "imitate", "calibrate", "choose", "measure",
                     "card", "sealed"]  # fmt: skip
    assert called.index("calibrate") > max(i for i, n in enumerate(called) if n == "imitate")


@pytest.mark.parametrize("name, cores", [("cpu:1", 1), ("cpu:2x2", 4), ("cpu:4x2", 6), ("cuda", 6)])
def test_a_run_is_finished_by_all_cores_that_it_had(
    name: str, cores: int, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def finish(*rest: Any, threads: int, progress: Any) -> Any:
        given["threads"] = threads
        raise KeyboardInterrupt

    monkeypatch.setattr(single, "finish", finish)
    monkeypatch.setattr(single, "curves", lambda *rest: None)
    monkeypatch.setattr(single.machine, "cores", lambda: 6)
    monkeypatch.setattr(single.machine, "set_threads", lambda n: given.update(torch=n))
    learner: Any = type("Learner", (), {"network": lambda self: None})()
    rest: Any = whole, recipe_of(), None, None, (None, None)
    with pytest.raises(KeyboardInterrupt):
        single.seal(*rest, Place.parse(name), learner, Progress())
    assert given == {"torch": cores, "threads": cores}


def test_a_graph_that_differs_is_never_shipped(
    data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = finishing.export

    def wrong(graph: Graph, size: int) -> bytes:
        with torch.no_grad():
            graph.network.classifier.bias.add_(0.5)
            model = real(graph, size)
            graph.network.classifier.bias.sub_(0.5)
        return model

    monkeypatch.setattr(finishing, "export", wrong)
    with pytest.raises(TrainingStopped, match="does not answer like the trained network"):
        train(data, recipe_of(**QUICK), on="cpu:1", out=tmp_path / "run", workers=0)
    run = Run(tmp_path / "run")
    assert not run.finished and run.last() is not None
    monkeypatch.undo()
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    assert resume(run.folder, workers=0).finished


def test_a_network_that_has_died_is_sealed_and_told(data: Manifest, tmp_path: Path) -> None:
    told: list[str] = []

    class Listening(Progress):
        def warn(self, text: str) -> None:
            told.append(text)

    dead = recipe_of("paper2021", 94, optimiser={"lr": 1.0}, training={"epochs": 1})
    run = train(data, dead, on="cpu:1", out=tmp_path / "run", workers=0, progress=Listening())
    assert any(t.startswith("this model is no better than chance") for t in told)
    assert run.bundle.chance and "**This model is no better than chance" in run.bundle.card
    assert run.bundle.calibration.slope == 0


def test_the_same_seed_makes_the_same_model(data: Manifest, whole: Run, tmp_path: Path) -> None:
    again = train(data, recipe_of(**TABLES), on="cpu:1", out=tmp_path / "again", workers=0)
    alike(again, whole)
    other = train(data, recipe_of(**QUICK), on="cpu:1", out=tmp_path / "o", seed=7, workers=0)
    assert other.recipe.training.seed == 7


class Stop(Progress):
    """Interrupts when the named epoch begins its second step."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def stage(self, name: str, total: int | None = None, *, brief: bool = False) -> Any:
        @contextmanager
        def watched() -> Any:
            def advance(steps: int = 1) -> None:
                if name == f"epoch {self.epoch}":
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.2)

            yield advance

        return watched()


def test_ctrl_c_and_resume(data: Manifest, whole: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"after epoch 2.*--resume"):
        train(data, recipe_of(**TABLES), on="cpu:1", out=out, workers=0, progress=Stop(3))
    assert len(Run(out).epochs) == 2
    with pytest.raises(Interrupted, match="after epoch 3"):
        resume(out, workers=0, progress=Stop(4))
    alike(resume(out, workers=0), whole)
    assert resume(out, workers=0).finished  # a finished run stays as it is


SCRIPT = """
import sys
from pathlib import Path
from hilum.progress import Progress
from hilum.training.train import resume
class Say(Progress):
    def row(self, table, values): print("row", flush=True)
print("ready", flush=True)
resume(sys.argv[1], workers=0, progress=Say())
"""


def test_sigkill_at_any_moment_and_resume(data: Manifest, whole: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(data, recipe_of(**TABLES), on="cpu:1", out=out, workers=0, progress=Stop(1))
    rng = random.Random(time.time_ns())
    killed = 0
    for attempt in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(out)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.8) + 0.4 * attempt)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 1
    alike(resume(out, workers=0), whole)


def test_a_kill_between_a_checkpoint_and_its_table_leaves_no_row_out(
    data: Manifest, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(run: Run, epochs: list[Any], write: Any = Run.write_epochs) -> None:
        if len(epochs) == 4:  # the last one
            raise KeyboardInterrupt
        write(run, epochs)

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Run, "write_epochs", killed)
        train(data, recipe_of(**TABLES), on="cpu:1", out=out, workers=0)
    assert len(Run(out).epochs) == 3
    alike(resume(out, workers=0), whole)


def test_a_run_that_goes_on_is_not_resumed_beside(whole: Run) -> None:
    with lock(whole.folder / "lock"), pytest.raises(Locked):
        resume(whole.folder)


def test_a_folder_that_is_taken(data: Manifest, whole: Run) -> None:
    with pytest.raises(FolderTaken):
        train(data, recipe_of(**QUICK), on="cpu:1", out=whole.folder, workers=0)


def test_a_recipe_that_was_changed_is_not_gone_on_with(data: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(data, recipe_of(**TABLES), on="cpu:1", out=out, workers=0, progress=Stop(2))
    text = (out / "recipe.toml").read_text()
    (out / "recipe.toml").write_text(text.replace("label_smoothing = 0.0", "label_smoothing = 0.1"))
    with pytest.raises(Refused, match="recipe was changed"):
        resume(out, workers=0)


def test_other_films_are_not_gone_on_with(data: Manifest, tmp_path: Path) -> None:
    """One that has gone is within what may be unreadable; one that was replaced can be read."""
    shutil.copytree(data.root, tmp_path / "films")
    films = replace(data, root=tmp_path / "films")
    with pytest.raises(Interrupted):
        train(films, recipe_of(**TABLES), on="cpu:1", out=tmp_path / "run", workers=0,
              progress=Stop(2))  # fmt: skip
    gone = films.files()[list(films.part).index("train")]
    gone.rename(tmp_path / "away")
    with pytest.raises(Refused, match=r"films that can be read are not those.*Put them back"):
        resume(tmp_path / "run", workers=0)
    shutil.copyfile(films.files()[list(films.part).index("test")], gone)
    warned: list[str] = []
    told = Progress()
    told.warn = warned.append  # type: ignore[method-assign]
    assert resume(tmp_path / "run", workers=0, progress=told).finished
    assert any("other pixels than when the run began" in line for line in warned)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"on": "gpu"}, UsageError, "no such place"),
        ({"on": "cuda"}, PlaceUnavailable, "no such place here"),
        ({"overrides": ["preprocessing.size=4096", "training.batch=64"],
          "recipe": "paper2021",
          "on": "cpu"}, Refused, r"needs more memory than there is: about \d+"),
        ({"recipe": "paper2021", "overrides": ["sizes.phases=[[250, 1.0]]"]}, RecipeError,
         "does not take such films: paper2021 at 250 pixels"),
        ({"recipe": "paper2021", "overrides": ["finish.shifts=['dark']"]}, RecipeError,
         "no such imitated shift: finish.shifts dark"),
        ({"overrides": ["finish.balanced='equal_cost'"]}, RecipeError,
         "no such rule for a threshold: finish.balanced equal_cost. Did you mean 'equal_costs'"),
        ({"recipe": "paper2022"}, RecipeError, "no such recipe"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_made(
    data: Manifest, tmp_path: Path, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    if options.get("on") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(kind, match=words):
        train(data, out=tmp_path / "run", workers=0, **options)
    assert not (tmp_path / "run").exists()


def test_a_part_without_a_class_is_refused(data: Manifest, tmp_path: Path) -> None:
    rows = np.array(
        [p != "validation" or y == 0 for p, y in zip(data.part, data.label, strict=True)]
    )
    with pytest.raises(Refused, match="validation part has no films of the class pneumonia"):
        train(data.select(rows), recipe_of(**QUICK), out=tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_refused_films_are_told_and_a_class_may_be_left_without_any(tmp_path: Path) -> None:
    set_ = phantom.make(tmp_path / "set", films=60, layout="dicom", size=(40, 50), seed=1)
    rows = [row.split(",")[:2] for row in (set_ / "labels.csv").read_text().splitlines()[1:]]
    heard: list[str] = []
    told = Progress()
    told.say = heard.append  # type: ignore[method-assign]

    def turned(*labels: str) -> Manifest:
        """The films of these classes are laterals."""
        for path, label in rows:
            film = dcmread(set_ / path)
            film.ViewPosition = "LL" if label in labels else "PA"
            film.save_as(set_ / path)
        return index(set_ / "labels.csv")

    for labels in (("0",), ("0", "1")):
        with pytest.raises(Refused, match=r"train part has no films of the class no.* left: \d+ f"):
            train(turned(*labels), recipe_of(**QUICK), out=tmp_path / f"{len(labels)}", workers=0,
                  progress=told)  # fmt: skip
    assert any("60 films refused (60: it is a lateral view" in line for line in heard)


def test_the_reference_trains(data: Manifest, tmp_path: Path) -> None:
    recipe = Recipe.load(
        "paper2021",
        [
            "preprocessing.size=94",
            "network.options.filters=[3,2,2,3,2]",
            "network.options.units=[5,4]",
            "training.epochs=1",
            "finish.shifts=[]",
        ],
    )
    run = train(data, recipe, on="reference", out=tmp_path / "run", workers=0)
    assert run.environment["place"] == "reference@float32"
    assert run.bundle.outputs == ("logit",)
    assert run.environment["parity"] < 1e-4


class TestPlacement:
    def test_auto_precision_is_measured_and_kept(
        self, data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = recipe_of(**{**QUICK, "training": {"epochs": 1, "precision": "auto"}})
        monkeypatch.setattr(placement.machine, "has_bfloat16", lambda: True)
        run = train(data, recipe, on="cpu:1", out=tmp_path / "run", workers=0)
        times = run.environment["milliseconds_a_step"]
        assert run.environment["precision"] == min(times, key=times.get)
        monkeypatch.setattr(placement.machine, "has_bfloat16", lambda: False)
        run = train(data, recipe, on="cpu:1", out=tmp_path / "two", workers=0)
        assert run.environment["precision"] == "float32"
        assert run.environment["milliseconds_a_step"] == {}

    def test_the_probe_takes_one_processs_share(
        self, part: Films, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory was checked for no more: a global batch of four GPUs may not fit into one."""
        seen = set()

        def step(self: TorchLearner, batch: Any, rate: float) -> None:
            seen.add(len(batch))

        monkeypatch.setattr(placement.machine, "has_bfloat16", lambda: True)
        monkeypatch.setattr(TorchLearner, "step", step)
        monkeypatch.setattr(TorchLearner, "finish", lambda self: None)
        for place in ("cpu:1", "cpu:4x1"):
            placement.settle_precision(Place.parse(place), recipe_of(), part, (1.0, 1.0))
        assert seen == {8, 2}

    def test_the_places_precision_wins(self) -> None:
        recipe = Recipe.load("paper2021")
        assert placement.resolve("cpu:1", recipe).precision == "float32"
        assert placement.resolve("cpu:1@bfloat16", recipe).precision == "bfloat16"

    def test_threads_are_the_cores_that_are_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if torch.cuda.is_available():
            pytest.skip("the best place here is a GPU")
        monkeypatch.setattr(placement.machine, "cores", lambda: 4)
        monkeypatch.setattr(placement.machine, "free_cores", lambda: 2.7)
        assert placement.resolve(None, recipe_of()).threads == 3
        monkeypatch.setattr(placement.machine, "free_cores", lambda: 0.1)
        assert placement.resolve(None, recipe_of()).threads == 1
        assert placement.resolve("cpu", recipe_of()).threads == 4

    def test_memory_grows_with_what_it_is_for(self) -> None:
        place = placement.resolve("cpu:2", recipe_of())
        paper = Recipe.load("paper2021")
        one = memory.memory_needed(paper, place)
        assert 0.5e9 < one < 4e9
        weights = sum(p.numel() for p in new_network(paper).parameters())
        # One thread holds one shard at a time, where there are several.
        thread, whole = replace(place, threads=1), Recipe.load("paper2021", ["training.shards=1"])
        assert memory.memory_needed(paper, thread) < 0.8 * one
        assert memory.memory_needed(whole, thread) == one - 4 * weights  # a gradient for each
        double = Recipe.load("paper2021", ["training.batch=32"])
        assert memory.memory_needed(double, place) > 1.5 * one
        half = memory.memory_needed(paper, replace(place, precision="bfloat16"))
        assert half < 0.9 * one
        # Two take half a batch each, and hold their part of the memory between them.
        pair = memory.memory_needed(double, replace(place, processes=2))
        assert pair == one + 4 * weights

    @pytest.mark.parametrize("kernels", ["on", "off"])
    @pytest.mark.parametrize(
        ("recipe", "size", "batch", "threads"),
        [("paper2021", 250, 48, 1), ("paper2021", 250, 48, 2), ("fast", 128, 128, 2)],
    )
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_the_estimate_is_near_what_a_step_takes(
        self, recipe: str, size: int, batch: int, threads: int, precision: str, kernels: str
    ) -> None:
        if not Path("/proc/self/status").exists():
            pytest.skip("needs Linux's /proc")
        if kernels == "on" and not available("blocks"):
            pytest.skip("needs the compiled kernels")
        if precision == "bfloat16" and not machine.has_bfloat16():
            pytest.skip("needs a processor with bfloat16")
        given = [recipe, str(size), str(batch), f"cpu:{threads}@{precision}"]
        peak, estimate = peak_and_estimate(given, kernels)
        assert 0.75 < estimate / peak < 1.7, (estimate >> 20, peak >> 20)

    @pytest.mark.parametrize("place", ["cpu:1@float32", "cpu:2@float32"])
    def test_the_estimate_knows_each_shards_gradient(self, place: str) -> None:
        if not Path("/proc/self/status").exists():
            pytest.skip("needs Linux's /proc")
        wide = "network.options.units=[6144, 6144]"  # 38 million weights
        peak, estimate = peak_and_estimate(["paper2021", "94", "4", place, wide], "on")
        assert 0.75 < estimate / peak < 1.3, (estimate >> 20, peak >> 20)

    def test_a_full_memory_is_not_taken_for_a_size_that_does_not_fit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*given: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

        monkeypatch.setattr(memory.nn.Module, "__call__", full)
        with pytest.raises(RuntimeError, match="can't allocate"):
            memory.outputs_a_film(recipe_of(), 128)

    def test_processes_take_memory_of_their_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory.machine, "memory_bytes", lambda: 24 << 30)
        assert memory.check_memory(recipe_of(), Place("cpu", 8, 1, "float32")) < 2 << 30
        with pytest.raises(Refused, match=r"about 60.7 GiB of 24.0 GiB\. Take another place"):
            memory.check_memory(recipe_of(), Place("cpu", 300, 1, "float32"))


def peak_and_estimate(given: list[str], kernels: str) -> list[int]:
    found = subprocess.run(
        [sys.executable, "-c", PEAK, *given],
        env={**os.environ, "HILUM_KERNELS": kernels},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in found.stdout.split()]


#: Bytes that two steps add to a process, and the estimate of them.
PEAK = """
import re, sys
from pathlib import Path
from hilum import heap, machine
heap.keep()
machine.set_threads(2)
import numpy as np
from hilum.machine import Place
from hilum.training import memory
from hilum.training.backends import make_learner
from hilum.training.parts import Films
from hilum.training.recipe import Recipe

name, size, batch, place, *changes = sys.argv[1:]
changes += [f"preprocessing.size={size}", f"training.batch={batch}"]
recipe, place, n = Recipe.load(name, changes), Place.parse(place), int(batch)
pixels = np.random.default_rng(0).integers(0, 256, (n, int(size), int(size)), np.uint8)
labels = (np.arange(n) % 2).astype(np.int8)
films = Films(pixels, np.arange(n), labels, np.arange(n))
def peak():  # getrusage's outlives what came before this program
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

before = peak()
learner = make_learner(recipe, place, (1.0, 1.0))
learner.warm_up(films, films, 0)
learner.begin(films, 0, [np.arange(n)] * 2)
for _ in range(2):
    learner.step(np.arange(n), 1e-3)
taken = peak() - before
print(taken, memory.memory_needed(recipe, place) - memory.PROCESS)  # itself takes a film's maps
"""


def test_what_is_written_is_json(whole: Run) -> None:
    for path in whole.folder.rglob("*.json"):
        json.loads(path.read_text())
