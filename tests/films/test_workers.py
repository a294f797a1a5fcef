from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicoms
import numpy as np
import pytest
import worker_functions as functions

from hilum.errors import Refused, UnreadableFilm, UsageError
from hilum.films.isolated import Board
from hilum.films.wire import shared_memory
from hilum.films.workers import WorkerDefect, Workers

HERE = Path(__file__).parent


def test_answers_come_with_their_numbers() -> None:
    with Workers(2) as workers:
        found = dict(workers.map(functions.double, range(100), chunk=7))
        assert found == {number: 2 * number for number in range(100)}
        assert list(workers.map(functions.double, [])) == []
        ordered = list(workers.map(functions.slow_first, range(20), chunk=2, ordered=True))
        assert ordered == [(number, number) for number in range(20)]


def test_films_are_the_same_here_and_there() -> None:
    data = dicoms.film(dicoms.chest())
    with Workers(1) as workers:
        ((_, there),) = workers.map(functions.digest, [data])
    assert there == functions.digest(data)
    assert list(Workers(0).map(functions.digest, [data])) == [(0, there)]


@pytest.mark.parametrize("chunk", [1, 4, 32])
def test_a_crash_a_hang_and_greed_cost_one_film_each(chunk: int) -> None:
    with Workers(1, seconds=1, memory=2 << 30) as workers:
        found = dict(workers.map(functions.trouble, range(12), chunk=chunk))
        assert dict(workers.map(functions.trouble, [1])) == {0: 1}  # and the pool goes on
    codes = {
        number: answer.code
        for number, answer in found.items()
        if isinstance(answer, UnreadableFilm)
    }
    assert codes == {3: "crashed", 5: "timeout", 7: "too-large", 9: "truncated"}
    assert all(found[number] == number for number in range(12) if number not in codes)


