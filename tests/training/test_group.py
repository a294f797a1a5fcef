from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hilum.datasets.manifest import Manifest
from hilum.errors import DiskFull, Interrupted, NonFiniteLoss, WorkerLost
from hilum.machine import Place
from hilum.progress import Progress
from hilum.storage import lock
from hilum.training import group, leader, worker
from hilum.training.factors import few
from hilum.training.learner import TorchLearner, new_network
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.run import Run
from hilum.training.train import resume, train

from .conftest import film, recipe_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """33 films for training: an odd number, so that shares differ."""
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    count = 44
    labels = (np.arange(count) % 2).astype(np.int8)
    for number in range(count):
        Image.fromarray(film(rng, 100, 96, int(labels[number]))).save(root / f"{number:02}.png")
    names = tuple(f"{number:02}.png" for number in range(count))
    parts = tuple("validation" if number % 4 == 3 or number % 12 == 0 else "train"
                  for number in range(count))  # fmt: skip
    return Manifest(root, names, labels, names, parts)


def paper(
    epochs: int, batch: int, last: int = 4, units: int = 8, size: int = 94, shards: int = 1,
    **tables: Any,
) -> Recipe:  # fmt: skip
    """The paper's network, small, with the paper's settings, but without its shards:
    one process equals several up to rounding."""
    small = {"options": {"filters": [4, 4, 4, 4, last], "units": [units, 4]}}
    base = Recipe.load("paper2021").as_dict()
    content = {name: base[name] for name in ("optimiser", "schedule", "augmentation", "training")}
    content["training"] |= {"epochs": epochs, "batch": batch, "shards": shards}
    return recipe_of("paper2021", size, **{**content, "network": small, "finish": {"shifts": []},
                                         **tables})  # fmt: skip


def compact(epochs: int) -> Recipe:
    """A network without kernels of its own, which would have to be built first."""
    short = {"epochs": epochs, "batch": 8}
    return recipe_of("compact", 32, training=short, finish={"shifts": []})


