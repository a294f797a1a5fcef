"""The pages on method and formulas: their examples run, their quotations are in the code."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from hilum.networks import arithmetic

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "docs" / "formulas.md", ROOT / "docs" / "method.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_gives_what_the_page_shows(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted >= 10
    assert result.failed == 0


def test_the_examples_of_arithmetic_run() -> None:
    result = doctest.testmod(arithmetic)
    assert result.attempted >= 8
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_lines_are_in_the_code(page: Path) -> None:
    folder = ROOT / "src" / "hilum" / "networks"
    code = "".join(path.read_text("utf-8") for path in sorted(folder.glob("*.py")))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    quoted = [block for block in blocks if ">>>" not in block]
    assert quoted or page.name != "formulas.md"
    for block in quoted:
        assert block in code, f"{page.name} quotes what is not there:\n{block}"


def test_every_function_named_on_the_page_is_there() -> None:
    from hilum.networks import reference

    text = PAGES[0].read_text("utf-8")
    named = set(re.findall(r"(reference|arithmetic)\.(\w+)\(", text))
    assert len(named) > 12
    for module, name in named:
        assert hasattr({"reference": reference, "arithmetic": arithmetic}[module], name)
