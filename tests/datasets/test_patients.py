from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from hilum.datasets.patients import agent, known_patient
from hilum.errors import Refused
from hilum.machine import config_folder
from hilum.names import hashed


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("person1000_bacteria_2931.jpeg", "bacteria-1000"),
        ("person1000_virus_1681.jpeg", "virus-1000"),
        ("person1_virus_12_1.jpeg", "virus-1"),
        ("train/PNEUMONIA/person63_bacteria_306.jpeg", "bacteria-63"),
        ("person1000_bacteria_2931_flipped.png", "bacteria-1000"),
        ("IM-0115-0001.jpeg", "im-0115"),
        ("IM-0115-0001-0002.jpeg", "im-0115"),
        ("NORMAL2-IM-0115-0001.jpeg", "normal2-im-0115"),
        ("BACTERIA-1008087-0001.jpeg", "mendeley-1008087"),
        ("NORMAL-1001666-0001.jpeg", "mendeley-1001666"),
        ("00000013_005.png", "nih-00000013"),
        ("CXR17_IM-0499-1001.png", "openi-17"),
        ("CXR1_1_IM-0001-3001.png", "openi-1"),
    ],
)
def test_published_names(name, key):
    assert known_patient(name) == key


def test_numbers_of_other_agents_and_series_are_other_children():
    assert known_patient("person5_bacteria_15.jpeg") != known_patient("person5_virus_9.jpeg")
    assert known_patient("IM-0115-0001.jpeg") != known_patient("NORMAL2-IM-0115-0001.jpeg")


@pytest.mark.parametrize("name", ["film.png", "scan_001.jpg", "person_1.png", "123.dcm", "IM.png"])
def test_other_names_tell_nobody(name):
    assert known_patient(name) is None


def test_agent():
    assert agent("x/person1_virus_6.jpeg") == "virus"
    assert agent("BACTERIA-1008087-0001.jpeg") == "bacteria"
    assert agent("IM-0115-0001.jpeg") == ""


def test_hashes_are_keyed_and_stay():
    assert hashed("12345") == hashed(" 12345 ")
    assert hashed("12345") != hashed("12346")
    assert "12345" not in hashed("12345")
    key = config_folder() / "patients.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = hashed("12345")
    code = "from hilum.names import hashed; print(hashed('12345'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == before


def test_another_user_has_other_hashes(tmp_path, monkeypatch):
    before = hashed("12345")
    monkeypatch.setenv("HILUM_CONFIG", str(tmp_path / "other"))
    assert hashed("12345") != before


def test_a_damaged_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CONFIG", str(tmp_path))
    (tmp_path / "patients.key").write_bytes(b"short")
    with pytest.raises(Refused, match="damaged"):
        hashed("1")
