from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hilum.progress import Progress, Retelling, Telling, heard


class Noted(Progress):
    """Writes down what it is told, and the ends of stages."""

    def __init__(self) -> None:
        self.notes: list[object] = []

    @contextmanager
    def stage(
        self, name: str, total: int | None = None, *, brief: bool = False
    ) -> Iterator[Callable[[int], None]]:
        self.notes.append((name, total, brief))
        try:
            yield self.notes.append
        finally:
            self.notes.append(f"end of {name}")

    def warn(self, text: str) -> None:
        self.notes.append(text)

    def row(self, table: str, values: dict[str, object]) -> None:
        self.notes.append((table, values))


def test_what_a_process_tells_is_passed_on_by_another(capsys: pytest.CaptureFixture[str]) -> None:
    telling, noted = Telling(), Noted()
    with telling.stage("epoch 1", 8, brief=True) as advance:
        advance(3)
        telling.warn("slow")
        advance(5)
    telling.row("training", {"epoch": 1, "loss": 0.5})
    with telling.stage("export"):
        pass
    with Retelling(noted) as told:
        for line in capsys.readouterr().out.splitlines():
            event = heard(line)
            assert event is not None
            told.take(event)
        told.take({"outcome": "is for others"})
        assert noted.notes[-1] != "end of export"
    assert noted.notes == [
        *(("epoch 1", 8, True), "slow", 8, "end of epoch 1"),
        ("training", {"epoch": 1, "loss": 0.5}),
        *(("export", None, False), 0, "end of export"),
    ]


def test_a_stage_that_is_interrupted_there_is_not_ended_here_as_if_it_were_done() -> None:
    ended: list[str] = []

    class Plain(Progress):
        @contextmanager
        def stage(
            self, name: str, total: int | None = None, *, brief: bool = False
        ) -> Iterator[Callable[[int], None]]:
            yield lambda steps: None
            ended.append(name)

    with pytest.raises(KeyboardInterrupt), Retelling(Plain()) as told:
        told.take({"stage": "decoding films", "total": 9, "brief": False})
        raise KeyboardInterrupt
    assert ended == []


@pytest.mark.parametrize("word", ["", "4711", "a warning", '"quoted"', "[1]"])
def test_a_library_s_own_word_is_no_event(word: str) -> None:
    assert heard(word) is None
