"""The rules of the house that a reader of the tree can rely on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hilum

PACKAGE = Path(hilum.__file__).parent


def trees() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE).as_posix(), ast.parse(file.read_text("utf-8"))


def calls(tree: ast.Module) -> Iterator[str]:
    """Dotted names of everything that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_only_the_command_line_prints_and_exits() -> None:
    loud = {"print", "sys.exit", "exit", "click.echo"}
    found = [
        (name, call)
        for name, tree in trees()
        for call in calls(tree)
        if call in loud and not name.startswith("cli/")
    ]
    assert found == []


def test_only_machine_sets_threads() -> None:
    found = []
    for name, tree in trees():
        if name == "machine.py":
            continue
        found += [(name, c) for c in calls(tree) if c.endswith("set_num_threads")]
        found += [
            (name, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.endswith("_NUM_THREADS")
        ]
    assert found == []


def test_only_storage_renames_and_locks() -> None:
    mine = {"os.replace", "os.rename", "shutil.move", "fcntl.flock", "fcntl.lockf"}
    found = [
        (name, call)
        for name, tree in trees()
        for call in calls(tree)
        if call in mine and name != "storage.py"
    ]
    assert found == []


def test_only_decide_compares_with_a_threshold() -> None:
    found = []
    for name, tree in trees():
        if name == "decision.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and not all(
                isinstance(op, (ast.Is, ast.IsNot, ast.In, ast.NotIn)) for op in node.ops
            ):
                sides = [node.left, *node.comparators]
                found += [
                    (name, node.lineno)
                    for side in sides
                    if isinstance(side, ast.Attribute) and side.attr == "threshold"
                ]
    assert found == []


def test_no_room_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "types", "misc"}
    assert [p for p in PACKAGE.rglob("*") if p.stem in drawers] == []


def test_a_file_is_one_idea() -> None:
    long = {
        name: len((PACKAGE / name).read_text("utf-8").splitlines())
        for name, _ in trees()
        if len((PACKAGE / name).read_text("utf-8").splitlines()) > 430
    }
    assert long == {}


def test_every_public_function_says_what_it_does() -> None:
    silent = []
    for name, tree in trees():
        for node in tree.body:
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and ast.get_docstring(node) is None
                and not any("Error" in ast.unparse(b) for b in getattr(node, "bases", []))
                and name != "errors.py"
            ):
                silent.append(f"{name}:{node.name}")
    assert silent == []
