from __future__ import annotations

import socket
import threading
from typing import Any

import numpy as np
import pytest

from hilum.films.wire import Wire


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