def test_a_stop_of_all_processes_is_no_films_fault() -> None:
    """Ctrl-Z, and ``fg`` later than a film may take."""
    script = (
        "from hilum.films.workers import Workers\n"
        "from worker_functions import slow_first\n"
        "with Workers(1, seconds=3) as workers:\n"
        "    print(dict(workers.map(slow_first, [1, 0, 2], chunk=3)), flush=True)\n"
        "    print(dict(workers.map(slow_first, [0] * 4, chunk=4)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "{0: 1, 1: 0, 2: 2}\n"  # now it waits for the rest
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(5)
        os.killpg(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "{0: 0, 1: 0, 2: 0, 3: 0}\n"


def test_a_worker_that_is_killed_between_batches_costs_nothing() -> None:
    """By the kernel's out-of-memory killer, for one: no film is to blame, none is lost."""

    def items() -> Iterator[int]:
        yield from range(4)
        (worker,) = workers._workers
        worker.process.kill()
        worker.process.wait()
        yield from range(4, 9)

    with Workers(1) as workers:
        found = dict(workers.map(functions.double, items(), chunk=2))
        assert found == {number: 2 * number for number in range(9)}


def test_a_worker_that_is_killed_while_it_starts_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Dying(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            if len(started) < 3:
                self.kill()
            if len(started) == 1:  # before anything is said to it
                self.wait()

    monkeypatch.setattr("hilum.films.workers.subprocess.Popen", Dying)
    with Workers(1) as workers:
        found = dict(workers.map(functions.double, range(9), chunk=2))
    assert found == {number: 2 * number for number in range(9)}
    assert len(started) == 3


def test_workers_that_cannot_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.films.workers._START", "raise SystemExit(7)")
    with Workers(1) as workers, pytest.raises(Refused, match=r"cannot start here: exit code 7\."):
        list(workers.map(functions.double, [1]))


def test_without_processes_an_unreadable_film_is_an_answer_too() -> None:
    ((number, answer),) = Workers(0).map(functions.trouble, [9])
    assert (number, answer.code) == (0, "truncated")


def test_the_time_limit_is_for_each_film_not_for_a_batch() -> None:
    with Workers(1, seconds=1.0) as workers:
        found = list(workers.map(functions.slow_first, [0, 0, 0, 0], chunk=4))
    assert [answer for _, answer in found] == [0] * 4


def test_defects_are_raised_and_not_hidden() -> None:
    with Workers(1) as workers:
        with pytest.raises(WorkerDefect, match="a defect at 1"):
            list(workers.map(functions.defect, [1]))
        with pytest.raises(UsageError, match="wrong"):
            list(workers.map(functions.misuse, [1]))
        assert list(workers.map(functions.double, [1])) == [(0, 2)]


def test_what_a_worker_cannot_import_is_said() -> None:
    def local(number: int) -> int:
        return number

    local.__module__ = "__main__"
    with pytest.raises(UsageError, match="__main__"):
        list(Workers(1).map(local, [1]))


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    with Workers(1) as workers:
        answers = workers.map(functions.double, items(), chunk=4)
        next(answers)
        assert taken <= 16
        answers.close()


def test_large_items_and_answers_pass_in_both_directions() -> None:
    with Workers(2) as workers:
        sizes = [len(answer) for _, answer in workers.map(functions.large, [bytes(3 << 20)] * 12)]
    assert sizes == [1 << 20] * 12


@pytest.mark.parametrize(
    ("function", "count"), [(functions.filled, 900), (functions.filled_large, 40)]
)
def test_pixels_are_a_films_own_however_late_they_are_looked_at(function: Any, count: int) -> None:
    """Through many batches that grow, two workers, and shared memory that is used again."""
    with Workers(2) as workers:
        found = dict(workers.map(function, range(count)))
    assert len(found) == count
    for number, pixels in found.items():
        assert pixels.dtype == np.uint8 and (pixels == number % 251).all()


def test_batches_grow_where_films_are_quick_and_only_there() -> None:
    with Workers(1) as workers:
        list(workers.map(functions.double, range(2000)))
        (worker,) = workers._workers
        assert worker.times() == 2
        worker._given -= 1.0
        assert [worker.times() for _ in range(2)] == [1, 1]


def test_codecs_cannot_write_over_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(1) as workers:
        list(workers.map(functions.noisy, range(3)))
    assert capfd.readouterr() == ("", "")


def running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_close_leaves_no_process() -> None:
    with Workers(2) as workers:
        found = {answer for _, answer in workers.map(functions.process, range(50), chunk=1)}
        assert os.getpid() not in found
    assert not any(running(process) for process in found)


def test_workers_end_with_their_caller() -> None:
    """Killed without a chance to clean up; and the script needs no guard for __main__."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import time, worker_functions\n"
        "from hilum.films.workers import Workers\n"
        "workers = Workers(1)\n"
        "print(next(workers.map(worker_functions.process, range(9)))[1], flush=True)\n"
        "time.sleep(100)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    worker = int(caller.stdout.readline())
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    for _ in range(100):
        if not running(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("a worker outlived its caller")


def test_a_caller_never_sees_a_film_that_began_before_it_did() -> None:
    """A look at the board between two writes killed workers for films that took no time at all."""
    script = (
        "import mmap, sys; from hilum.films.isolated import Board\n"
        "board = Board(mmap.mmap(int(sys.argv[1]), 16))\n"
        "while True: board.begin(1)\n"
    )
    with shared_memory(16) as file:
        board = Board(mmap.mmap(file.fileno(), 16))
        start = time.monotonic()
        board.begin(0)
        command = [sys.executable, "-c", script, str(file.fileno())]
        writer = subprocess.Popen(command, pass_fds=[file.fileno()])
        try:
            began: set[float] = set()
            while len(began) < 20_000 and time.monotonic() < start + 20:
                began.add(board.read()[1])
        finally:
            writer.kill()
            writer.wait()
    assert len(began) > 100
    assert start <= min(began) <= max(began) <= time.monotonic()


def test_a_worker_has_its_next_batch_before_the_answers_are_taken() -> None:
    given: list[int] = []

    def items() -> Iterator[int]:
        for number in range(8):
            given.append(number)
            yield number

    with Workers(1) as workers:
        answers = workers.map(functions.double, items(), chunk=4)
        assert next(answers) == (0, 0)
        assert given == list(range(8))
        answers.close()
