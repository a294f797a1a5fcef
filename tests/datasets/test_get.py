"""``get`` with a stand-in for kagglehub: nothing here touches the network."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest

from hilum.datasets import get as published
from hilum.datasets.get import SETS, get
from hilum.errors import FolderTaken, Refused, UsageError
from hilum.progress import Progress


class Listening(Progress):
    def __init__(self):
        self.said, self.warned = [], []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)


@pytest.fixture
def hub(monkeypatch, write, root):
    """kagglehub as far as hilum uses it; downloads are the films in ``root``."""
    write("train/NORMAL/a.png", "train/PNEUMONIA/b.png")
    module = ModuleType("kagglehub")
    module.asked = []
    module.dataset_download = lambda handle: module.asked.append(handle) or str(root)
    module.competition_download = lambda name: module.asked.append("c:" + name) or str(root)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    monkeypatch.setitem(SETS, "kermany", replace(SETS["kermany"], films=2))
    return module


def test_fetched_to_where_kagglehub_keeps_it(hub, root):
    progress = Listening()
    assert get("kermany", progress=progress) == root
    assert hub.asked == ["paultimothymooney/chest-xray-pneumonia"]
    assert "CC BY 4.0" in progress.said[0]
    assert not progress.warned


def test_fetched_to_a_folder(hub, tmp_path):
    folder = get("kermany", tmp_path / "out")
    assert (folder / "train/NORMAL/a.png").is_file()
    with pytest.raises(FolderTaken):
        get("kermany", tmp_path / "out")


def test_a_competition(hub):
    progress = Listening()
    get("rsna", progress=progress)
    assert hub.asked == ["c:rsna-pneumonia-detection-challenge"]
    assert "not whole: 2 films" in progress.warned[0]


def test_no_network_tells_the_manual_way(hub):
    def fail(handle):
        raise ConnectionError("no route to host\nlong trace")

    hub.dataset_download = fail
    with pytest.raises(Refused, match=r"could not be fetched.*no route to host.*By hand") as caught:
        get("kermany")
    assert "\n" not in str(caught.value)


def test_without_kagglehub_the_manual_way_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(Refused, match=r"pip install kagglehub.*By hand: .*hilum index"):
        get("nih", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_set_that_is_not_on_kaggle():
    with pytest.raises(Refused, match=r"By hand: .*medmnist\.com, then hilum index FILE\.npz\.$"):
        get("pneumoniamnist")


def test_unknown_set():
    with pytest.raises(UsageError, match="Did you mean 'kermany'"):
        get("kermanny")


def test_every_set_says_what_it_is():
    for name, each in published.SETS.items():
        assert name == each.name
        assert each.films > 1000
        assert each.licence and each.about and each.page.startswith("https://")
