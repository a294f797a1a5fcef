"""What a film may cost: stated limits, checked on the header before anything is decoded."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

from hilum.errors import UnreadableFilm


@dataclass(frozen=True)
class Limits:
    """Attributes
    ----------
    bytes : of the encoded file, and of a deflated file once inflated
    pixels : of one picture (a chest film digitised at 50 micrometres has 60 million)
    scans : of a progressive JPEG; each costs a pass over the whole picture
    nesting : of DICOM sequences within sequences
    """

    bytes: int = 256 << 20
    pixels: int = 80_000_000
    scans: int = 100
    nesting: int = 16

    def check_bytes(self, count: int) -> None:
        """Raise ``UnreadableFilm("too-large")`` where the file is over the limit."""
        if count > self.bytes:
            raise UnreadableFilm(
                "too-large", f"the file has {count >> 20} MiB; the limit is {self.bytes >> 20} MiB"
            )

    def check_pixels(self, width: int, height: int) -> None:
        """Raise ``UnreadableFilm``: ``too-large``, or ``corrupt`` where there is no pixel."""
        if width <= 0 or height <= 0:
            raise UnreadableFilm("corrupt", "the header states a picture without any pixel")
        if width * height > self.pixels:
            raise UnreadableFilm(
                "too-large",
                f"the picture has {width * height / 1e6:.0f} million pixels; "
                f"the limit is {self.pixels / 1e6:.0f} million",
            )


LIMITS = Limits()


def bound_memory(memory: int) -> None:
    """Allow ``memory`` bytes of address space beyond what is mapped now (Linux; else nothing)."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as stream:  # noqa: PTH123
            mapped = int(stream.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = mapped + memory
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