@pytest.mark.parametrize("factored", [False, True])
def test_two_processes_go_the_way_of_one(data: Manifest, tmp_path: Path, factored: bool) -> None:
    # One batch an epoch: the losses of the epochs are those of the first 20 steps.
    recipe = paper(20, 33, last=64, units=2048, size=126) if factored else paper(20, 64)
    assert list(few(new_network(recipe), 33)) == ["dense1.weight"] * factored
    one = train(data, recipe, on="cpu:1", out=tmp_path / "one", workers=0)
    two = train(data, recipe, on="cpu:2x1", out=tmp_path / "two", workers=0)
    assert two.environment["place"] == "cpu:2x1@float32"
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert abs(a.loss - b.loss) < 1e-4
        assert a.val_loss is not None and b.val_loss is not None
        assert abs(a.val_loss - b.val_loss) < 1e-4
    first, second = one.bundle.metrics["validation"], two.bundle.metrics["validation"]
    assert first["auroc"]["n"] == second["auroc"]["n"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_processes_equal_one_of_two_shards_to_the_bit(
    data: Manifest, tmp_path: Path, precision: str
) -> None:
    # Of 29 films the last batch leaves one process without any.
    recipe = paper(6, 14, last=64, units=2048, size=126, shards=2)
    assert few(new_network(recipe), 14)
    assert_equal_to_the_bit(data, recipe, precision, tmp_path)


@pytest.mark.slow
def test_the_papers_recipe_equals_itself_in_two_processes_to_the_bit(
    data: Manifest, tmp_path: Path
) -> None:
    # The network at its full size, where rounding would part their losses within twenty steps.
    recipe = Recipe.load("paper2021", ["training.epochs=11", "finish.shifts=[]"])
    assert_equal_to_the_bit(data, recipe, "float32", tmp_path)


def assert_equal_to_the_bit(data: Manifest, recipe: Recipe, precision: str, folder: Path) -> None:
    """One process in one thread and in two, and two processes end with the same weights."""
    assert recipe.training.shards == 2
    runs = [
        train(data, recipe, on=f"{place}@{precision}", out=folder / place, workers=0)
        for place in ("cpu:1", "cpu:2", "cpu:2x1")
    ]
    one, *others = ((run.last() or ({},))[0]["learner"]["model"] for run in runs)
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert len({tuple((e.loss, e.val_loss, e.val_auroc) for e in run.epochs) for run in runs}) == 1


@pytest.mark.slow
def test_two_processes_end_within_the_spread_of_seeds(data: Manifest, tmp_path: Path) -> None:
    """Rounding grows over many steps; the end must not be further off than another seed's."""
    recipe = paper(12, 8)
    alone = [
        train(data, recipe, on="cpu:1", seed=seed, out=tmp_path / f"{seed}", workers=0)
        for seed in range(3)
    ]
    two = train(data, recipe, on="cpu:2x1", seed=0, out=tmp_path / "two", workers=0)
    for measure in ("val_loss", "val_auroc"):
        ends = [getattr(run.epochs[-1], measure) for run in alone]
        found = getattr(two.epochs[-1], measure)
        assert max(ends) > min(ends)
        assert min(ends) - 1e-3 <= found <= max(ends) + 1e-3
        # Nearer to the same seed's end than the seeds are to each other.
        assert abs(found - ends[0]) < max(ends) - min(ends)


class Kill(Progress):
    """Ends one worker, or interrupts the leader, when the first epoch has been told of."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def row(self, table: str, values: dict[str, object]) -> None:
        if self.number == signal.SIGINT:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif values["epoch"] == 1:
            os.kill(workers_here()[-1], self.number)


def workers_here() -> list[int]:
    """Processes of groups that this process leads."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and b"hilum.training.worker" in line:
            found.append(int(folder.name))
    return sorted(found)


def test_a_worker_that_dies_ends_the_run_cleanly(data: Manifest, tmp_path: Path) -> None:
    recipe = paper(40, 8)
    with pytest.raises(WorkerLost, match=r"number 2 of 2 \(signal 9\).*--resume"):
        train(data, recipe, on="cpu:2x1", out=tmp_path / "run", workers=0,
              progress=Kill(signal.SIGKILL))  # fmt: skip
    assert workers_here() == []
    run = Run(tmp_path / "run")
    assert 1 <= len(run.epochs) < 40
    with pytest.raises(Interrupted, match="--resume"):
        resume(run.folder, workers=0, progress=Kill(signal.SIGINT))
    assert workers_here() == []


def test_weights_that_processes_hold_together_go_on_where_they_were(
    data: Manifest, tmp_path: Path
) -> None:
    recipe = paper(4, 33, last=64, units=2048, size=126)
    assert few(new_network(recipe), 33)
    train(data, recipe, on="cpu:2x1", out=tmp_path / "whole", workers=0)
    with pytest.raises(WorkerLost):
        train(data, recipe, on="cpu:2x1", out=tmp_path / "broken", workers=0,
              progress=Kill(signal.SIGKILL))  # fmt: skip
    resume(tmp_path / "broken", workers=0)
    kept = [Run(tmp_path / name).last() for name in ("whole", "broken")]
    one, other = (state[0]["learner"] for state in kept if state)
    assert one["steps"] == other["steps"] == 4
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name])
    for mine, theirs in zip(one["optimisers"], other["optimisers"], strict=True):
        for name, values in mine.items():
            assert all(map(torch.equal, values, theirs[name]))
    mean = one["optimisers"][0]["means"][list(one["model"]).index("dense1.weight") // 2]
    assert mean.shape == (2048, 256) and all(half.any() for half in mean.chunk(2))


def test_a_defect_of_the_run_is_told_once(data: Manifest, tmp_path: Path) -> None:
    recipe = paper(1, 8, network={"options": {}}, optimiser={"name": "sgd", "lr": 900.0})
    with pytest.raises(NonFiniteLoss, match="epoch 1, step"):
        train(data, recipe, on="cpu:2x1", out=tmp_path / "run", workers=0)


# Workers in miniature: the first hears that the other has stopped, as ``joined`` tells it.
PAIR = """
import json, sys, time
if sys.argv[1] == "0":
    time.sleep({wait})
    print(7)
    print(json.dumps({{"error": "WorkerLost", "text": "rank 1 has stopped: KeyError"}}), flush=True)
    sys.exit(3)
time.sleep(0.5)
raise KeyError("planted")
"""


@pytest.mark.parametrize("wait", [0, 1], ids=["its peer ends first", "it ends first"])
def test_a_defect_of_a_worker_is_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], wait: int
) -> None:
    def start(folder: Path, rank: int, *given: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PAIR.format(wait=wait), str(rank)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    started: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(leader, "_start", start)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="traceback stands above"):
        leader.lead(Run(tmp_path), Place("cpu", 2, 1, "float32"), Progress())
    said = capfd.readouterr().err
    assert "KeyError: 'planted'" in said
    assert wait or "7" in said  # what is no event is a library's own word
    assert all(worker.stdout is not None and worker.stdout.closed for worker in started)
    assert threading.active_count() <= before


