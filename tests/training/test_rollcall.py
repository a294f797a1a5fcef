"""Who comes, who is late, who dies and who falls silent, with threads in place of machines."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import distributed

from hilum.datasets.cache import Cache
from hilum.datasets.manifest import Manifest
from hilum.errors import DiskFull, HilumError, Refused, UsageError, WorkerLost
from hilum.machine import Place
from hilum.training import group, meeting
from hilum.training.parts import open_films
from hilum.training.rollcall import RollCall, patience

from .conftest import recipe_of

Opener = Callable[[], distributed.Store]


@pytest.fixture
def opened() -> Iterator[Opener]:
    wait = timedelta(seconds=30)
    server = distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=wait
    )
    port = server.port
    yield lambda: distributed.TCPStore("127.0.0.1", port, is_master=False, timeout=wait)
    del server


def together(opened: Opener, size: int, seconds: float = 20, late: float = 0) -> list[RollCall]:
    """A complete group; the last of its members comes late."""

    def come(rank: int) -> RollCall:
        if rank == size - 1:
            time.sleep(late)
        return RollCall(opened, rank, size, seconds)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(come, range(size)))


def test_all_come_and_bring_what_they_have(opened: Opener) -> None:
    rolls = together(opened, 3, late=0.5)
    assert len({roll.round for roll in rolls}) == 1
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda roll: roll.meet("x", roll.rank * 10), rolls))
    assert found == [[0, 10, 20]] * 3
    for roll in rolls:
        roll.close()


def test_who_does_not_come_is_named(opened: Opener) -> None:
    with ThreadPoolExecutor(2) as pool:  # rank 1 of 3 never comes
        calls = [pool.submit(RollCall, opened, rank, 3, 1.0) for rank in (0, 2)]
        for call in calls:
            with pytest.raises(WorkerLost, match=r"rank 1 of 3 has not come within 1 s"):
                call.result()


def test_coming_may_take_longer_than_being_silent(opened: Opener) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(RollCall, opened, 0, 2, 1.0, arrival=30.0)
        time.sleep(2)
        second = pool.submit(RollCall, opened, 1, 2, 1.0, arrival=30.0)
        for roll in (first.result(), second.result()):
            assert roll.size == 2
            roll.close()


def test_the_first_one_missing_is_named(opened: Opener) -> None:
    with pytest.raises(WorkerLost, match=r"rank 0 of 2 has not come"):
        RollCall(opened, 1, 2, 0.5)


def test_who_comes_when_the_others_are_at_work_is_refused(opened: Opener) -> None:
    rolls = together(opened, 2, seconds=30)
    with pytest.raises(
        Refused, match=r"under way without this process: rank 1 of 2 comes too late"
    ):
        RollCall(opened, 1, 2, 60)
    with ThreadPoolExecutor(2) as pool:  # and they notice nothing
        assert list(pool.map(lambda roll: roll.meet("x", roll.rank), rolls)) == [[0, 1]] * 2
    for roll in rolls:
        roll.close()


def test_what_the_dead_have_left_misleads_nobody(opened: Opener) -> None:
    first = together(opened, 2)
    first[0].remember("run", "here")
    for roll in first:
        roll.close()
    opened().set("hilum/hello/1", "of one that was killed while it waited")
    second = together(opened, 2, late=0.5)
    assert second[0].round != first[0].round
    assert {roll.round for roll in second} == {second[0].round}
    assert second[0].recall("run") == "here" and second[0].recall("else") is None
    for roll in second:
        roll.close()


def test_a_meeting_waits_for_the_living_and_names_the_silent(opened: Opener) -> None:
    rolls = together(opened, 2, seconds=4)
    timer = threading.Timer(6, rolls[1].meet, ("slow", 1))  # later than patience, but alive
    timer.start()
    assert rolls[0].meet("slow", 0) == [0, 1]
    timer.join()
    rolls[1].close()
    with pytest.raises(WorkerLost, match=r"nothing any more: rank 1 of 2 \(on .*\), for \d+ s"):
        rolls[0].meet("never", 0)
    assert "rank 1 of 2" in str(rolls[0].explain(RuntimeError("gloo: connection closed")))
    rolls[0].close()


def test_the_reason_of_one_is_the_reason_of_all(opened: Opener) -> None:
    rolls = together(opened, 2, seconds=10)
    rolls[1].tell(DiskFull("the disk is full: there."))
    with pytest.raises(DiskFull, match="the disk is full: there"):
        rolls[0].meet("never", 0)
    rolls[0].close()
    rolls[1].close()


def test_a_defect_of_one_is_told_to_all(opened: Opener) -> None:
    rolls = together(opened, 2, seconds=10)
    rolls[1].tell(KeyError("x"))
    with pytest.raises(WorkerLost, match=r"rank 1 of 2 \(on .*\) has stopped: KeyError"):
        rolls[0].meet("never", 0)
    rolls[0].close()
    rolls[1].close()


class Hanging:
    """A process in an exchange that cannot be broken off: what it would have ended with."""

    def __init__(self, opened: Opener) -> None:
        self.left: queue.SimpleQueue[HilumError] = queue.SimpleQueue()
        with ThreadPoolExecutor(2) as pool:
            other = pool.submit(RollCall, opened, 1, 2, 2.0)
            self.roll = RollCall(opened, 0, 2, 2.0, at_silence=self.left.put)
            self.other = other.result()


def test_who_hangs_leaves_when_another_has_left_word(opened: Opener) -> None:
    hanging = Hanging(opened)
    hanging.other.tell(DiskFull("the disk is full: there."))
    found = hanging.left.get(timeout=30)
    assert isinstance(found, DiskFull) and str(found) == "the disk is full: there."
    hanging.roll.close()
    hanging.other.close()


@pytest.mark.parametrize("orderly", [False, True])
def test_who_hangs_leaves_when_the_store_is_gone(orderly: bool) -> None:
    """Not who is on its way out: at an orderly end the store goes as well."""
    wait = timedelta(seconds=30)
    server = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = server.port
    store = partial(distributed.TCPStore, "127.0.0.1", port, is_master=False, timeout=wait)
    hanging = Hanging(store)
    hanging.other.close()
    del server
    if orderly:
        while hanging.roll._word is None:  # it has noticed
            time.sleep(0.01)
        hanging.roll.close()
        with pytest.raises(queue.Empty):
            hanging.left.get(timeout=2.5)
    else:
        found = hanging.left.get(timeout=30)
        assert isinstance(found, WorkerLost) and "the store where the processes meet" in str(found)
        hanging.roll.close()


def test_all_alive_and_yet_out_of_touch(opened: Opener) -> None:
    rolls = together(opened, 2, seconds=20)
    found = rolls[0].explain(RuntimeError("Timed out waiting 2000ms\nfor recv"))
    assert isinstance(found, WorkerLost)
    assert "each of them still answers: Timed out waiting 2000ms." in str(found)
    assert "a network between them is down" in str(found)
    nccl = (
        "NCCL error in: NCCLUtils.cpp:94, invalid usage (run with NCCL_DEBUG=WARN for details)\n"
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
        "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1b000\n"
    )
    named = str(rolls[0].explain(RuntimeError(nccl)))
    assert "still answers: Duplicate GPU detected : rank 0 and rank 1 both on CUDA dev" in named
    assert "network" not in named
    for roll in rolls:
        roll.close()


def test_a_port_in_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        with pytest.raises(Refused, match=r"cannot be served: 127.0.0.1:\d+ \(it is in use\)"):
            meeting.meeting_place(0, 5.0)


def test_a_rendezvous_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        with pytest.raises(Refused, match=r"cannot be reached: 127.0.0.1:\d+ \(Connection ref"):
            meeting.meeting_place(1, 0.3)
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(Refused, match="names no place to meet"):
        meeting.meeting_place(1, 0.3)


def test_a_rendezvous_that_accepts_and_says_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another service on that port, a proxy: torch alone waits for it without end."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        _, open_store = meeting.meeting_place(1, 0.5)
        with pytest.raises(Refused, match=r"what listens there has not answered for 0\.5 s"):
            open_store()


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"torch": "2.0.1"}, r"differ in torch: rank 1 of 2 .* has 2\.0\.1, rank 0"),
        ({"processor": "cuda"}, r"differ in processor: rank 1 of 2 .* has cuda, rank 0 cpu"),
    ],
    ids=["torch", "processor"],
)
def test_members_that_cannot_compute_together_are_refused(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str], said: str
) -> None:
    store = opened()
    monkeypatch.setenv(meeting.STORE, f"127.0.0.1:{store.port}")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(RollCall, opened, 1, 2, 20)
        other = pool.submit(lambda: coming.result().meet("versions", theirs))
        with pytest.raises(Refused, match=said), group.joined(Place("cpu", 2, 1)):
            pytest.fail("they joined")
        other.result()
    coming.result().close()


def test_members_that_read_other_films_are_refused(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file is missing on one machine: the order of films would be another one there."""
    rolls = together(opened, 2)
    names = tuple(f"{number}.png" for number in range(4))
    manifest = Manifest(tmp_path, names, np.array([0, 1, 0, 1], np.int8), names, ("train",) * 4)
    pixels, whole = np.zeros((4, 32, 32), np.uint8), np.arange(4)

    def fill(*given: Any, workers: Any, progress: Any) -> Cache:
        return Cache(pixels, workers, np.zeros(4, np.uint32))

    monkeypatch.setattr(Cache, "fill", fill)

    def come(roll: RollCall, rows: Any) -> int:
        _, parts = open_films(manifest, recipe_of(), roll, workers=rows)
        return len(parts[0])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(come, rolls, [whole, whole])) == [4, 4]
    rolls = [*rolls, *together(opened, 2)]
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(come, rolls[2], whole),
                 pool.submit(come, rolls[3], np.array([0, 1, -1, 3]))]  # fmt: skip
        for call in calls:
            with pytest.raises(Refused, match="differ in the films that can be read: rank 1 of 2"):
                call.result()
    for roll in rolls:
        roll.close()


