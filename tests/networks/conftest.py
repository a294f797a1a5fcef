from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hilum import machine
from hilum.native import library
from hilum.networks import kernels

BUILDS = ["tiles", "vectors"] if "amx_bf16" in machine.cpu_flags() else ["vectors"]


@pytest.fixture(scope="module", params=BUILDS)
def build(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """All tests run with the best build for this processor and, where that has matrix tiles, with
    the one without."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != BUILDS[0] and kernels.available():
            flags = [flag for flag in library.flags(library.level()) if "amx" not in flag]
            folder = tmp_path_factory.mktemp("kernels")
            vectors = built_in(folder, ("residual", "blocks"), flags)
            best = library.load
            patch.setattr(
                library, "load", lambda name: (vectors[name], "") if name in vectors else best(name)
            )
        yield request.param


def built_in(folder: Path, names: tuple[str, ...], flags: list[str]) -> dict[str, library.Library]:
    """Libraries of other flags than this processor's."""
    for name in names:
        library.compile_to(folder / name, name, flags)
    return {name: library.Library(str(folder / name)) for name in names}
