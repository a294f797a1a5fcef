"""What each of torchrun's processes decides for itself, without starting any."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hilum.cli.app import run
from hilum.datasets import phantom
from hilum.errors import PlaceUnavailable, Refused
from hilum.machine import Place
from hilum.progress import SILENT, Progress
from hilum.training import group, leader, meeting, memory, placement, torchrun
from hilum.training import train as single
from hilum.training.run import Run
from hilum.training.train import settle

from .conftest import films_of, recipe_of


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs, as far as it is asked how many there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name, value in (("WORLD_SIZE", 8), ("LOCAL_WORLD_SIZE", 4), ("RANK", 6), ("LOCAL_RANK", 2)):
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("four_gpus")
def test_a_leader_under_a_launcher_gives_each_worker_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The launcher's LOCAL_RANK is the leader's, not its workers'."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    taken = []
    for rank in range(2):
        monkeypatch.setattr(os, "environ", meeting.member(rank, 2, 1234))
        taken.append(str(group.take_device(Place("cuda", 2, 1))))
    assert taken == ["cuda:0", "cuda:1"]


@pytest.mark.usefixtures("four_gpus")
def test_eight_gpus_on_two_machines_are_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = torchrun.mine(Place("cuda", 1, 1, "float32"))
    assert str(asked) == "cuda:8@float32"
    run = Run(tmp_path)
    run.write_environment({"asked": str(asked)})
    monkeypatch.setattr(placement, "describe", lambda place, recipe: {"place": str(place)})
    monkeypatch.setattr(single, "augmented", lambda *given: None)
    given: Any = run, recipe_of(), type("Films", (), {"classes": ()}), (films_of(6), films_of(6))
    with pytest.raises(PlaceUnavailable, match="4 GPUs are seen"):
        settle(*given, single.SILENT)  # without torchrun all of them would have to be here
    for _ in range(2):  # as it begins, and as it goes on
        place = settle(*given, single.SILENT, placement.of_one)
        assert (place.processes, str(place)) == (8, "cuda:8@float32")

    started: list[Place] = []
    monkeypatch.setattr(torchrun, "_together", lambda place, *rest: started.append(place))
    run.write_environment({"asked": "cuda:16"})  # a run of more machines goes on with fewer
    torchrun.resume(tmp_path, None, single.SILENT)
    assert [str(place) for place in started] == ["cuda:8"]


@pytest.mark.parametrize(
    ("launcher", "gpu"),
    [
        ({"RANK": "6", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "2"}, "cuda:2"),
        ({"RANK": "6", "LOCAL_WORLD_SIZE": "4"}, "cuda:2"),
        ({"RANK": "1"}, "cuda:0"),  # by hand, one process a machine
    ],
)
def test_each_process_of_a_machine_takes_a_gpu_of_its_own(
    launcher: dict[str, str], gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert str(group.take_device(Place("cuda", 1, 1))) == gpu


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("named", ["cuda@float32", "cuda:8@float32"])
def test_each_process_asks_its_own_gpu(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def check(recipe: Any, place: Place, films: int) -> int:
        done.append(str(place))
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(memory, "check_memory", check)
    with pytest.raises(KeyboardInterrupt):
        single.train("films", recipe_of(), on=named)
    assert done == [torch.device("cuda", 2), "cuda:8@float32"]  # its share of eight


@pytest.mark.usefixtures("four_gpus")
def test_a_process_looks_after_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after those of the machine's other processes, whose films may lie there already."""
    recipe, place = recipe_of(), Place("cuda", 8, 1, "float32")
    need = memory.memory_needed(recipe, place)
    free = {None: need, 0: 0, 1: 0}
    monkeypatch.setattr(memory, "of_gpu", lambda device=None: (free[device], 9 * need))
    assert memory.check_memory(recipe, place) == need
    free[None] = need - 1
    with pytest.raises(Refused, match="the GPU is full"):
        memory.check_memory(recipe, place)


