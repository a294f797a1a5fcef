"""Everything that can go wrong, as one tree.

    HilumError                      exit code
    ├── UsageError                  2   wrong options, keys or names
    │   ├── RecipeError             2   a recipe with unknown keys or impossible values
    │   └── PlaceUnfit              2   a place that cannot train this recipe
    ├── Refused                     3   going on would make the result wrong
    │   ├── LeakError               3   one patient in two parts
    │   ├── TooManyUnreadable       3   more broken films than the stated share
    │   ├── MissingExtra            3   an optional install is needed
    │   ├── PlaceUnavailable        3   no such processor here
    │   ├── MemoryFull              3   less memory is granted than is needed
    │   ├── Locked                  3   another run holds this folder
    │   ├── FolderTaken             3   the folder holds another result
    │   ├── BundleRefused           3   a model that was changed, is newer or not one
    │   └── TrainingStopped         3   training had to stop
    │       ├── NonFiniteLoss       3
    │       ├── WorkerLost          3
    │       └── DiskFull            3
    ├── UnreadableFilm              4   one film, with a code and a reason
    └── Interrupted                 130 by the user; a run can be resumed

Each message is one line for people: what is wrong: which thing. What to do.
Anything that is not a ``HilumError`` is a defect of hilum's (exit code 1), but for a memory that
ran out (``memory_full``) and a package that is missing (``missing_extra``).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec


class HilumError(Exception):
    """Base of all errors that hilum raises on purpose."""

    exit_code = 1


class UsageError(HilumError):
    exit_code = 2


class RecipeError(UsageError):
    pass


class PlaceUnfit(UsageError):
    pass


class Refused(HilumError):
    exit_code = 3


class LeakError(Refused):
    pass


class TooManyUnreadable(Refused):
    pass


class MissingExtra(Refused):
    """An optional install is needed.

    Parameters
    ----------
    what : what the user wanted, for example ``"training"``
    extra : the extra's name, for example ``"train"``
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs more than the plain install: the extra {extra}. "
            f'Type: pip install "hilum[{extra}]"'
        )
        self.extra = extra


# Module → (what people wanted, the extra that brings it).
_EXTRAS = {
    "torch": ("training", "train"),
    "onnx": ("training", "train"),
    "scipy": ("judging", "report"),
    "sklearn": ("judging", "report"),
    "matplotlib": ("judging", "report"),
}


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """The extra behind a failed import, or None where the module belongs to none."""
    known = _EXTRAS.get((error.name or "").split(".")[0])
    return MissingExtra(*known) if known else None


def require(extra: str) -> None:
    """Raise ``MissingExtra`` where a package that an extra brings is not installed.

    For what runs long before it would meet the package: nobody waits for a line that could have
    been said at once. ``train`` brings what ``report`` does.
    """
    for module, (what, brings) in _EXTRAS.items():
        if extra in ("train", brings) and find_spec(module) is None:
            raise MissingExtra("training" if extra == "train" else what, extra)


class PlaceUnavailable(Refused):
    pass


class MemoryFull(Refused):
    pass


# How it is said where it is no error of its own: by torch on a CPU, ONNX Runtime (twice), the
# loader of libraries, and where a thread's stack finds no room.
_MEMORY_FULL = ("can't allocate memory", "std::bad_alloc", "Failed to allocate memory",
                "failed to map segment", "can't start new thread",
                "pthread_create failed")  # fmt: skip


def memory_full(error: BaseException) -> MemoryFull | None:
    """The line for an error that says that the main memory ran out; None for any other."""
    said = str(error)
    starts = [at for words in _MEMORY_FULL if (at := said.find(words)) >= 0]
    known = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if not known and not starts:
        return None
    words = said[min(starts, default=0) :].split("\n")[0][:100]
    return MemoryFull(
        f"there is not enough memory{f' ({words})' if words else ''}. Take fewer "
        "processes or workers, a smaller batch or smaller films, or grant more memory."
    )


class Locked(Refused):
    pass


class FolderTaken(Refused):
    pass


class BundleRefused(Refused):
    pass


class TrainingStopped(Refused):
    pass


class NonFiniteLoss(TrainingStopped):
    pass


class WorkerLost(TrainingStopped):
    pass


class DiskFull(TrainingStopped):
    pass


class UnreadableFilm(HilumError):
    """One film that cannot be read.

    Parameters
    ----------
    code : a short stable word: ``truncated``, ``empty``, ``not-a-film``, ``constant``, ...
    text : the reason in one sentence, without names or identifiers from the file
    """

    exit_code = 4

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[type[UnreadableFilm], tuple[str, str]]:
        return (UnreadableFilm, (self.code, self.text))


class Interrupted(HilumError):
    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?``, or the list of what there is, for the end of a message."""
    names = sorted(known)
    begun = [one for one in names if len(name) > 2 and one.startswith(name)]
    close = begun or get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(names)}."
