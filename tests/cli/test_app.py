from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hilum.cli.app import run


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (EOFError("ended early"), 1, "EOFError: ended early\nhilum: this is a defect of hilum's."),
        (ValueError("a defect"), 1, "ValueError: a defect\nhilum: this is a defect of hilum's."),
        (KeyboardInterrupt(), 130, "hilum: interrupted."),
        (click.Abort(), 130, "hilum: interrupted."),
    ],
)
def test_only_the_user_interrupts(
    raised: BaseException,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def index(*sources: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr("hilum.datasets.index.index", index)
    assert run(["index", str(tmp_path), "-o", str(tmp_path / "films.csv")]) == code
    told = capsys.readouterr().err
    assert said in told
    assert ("Traceback" in told) == (code == 1)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (MemoryError(), "not enough memory. Take fewer"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ([Errno 12] Cannot allocate"),
        (RuntimeError("at x.cpp: can't allocate memory: y"), "(can't allocate memory: y). Take"),
    ],
)
def test_a_full_memory_is_no_defect(
    raised: Exception,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def index(*sources: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr("hilum.datasets.index.index", index)
    assert run(["index", str(tmp_path), "-o", str(tmp_path / "films.csv")]) == 3
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "command", [["--help"], ["doctor", "--json"], ["predict", "--format", "csv", "."]]
)
def test_a_reader_that_has_gone_is_no_defect(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(b"no film")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "hilum", *command],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        )
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr


def test_a_slip_in_the_switch_of_the_kernels_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HILUM_KERNELS", "offf")
    assert run(["doctor"]) == 2
    assert "HILUM_KERNELS is 'offf'. It takes on or off" in capsys.readouterr().err


def test_help_lists_the_kinds_of_sources(capsys: pytest.CaptureFixture[str]) -> None:
    from hilum.datasets.index import KINDS

    assert run(["index", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(f" {kind}" in told.split("--kind KIND")[1].split("--positive")[0] for kind in KINDS)
