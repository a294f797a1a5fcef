from __future__ import annotations

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


def test_help_lists_the_kinds_of_sources(capsys: pytest.CaptureFixture[str]) -> None:
    from hilum.datasets.index import KINDS

    assert run(["index", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(f" {kind}" in told.split("--kind KIND")[1].split("--positive")[0] for kind in KINDS)
