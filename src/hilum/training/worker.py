"""One process of a group that hilum has started itself: ``python -m hilum.training.worker RUN``."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path

from hilum.errors import HilumError, memory_full
from hilum.progress import Progress, Telling, tell
from hilum.training.run import Run


def _die_with_the_leader() -> None:
    os.read(0, 1)  # nothing ever comes but the end
    os._exit(1)


def main(folder: str) -> int:
    """One worker: train the run in ``folder`` as the environment's rank; its exit code.

    A defect's traceback goes to the screen, and ``leader.lead`` tells of it.
    """
    from hilum.training.train import work

    threading.Thread(target=_die_with_the_leader, daemon=True).start()
    try:
        work(Run(Path(folder)), Telling() if os.environ["RANK"] == "0" else Progress())
    except HilumError as error:
        return _told(error)
    except Exception as error:
        full = memory_full(error)
        if full is not None:
            return _told(full)
        traceback.print_exc()
        return 1
    return 0


def _told(error: HilumError) -> int:
    """The exit code of an error that the leader has been told."""
    tell(error=type(error).__name__, text=str(error))
    return error.exit_code


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: what others wait for must not hang on threads of a group that broke
