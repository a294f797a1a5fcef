"""The film as a type: encoded bytes, what its header says, and pixels on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reason:
    """Why a film is refused or what is odd about it: a stable code and one sentence.

    ``refers`` is False for a note that does not keep a model from answering.
    """

    code: str
    text: str
    refers: bool = True

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "text": self.text}


@dataclass(frozen=True)
class Header:
    """What is known of a film without its pixels; None where nothing says.

    Attributes
    ----------
    width, height : pixels as shown (after any orientation); 0 where there are no pixels
    bits : stored bits a sample
    colour : Pillow's mode or DICOM's Photometric Interpretation
    modality, view : as DICOM names them (``CR``, ``PA``)
    body_part : Body Part Examined as it is written, so free text, and not shown
    age : years; sex : ``M``, ``F`` or ``O``
    patient, study, series, instance : identifiers; never shown or written as they are
    compression : name of the codec or the transfer syntax
    """

    width: int
    height: int
    bits: int = 8
    colour: str = "L"
    modality: str | None = None
    view: str | None = None
    body_part: str | None = field(default=None, repr=False)
    age: float | None = None
    sex: str | None = None
    patient: str | None = field(default=None, repr=False)
    study: str | None = field(default=None, repr=False)
    series: str | None = field(default=None, repr=False)
    instance: str | None = field(default=None, repr=False)
    compression: str | None = None


@dataclass(frozen=True)
class Pixels:
    """Decoded grey values.

    Attributes
    ----------
    values : (height, width) uint8, or float32 in [0, 255] where the film has more than 8 bits;
        0 is black, bright is dense, as a film is shown; read-only
    steps : what was done on the way, in order, in words
    reasons : what was found odd on the way (a window that clips, contradicting polarity);
        those that refer count like the radiograph's ``refusals``
    """

    values: NDArray[Any]
    steps: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One film: encoded bytes, a header, and pixels that are decoded when asked for.

    Attributes
    ----------
    name : what people call it (a path, or ``"<bytes>"``)
    data : the encoded file
    format : ``jpeg``, ``png``, ``tiff``, ``dicom`` or ``array``
    header : what the file says of itself
    refusals : why a model must not answer this film although it can be read (a lateral, a CT)
    decode : ``decode(least)`` gives ``Pixels`` whose shorter side is at least ``least`` pixels
        (0: full size); a decoder may go down to it by its own exact power-of-two scaling

    Made by :func:`hilum.films.read.read`, nowhere else.
    """

    name: str
    data: bytes = field(repr=False)
    format: str
    header: Header
    refusals: tuple[Reason, ...]
    decode: Callable[[int], Pixels] = field(repr=False)

    @cached_property
    def full(self) -> Pixels:
        """The full-size pixels with their steps; raises ``UnreadableFilm``."""
        return self.decode(0)

    @property
    def pixels(self) -> NDArray[Any]:
        """(height, width) grey values, read-only; see :class:`Pixels`."""
        return self.full.values

    @cached_property
    def sha256(self) -> str:
        from hilum.storage import digest

        return digest(self.data)

    def _repr_png_(self) -> bytes:
        from hilum.films.picture import png

        return png(np.asarray(self.pixels))