def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert patience() == 600
    monkeypatch.setenv("HILUM_PATIENCE", "2.5")
    assert patience() == 2.5
    for wrong in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("HILUM_PATIENCE", wrong)
        with pytest.raises(UsageError, match="not a number of seconds"):
            patience()


@pytest.mark.parametrize("towards_master", ["10.77.0.1", "127.0.0.1", ""])
@pytest.mark.parametrize(
    ("kind", "variable", "told"),
    [("cpu", "GLOO_SOCKET_IFNAME", "eth1"), ("cuda", "NCCL_SOCKET_IFNAME", "=eth1")],
)
def test_the_group_speaks_over_the_network_to_the_other_machine(
    monkeypatch: pytest.MonkeyPatch, towards_master: str, kind: str, variable: str, told: str
) -> None:
    """Whatever the meeting place is called; a bridge that both machines have is no way there."""
    mine = {"172.17.0.1": "docker0", "10.77.0.1": "eth1"}

    def towards(host: str) -> str:
        return towards_master if host == "localhost" else "10.77.0.1"

    class Roll:
        def meet(self, name: str, value: str) -> list[str]:
            return [value, "172.17.0.1 10.77.0.2"]

    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv(variable, "")  # remembered, and put back
    del os.environ[variable]
    monkeypatch.setattr(meeting, "_interfaces", lambda: mine)
    monkeypatch.setattr(meeting, "_address_towards", towards)
    meeting.choose_interface(Roll(), kind)  # type: ignore[arg-type]
    assert os.environ[variable] == told
    os.environ[variable] = "ib0"
    meeting.choose_interface(Roll(), kind)  # type: ignore[arg-type]
    assert os.environ[variable] == "ib0", "whoever names one is obeyed"