WARNS = """
from hilum.progress import Telling
with Telling().stage("epoch 1", 2) as advance:
    Telling().warn("there are no kernels")
"""


def test_a_workers_warning_reaches_the_leaders_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Heard(Progress):
        warnings: list[str] = []  # noqa: RUF012

        def warn(self, text: str) -> None:
            self.warnings.append(text)

    def start(folder: Path, rank: int, *given: int) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", WARNS if rank == 0 else ""]
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    monkeypatch.setattr(leader, "_start", start)
    leader.lead(Run(tmp_path), Place("cpu", 2, 1, "float32"), Heard())
    assert Heard.warnings == ["there are no kernels"]
    assert capfd.readouterr().err == ""


def test_a_listener_that_cannot_start_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*given: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        leader.lead(Run(tmp_path), Place("cpu", 2, 1, "float32"), Progress())


def test_a_worker_without_memory_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr("hilum.training.train.work", work)
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    monkeypatch.setenv("RANK", "1")
    assert worker.main(str(tmp_path)) == 3
    told = capfd.readouterr()
    assert json.loads(told.out)["error"] == "MemoryFull" and told.err == ""


def test_workers_end_with_their_leader(tmp_path: Path) -> None:
    run = Run(tmp_path)
    worker = leader._start(run.folder, 0, 2, 1)
    assert worker.stdin is not None
    worker.stdin.close()  # what the kernel does when the leader is killed
    until = time.monotonic() + 30
    while worker.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert worker.poll() is not None
    assert worker.stdout is not None
    worker.stdout.close()


def test_weights_that_drifted_apart_are_the_first_ones_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, first = new_network(paper(1, 8)), new_network(paper(1, 8, training={"seed": 1}))
    mine.to(memory_format=torch.channels_last)
    theirs = torch.cat([p.detach().flatten() for p in first.parameters()])
    monkeypatch.setattr(group.distributed, "broadcast", lambda values, src: values.copy_(theirs))
    group.Group(1, 2, torch.device("cpu")).agree(mine)
    for name, weight in first.named_parameters():
        assert torch.equal(mine.get_parameter(name), weight), name


def test_each_process_leaves_out_features_of_its_own() -> None:
    class Alone(group.Group):
        def wrap(self, network: Any, batch: int) -> Any:
            return network

    def drawn(rank: int) -> torch.Tensor:
        together = Alone(rank, 2, torch.device("cpu"))
        learner = TorchLearner(compact(1), Place("cpu", 2, 1, "float32"), (1.0, 1.0), together)
        learner._begin(films, 0)
        return torch.rand(8)

    films = Films(np.zeros((2, 32, 32), np.uint8), np.arange(2), np.arange(2), np.arange(2))
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(0), drawn(1))


