from __future__ import annotations

import errno
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hilum.errors import DiskFull, FolderTaken, Locked, Refused
from hilum.storage import atomic_write, digest, lock, new_folder, resume_command, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(file, "w") as stream:
        stream.write("half of the ne")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(DiskFull, match="the disk is full"), atomic_write(file, "w"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert file.read_text() == "old"


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time\nfrom hilum.storage import lock\n"
        f"with lock({str(path)!r}):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(Locked, match=str(holder.pid)), lock(path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    start = time.monotonic()
    with lock(path):
        assert time.monotonic() - start < 5


def test_a_folder_with_a_result_is_refused_an_empty_one_is_taken(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "new" / "deep")
    assert new_folder(folder) == folder
    (folder / "lock").touch()
    assert new_folder(folder, marker="lock") == folder
    (folder / "result").touch()
    with pytest.raises(FolderTaken, match="--out"):
        new_folder(folder, marker="lock")
    with pytest.raises(FolderTaken):
        new_folder(folder / "result")


@pytest.mark.parametrize("name", ["run", "it's a run", "-dash", "two words", "$HOME", "/tmp/run"])
def test_the_line_that_goes_on_is_one_that_a_shell_takes(name: str) -> None:
    words = shlex.split(resume_command("train", Path(name)))
    assert words[:3] == ["hilum", "train", "--resume"] and len(words) == 4
    assert Path(words[3]) == Path(name) and not words[3].startswith("-")


def test_digests_are_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(b"abc") == digest("a", "bc") == digest(file) == known


def test_a_place_that_takes_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(Refused, match=r"cannot be written: .*a.json .*Choose another place"),
        atomic_write(tmp_path / "file" / "a.json"),
    ):
        pass
