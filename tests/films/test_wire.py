from __future__ import annotations

import mmap
import socket
import threading
from typing import Any

import numpy as np
import pytest

from hilum.films.wire import Wire, shared_memory


def passed(content: Any) -> Any:
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=Wire(ours).send, args=(content,))
    sender.start()
    found = Wire(theirs).receive()
    sender.join()
    ours.close()
    theirs.close()
    return found


@pytest.mark.parametrize(
    "content",
    [
        None,
        ("answers", [1, "a", b"x" * 100_000]),
        [np.arange(5), np.zeros((0, 3)), np.arange(12).reshape(3, 4).T],
        [np.random.default_rng(0).integers(0, 256, (900, 900), np.uint8)] * 3,
    ],
    ids=["nothing", "plain", "odd arrays", "large arrays"],
)
def test_objects_come_out_as_they_went_in(content: Any) -> None:
    found = passed(content)
    if isinstance(content, list):
        for one, other in zip(found, content, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        assert found == content


def test_an_end_that_has_gone_is_the_end_of_file() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b"\1\0")  # and not a whole message
    ours.close()
    with pytest.raises(EOFError):
        Wire(theirs).receive()
    theirs.close()


def test_arrays_cross_in_shared_memory_and_what_has_no_room_follows() -> None:
    ours, theirs = socket.socketpair()
    with shared_memory(200_000) as file, ours, theirs:
        memory = [mmap.mmap(file.fileno(), 200_000) for _ in range(2)]
        sender, receiver = Wire(ours, outgoing=memory[0]), Wire(theirs, incoming=memory[1])
        films = [np.full((200, 200), number, np.uint8) for number in range(4)]
        sender.send(films)  # the first two fit into a half
        assert [memory[1][place] for place in (0, 40_000, 80_000)] == [0, 1, 0]
        found = receiver.receive()
        for film, other in zip(films, found, strict=True):
            np.testing.assert_array_equal(film, other)
        sender.turn()
        sender.turn()
        sender.send([films[3]])
        np.testing.assert_array_equal(receiver.receive()[0], films[3])
        np.testing.assert_array_equal(found[0], films[0])  # its own, not a view of the memory


@pytest.mark.parametrize(
    ("answer", "is_laid"),
    [
        (np.arange(12, dtype=np.uint8).reshape(3, 4), True),
        (np.arange(6, dtype=">f4").reshape(1, 2, 3), True),
        (np.zeros((0, 3)), True),
        (np.array(3.0), True),
        (np.arange(12).reshape(3, 4).T, False),  # not in one piece
        (np.array(["a", None], object), False),
        (np.zeros(100_001, np.uint8), False),  # no room
        ("text", False),
        (None, False),
    ],
    ids=lambda value: None,
)
def test_what_is_laid_is_lifted(answer: Any, is_laid: bool) -> None:
    ours, theirs = socket.socketpair()
    with shared_memory(200_000) as file, ours, theirs:
        memory = [mmap.mmap(file.fileno(), 200_000) for _ in range(2)]
        sender, receiver = Wire(ours, outgoing=memory[0]), Wire(theirs, incoming=memory[1])
        crossing = sender.lay(answer)
        assert (crossing[1] is not None) == is_laid
        sender.send(crossing)
        found = receiver.lift(receiver.receive())
    if isinstance(answer, np.ndarray):
        assert (found.dtype, found.shape) == (answer.dtype, answer.shape)
        np.testing.assert_array_equal(found, answer)
    else:
        assert found == answer


def test_what_was_laid_outlives_one_turn_of_the_memory() -> None:
    """A caller lifts the answers to a batch while the worker lays those to the next."""
    ours, theirs = socket.socketpair()
    with shared_memory(200_000) as file, ours, theirs:
        memory = [mmap.mmap(file.fileno(), 200_000) for _ in range(2)]
        sender, receiver = Wire(ours, outgoing=memory[0]), Wire(theirs, incoming=memory[1])
        films = [np.full((250, 300), number, np.uint8) for number in range(6)]
        before = sender.lay(films[0])
        for film in films[1:]:
            sender.turn()
            crossing = sender.lay(film)
            assert receiver.lift(before)[0, 0] == film[0, 0] - 1
            assert (receiver.lift(before) == film - 1).all()
            before = crossing
