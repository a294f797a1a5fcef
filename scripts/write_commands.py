"""Write docs/commands.md from the commands' own help, so that neither can go stale.

Run: python scripts/write_commands.py
"""

from __future__ import annotations

from pathlib import Path

import click

from hilum.cli.app import COMMANDS, hilum

TARGET = Path(__file__).parent.parent / "docs" / "commands.md"


def text() -> str:
    """The page: each command's help as ``--help`` prints it."""
    parts = [
        "# Commands",
        "",
        "Written from the commands' own help by `scripts/write_commands.py`.",
        "",
        "Exit codes: 0 done · 1 a defect of hilum's · 2 wrong usage · 3 refused: the result would "
        "be wrong, or something needed is missing · 4 done, but some films could not be read · "
        "130 interrupted, resumable.",
    ]
    # As in the application: a command keeps the help option that it was first asked for with.
    names = ["-h", "--help"]
    root = click.Context(hilum, info_name="hilum", help_option_names=names)
    for name in COMMANDS:
        command = hilum.get_command(root, name)
        assert command is not None
        ctx = click.Context(
            command, info_name=name, parent=root, max_content_width=96, terminal_width=96
        )
        parts += ["", f"## hilum {name}", "", "```text", command.get_help(ctx), "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