def test_memory_is_counted_for_the_processes_of_one_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each holds its share of the batch, and those of this machine share its memory."""
    recipe = recipe_of("paper2021", 500, training={"batch": 64})
    whole = memory.check_memory(recipe, Place("cpu", 1, 1, "float32"))
    alone = memory.check_memory(recipe, Place("cpu", 8, 1, "float32"))  # all eight here
    for name, value in (("RANK", 0), ("WORLD_SIZE", 8), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    place = torchrun.mine(Place("cpu", 1, 1, "float32"))
    share = memory.memory_needed(recipe, place)
    assert memory.check_memory(recipe, place) == 2 * share == alone // 4
    own = memory.PROCESS
    assert share - own < (whole - own) / 6

    asked: list[Place] = []
    films = SimpleNamespace(part=["train"] * 64 + ["test"] * 9)
    monkeypatch.setattr(single, "open_data", lambda *given, **options: films)
    monkeypatch.setattr(torchrun, "train", lambda *given: asked.append(given[2]))
    monkeypatch.setattr(memory.machine, "memory_bytes", lambda: 2 * share)
    single.train("films", recipe, on="cpu:1@float32")
    assert [place.processes for place in asked] == [8]
    monkeypatch.setattr(memory.machine, "memory_bytes", lambda: 2 * share - 1)
    with pytest.raises(Refused, match=r"training\.batch=56"):  # seven films each
        single.train("films", recipe, on="cpu:1@float32")
    films.part[:8] = []  # 56 are left, and no batch holds more
    single.train("films", recipe, on="cpu:1@float32")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"RANK": "2"}, "RANK=2, WORLD_SIZE=2"),
        ({"RANK": "-1"}, "RANK=-1"),
        ({"RANK": ""}, "RANK=, "),
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT"),
    ],
)
def test_a_launcher_that_says_nonsense_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    wrong: dict[str, str],
    told: str,
) -> None:
    phantom.make(tmp_path / "films", films=40)
    right = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in {**right, **wrong}.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    assert run(["train", str(tmp_path / "films"), "--out", str(out), "--on", "cpu:1"]) == 3
    said = capsys.readouterr().err.splitlines()
    assert told in said[-1] and "defect" not in said[-1] and not out.exists()


@pytest.mark.parametrize(
    ("processes", "local", "times"), [(1, None, 0), (8, None, 1), (8, 1, 0), (8, 4, 1)]
)
def test_more_processes_than_cores_are_warned_of_once_and_by_machine(
    monkeypatch: pytest.MonkeyPatch, processes: int, local: int | None, times: int
) -> None:
    monkeypatch.setattr(single.machine, "cores", lambda: 2)
    if local is not None:  # on eight machines, on two
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    warned: list[str] = []

    class Listening(Progress):
        def warn(self, text: str) -> None:
            warned.append(text)

    films = films_of(4)
    place = Place("cpu", processes, 1, "float32")
    single.announce(recipe_of("paper2021", 94), place, (films, films), Listening())
    assert len(warned) == times
    assert all("cores here and there are 2" in text for text in warned)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_films_are_told_of_once(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    mine, told = Progress(), []
    for name, value in (("WORLD_SIZE", "2"), ("RANK", rank)):
        monkeypatch.setenv(name, value)

    def opened(data: Any, progress: Progress) -> Any:
        told.append(progress)
        return SimpleNamespace(part=["train"])

    monkeypatch.setattr(single, "open_data", opened)
    monkeypatch.setattr(torchrun, "train", lambda *given: None)
    single.train("films", recipe_of("paper2021", 94), on="cpu:1@float32", progress=mine)
    assert told == [mine if rank == "0" else SILENT]


def test_the_fullest_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, place = recipe_of(), Place("cuda", 3, 1, "float32")
    need = memory.memory_needed(recipe, place)
    free = {0: 9 * need, 1: need - 1, 2: 2 * need}
    monkeypatch.setattr(memory, "of_gpu", lambda device=None: (free[device.index], 9 * need))
    with pytest.raises(Refused, match="GPU 1 is full"):
        memory.check_memory(recipe, place)
    free[1] = need
    assert memory.check_memory(recipe, place) == need


@pytest.mark.parametrize(
    ("place", "way"),
    [
        ("cuda:8@float32", "torchrun --nproc-per-node N -m hilum train --resume run"),
        ("cuda@float32", "train anew with another --on"),
    ],
)
def test_a_run_whose_gpus_are_not_here_says_how_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, place: str, way: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlaceUnavailable) as told:
        placement.as_begun(place, Path("run"), lambda text: Place.parse(text).resolved())
    assert f"no such place here: {place}, 0 GPUs are seen, and the run was" in str(told.value)
    assert way in str(told.value) and "--on cpu" not in str(told.value)


def test_the_workers_find_the_gpu_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def lead(*given: Any) -> None:
        done.append("led")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    monkeypatch.setattr(leader, "lead", lead)
    monkeypatch.setattr(single, "open_films", lambda *given, **named: (None, (None, None)))
    monkeypatch.setattr(single, "settle", lambda *given: Place("cuda", 2, 1, "float32"))
    monkeypatch.setattr(single, "announce", lambda *given: None)
    with pytest.raises(KeyboardInterrupt):
        single._go(Run(tmp_path), recipe_of(), None, None, single.SILENT)  # type: ignore[arg-type]
    assert done == ["emptied", "led"]
