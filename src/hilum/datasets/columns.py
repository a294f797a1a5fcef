"""Columns of texts for hundreds of thousands of films, in bytes and not in objects.

A text of Python's takes about 50 bytes more than its letters, and a reference to it 8 in every
list. Here the letters of a column lie behind each other in one block, a row says in one, two or
four bytes which of the texts it has, and a text is made when it is asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from operator import add, eq
from typing import Any, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

_CODE = ("utf-8", "surrogatepass")
_WIDER = {"B": "H", "H": "I"}
# So many texts are remembered, to be known when they come again: patients, parts, views do so soon.
_KNOWN = 1024
_FEW = 256  # distinct texts that are made once for all rows


class Column(Sequence[str]):
    """n texts, read and compared as a tuple of them."""

    @abstractmethod
    def _at(self, row: SupportsIndex) -> str: ...

    @abstractmethod
    def append(self, text: str) -> None:
        """One more row."""

    @abstractmethod
    def select(self, rows: NDArray[Any]) -> Self:
        """The texts of these rows, by indices or a mask; the letters are shared, not copied."""

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Self: ...
    def __getitem__(self, row: SupportsIndex | slice) -> str | Self:
        if isinstance(row, slice):
            return self.select(np.arange(len(self))[row])
        return self._at(row)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Column | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows)"


class Texts(Column):
    """Texts of which many rows have the same: patients, parts, views.

    Any text is held, half a surrogate too (a file's name may be no UTF-8). A column grows while
    films are listed; in a manifest it stays as it is.

    Parameters
    ----------
    texts : in the order of the rows
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._letters = bytearray()  # UTF-8; of 4 GB at most
        self._ends = array("I", [0])  # text k lies from _ends[k] to _ends[k + 1]
        self._of = array("B")  # which text each row has
        self._known: dict[str, int] = {}
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        which = self._known.get(text)
        if which is None:
            which = self._kept(text)
        self._of.append(which)

    def __setitem__(self, row: int, text: str) -> None:
        which = self._known.get(text)
        if which is None:
            which = self._kept(text)
        self._of[row] = which

    def _kept(self, text: str) -> int:
        """The number of a text that is new, or came so long ago that it is kept once more."""
        which = len(self._ends) - 1
        self._letters += text.encode(*_CODE)
        self._ends.append(len(self._letters))
        while which >> 8 * self._of.itemsize:  # by two steps where others share the letters
            self._of = array(_WIDER[self._of.typecode], self._of)
        if len(self._known) == _KNOWN:
            self._known.clear()
        self._known[text] = which
        return which

    def _text(self, which: int) -> str:
        return self._letters[self._ends[which] : self._ends[which + 1]].decode(*_CODE)

    def _at(self, row: SupportsIndex) -> str:
        return self._text(self._of[row])

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[str]:
        if len(self._ends) > _FEW:
            return map(self._text, self._of)
        few = list(map(self._text, range(len(self._ends) - 1)))
        return map(few.__getitem__, self._of)

    def select(self, rows: NDArray[Any]) -> Texts:
        chosen = Texts()
        chosen._letters, chosen._ends = self._letters, self._ends
        chosen._of = array(self._of.typecode, np.asarray(self._of)[rows].tobytes())
        return chosen

    def equal(self, text: str) -> NDArray[np.bool_]:
        """(n,) which rows have this text."""
        return np.fromiter(map(text.__eq__, self), bool, len(self))

    def distinct(self) -> int:
        """How many different texts there are."""
        return int((self.first_rows() == np.arange(len(self))).sum())

    def first_rows(self) -> NDArray[np.int32]:
        """(n,) the first row that has the same text: rows of one text share this number.

        Texts are told apart by 16 bytes of BLAKE2b; a dictionary of them takes eight times that.
        """
        letters = (self._letters[start:end] for start, end in pairwise(self._ends))
        kept = np.fromiter(map(_digest, letters), "S16", len(self._ends) - 1)
        number = np.unique(kept, return_inverse=True)[1].reshape(-1).astype(np.int32)
        of = number[np.asarray(self._of)]
        first = np.zeros(len(kept), np.int32)
        first[of[::-1]] = np.arange(len(self), dtype=np.int32)[::-1]  # the last one stays
        return first[of]


class Paths(Column):
    """Paths: many are in one folder, and in it each row has a name of its own.

    Parameters
    ----------
    paths : with ``/``
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._folder, self._name = Texts(), Texts()
        for path in paths:
            self.append(path)

    def append(self, text: str) -> None:
        folder, slash, name = text.rpartition("/")
        self._folder.append(folder + slash)
        self._name.append(name)

    def _at(self, row: SupportsIndex) -> str:
        return self._folder._at(row) + self._name._at(row)

    def __len__(self) -> int:
        return len(self._name)

    def __iter__(self) -> Iterator[str]:
        return map(add, self._folder, self._name)

    def select(self, rows: NDArray[Any]) -> Paths:
        chosen = Paths()
        chosen._folder, chosen._name = self._folder.select(rows), self._name.select(rows)
        return chosen

    def below(self, folder: str) -> Paths:
        """The same paths relative to a folder that all of them are in; names are not copied."""
        start = len(folder.rstrip("/")) + 1
        inside = Paths()
        inside._folder = Texts(above[start:] for above in self._folder)
        inside._name = self._name
        return inside


class Lookup:
    """Where a text stands among others: a dictionary of 20 bytes a row.

    Parameters
    ----------
    column : texts; they are not kept
    """

    def __init__(self, column: Iterable[str]) -> None:
        keys = np.fromiter((_digest(text.encode(*_CODE)) for text in column), "S16")
        self._rows = np.argsort(keys, kind="stable").astype(np.int32)
        self._keys = keys[self._rows]
        # Digests are spread evenly: by their first two bytes a search has few steps left.
        begins = np.searchsorted(self._keys.view(">u2")[::8], np.arange((1 << 16) + 1))
        self._begins = array("I", begins.astype(np.uint32).tobytes())

    def rows(self, text: str) -> list[int]:
        """The rows that have this text, in order."""
        key = _digest(text.encode(*_CODE))
        first = int.from_bytes(key[:2].ljust(2, b"\0"), "big")
        within = self._begins[first], self._begins[first + 1]
        start = end = bisect_left(self._keys, key, *within)
        while end < len(self._keys) and self._keys[end] == key:
            end += 1
        return self._rows[start:end].tolist()

    def __contains__(self, text: str) -> bool:
        return bool(self.rows(text))

    def absent(self, others: Lookup) -> list[int]:
        """The first row of each text that is not among the others."""
        keys, first = np.unique(self._keys, return_index=True)
        return self._rows[first[~np.isin(keys, others._keys)]].tolist()


def _digest(letters: bytes | bytearray) -> bytes:
    """16 bytes, but without zeros at their end, as numpy has them."""
    return blake2b(letters, digest_size=16).digest().rstrip(b"\0")


def texts(column: Sequence[str]) -> Texts:
    """A column as ``Texts``; itself where it is one."""
    return column if isinstance(column, Texts) else Texts(column)


def paths(column: Sequence[str]) -> Paths:
    """A column as ``Paths``; itself where it is one."""
    return column if isinstance(column, Paths) else Paths(column)