def test_shares_cover_a_batch_once() -> None:
    import torch

    batch = np.arange(100, 117)
    shares = [group.Group(rank, 3, torch.device("cpu")).share(batch) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_worker_that_hangs_is_named(
    data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_PATIENCE", "8")
    with pytest.raises(WorkerLost, match=r"nothing any more: rank 1 of 2 \(on .*--resume"):
        train(data, compact(400), on="cpu:2x1", out=tmp_path / "run", workers=0,
              progress=Kill(signal.SIGSTOP))  # fmt: skip
    assert workers_here() == []
    assert 1 <= len(Run(tmp_path / "run").epochs) < 400


class Fill(Progress):
    """Fills the disk when the second epoch has been told of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def row(self, table: str, values: dict[str, object]) -> None:
        if values["epoch"] == 2:
            with contextlib.suppress(OSError), (self.folder / "filler").open("wb", 0) as stream:
                while True:
                    stream.write(bytes(4096))


def test_a_full_disk_leaves_the_last_checkpoint(data: Manifest, tmp_path: Path) -> None:
    """On a small file system of its own; the workers' checkpoint is what no longer fits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64m", "hilum-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    try:
        with pytest.raises(DiskFull, match=r"what was there before is kept.*train --resume"):
            train(data, compact(400), on="cpu:2x1", out=disk / "run", workers=0,
                  progress=Fill(disk))  # fmt: skip
        (disk / "filler").unlink()
        run = Run(disk / "run")
        kept = run.last()
        assert kept is not None and 2 <= len(kept[1]) < 400
        assert not list(run.folder.glob(".*.part"))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# --- processes that a launcher has started --------------------------------------------------------

LONG = 600  # seconds until a test gives up: a busy machine needs many of them

# The command line, as a launcher starts it; ``{first}`` is run before it.
COMMAND = """
import os, signal, sys, threading
from hilum.cli.app import main
rank = os.environ["RANK"]
{first}
main(sys.argv[1:])
"""


def launch(
    size: int, port: int, first: str, *arguments: str, ranks: Sequence[int] | None = None
) -> list[subprocess.Popen[str]]:
    """``hilum`` in so many processes of one group, without torchrun's agent around them; all of
    them, or these ranks."""
    code = COMMAND.format(first=first)
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(size),
                 "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (range(size) if ranks is None else ranks)
    ]  # fmt: skip


def come(rank: int, *given: Any) -> subprocess.Popen[str]:
    """One of two such processes."""
    return launch(2, *given, ranks=[rank])[0]


def said(process: subprocess.Popen[str]) -> list[str]:
    """hilum's own lines of error; waits for the process."""
    _, err = process.communicate(timeout=LONG)
    return [line for line in err.splitlines() if line.startswith("hilum: ")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


STOP_LATER = """
from hilum.training.learner import TorchLearner
step = TorchLearner.step
def stopping(self, batch, rate):
    if rank == "2" and self.epoch == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return step(self, batch, rate)
TorchLearner.step = stopping
"""


@pytest.mark.slow
def test_every_process_says_which_one_hangs(
    data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_PATIENCE", "12")
    data.write(tmp_path / "films.csv")
    (tmp_path / "own.toml").write_text(compact(50).toml())
    asked = ["train", str(tmp_path / "films.csv"), "--recipe", str(tmp_path / "own.toml"),
             "--on", "cpu:1", "--out", str(tmp_path / "run")]  # fmt: skip
    group_of_three = launch(3, free_port(), STOP_LATER, *asked)
    try:
        for process in group_of_three[:2]:
            lines = said(process)
            assert process.returncode == 3, lines
            assert len(lines) == 1 and "nothing any more: rank 2 of 3" in lines[0]
            assert f"--resume {tmp_path / 'run'}" in lines[0]
    finally:
        group_of_three[2].kill()
        group_of_three[2].communicate()
    assert len(Run(tmp_path / "run").epochs) == 1


def test_threads_of_a_group_do_not_change_the_code(tmp_path: Path) -> None:
    aborts = "import atexit; atexit.register(os.abort)"
    one = come(1, free_port(), aborts, "train", str(tmp_path / "none"), "--on", "cpu:1")
    assert len(said(one)) == 1 and one.returncode in (2, 3)
    well = come(1, free_port(), aborts, "--version")
    assert not said(well) and well.returncode == 0


@pytest.mark.slow
def test_a_taken_folder_is_refused_by_all(data: Manifest, tmp_path: Path) -> None:
    data.write(tmp_path / "films.csv")
    asked = ["train", str(tmp_path / "films.csv"), "--out", str(tmp_path / "run"), "--on", "cpu:1"]
    with lock(tmp_path / "run" / "lock"):
        both = launch(2, free_port(), "", *asked)
        for process in both:
            lines = said(process)
            assert process.returncode == 3
            assert len(lines) == 1 and "another process works here" in lines[0]


IMPATIENT = "from hilum.training import group; group.ARRIVAL = 8.0"
# Rank 0 stands still in the second epoch until the test lets it go.
HELD = """
import time
from pathlib import Path
from hilum.training.learner import TorchLearner
step = TorchLearner.step
def held(self, batch, rate):
    while rank == "0" and self.epoch == 1 and not Path(sys.argv[-1], "..", "go").exists():
        time.sleep(0.05)
    return step(self, batch, rate)
TorchLearner.step = held
"""


@pytest.mark.slow
def test_who_comes_late_is_waited_for_or_told(
    data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.write(tmp_path / "films.csv")
    (tmp_path / "own.toml").write_text(compact(3).toml())
    asked = ["train", str(tmp_path / "films.csv"), "--recipe", str(tmp_path / "own.toml"),
             "--on", "cpu:1", "--out", str(tmp_path / "run")]  # fmt: skip

    # Neither of them waits long enough: one line each, and no folder is begun.
    monkeypatch.setenv("HILUM_PATIENCE", "8")
    port = free_port()
    for rank, words in (
        (0, "the group is not complete: rank 1 of 2 has not come within 8 s"),
        (1, f"the place where the processes meet cannot be reached: 127.0.0.1:{port} (Conn"),
    ):
        late = come(rank, port, IMPATIENT, *asked)
        _, err = late.communicate(timeout=LONG)
        assert late.returncode == 3, err
        assert err.startswith(f"hilum: {words}") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()

    # The second one comes seconds later and they begin; a third is told; nobody loses anything.
    monkeypatch.setenv("HILUM_PATIENCE", "600")
    port = free_port()
    pair = [come(0, port, HELD, *asked)]
    try:
        _wait_for(lambda: _listens(port))
        time.sleep(3)
        assert pair[0].poll() is None and not (tmp_path / "run").exists()
        pair.append(come(1, port, HELD, *asked))
        run = Run(tmp_path / "run")
        _wait_for((run.folder / "checkpoint.pt").exists)
        third = come(1, port, "", *asked)
        lines = said(third)
        assert third.returncode == 3 and len(lines) == 1
        assert "the training is under way without this process: rank 1 of 2" in lines[0]
        (tmp_path / "go").touch()
        for process in pair:
            assert said(process) == [] and process.returncode == 0
    finally:
        for process in pair:
            process.kill()
            process.communicate()
    assert run.finished and len(run.epochs) == 3
    whole = train(data, compact(3), on="cpu:2x1", out=tmp_path / "whole", workers=0)
    one, other = run.last(), whole.last()
    assert one is not None and other is not None
    for name, value in one[0]["learner"]["model"].items():
        assert value.equal(other[0]["learner"]["model"][name]), name


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("said_by_torch", "lost"),
    [
        ("Application timeout caused pair closure", True),
        ("Connection closed by peer [127.0.0.1]:4321", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_an_exchange_that_broke_is_told_from_a_defect(said_by_torch: str, lost: bool) -> None:
    assert group._exchange_broke(RuntimeError(said_by_torch)) is lost
