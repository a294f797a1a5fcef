"""The docs say what runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from hilum.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent.parent
DOCS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def test_every_command_and_option_is_in_the_docs_as_its_help_says() -> None:
    text = runpy.run_path(str(ROOT / "scripts" / "write_commands.py"))["text"]()
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == text, (
        "run python scripts/write_commands.py"
    )


def test_every_command_has_an_example() -> None:
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    for name in COMMANDS:
        section = text.split(f"## hilum {name}\n")[1].split("\n## ")[0]
        assert re.search(r"Examples?:\s+hilum " + name, section), name


def test_the_pages_name_no_command_or_option_that_is_not_there() -> None:
    known = (ROOT / "docs" / "commands.md").read_text("utf-8")
    sections = {name: known.split(f"## hilum {name}\n")[1].split("\n## ")[0] for name in COMMANDS}
    for page in DOCS:
        code = "\n".join(re.findall(r"^```.*?^```", page.read_text("utf-8"), re.M | re.S))
        for line in re.findall(r"^\s*\$? ?hilum ([a-z]+)(.*)$", code, re.M):
            name, rest = line
            assert name in sections, f"{page.name}: hilum {name}"
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0]):
                assert option in sections[name] or option == "--help", f"{page.name}: {line}"


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in DOCS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
