"""Fixtures that all rooms share."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from hilum.bundle import Bundle
from hilum.decision import Calibration, OperatingPoint
from hilum.films.preprocess import Preprocessing

# A busy machine makes a test slow, not wrong.
settings.register_profile("hilum", deadline=None)
settings.load_profile("hilum")


# A shell that starts the suite in the background has SIGINT ignored, and so have its children;
# the tests of Ctrl-C send it for real.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def films_folder() -> Path:
    """The folder of real films, named by HILUM_FILMS; skips, and says so, where there is none."""
    named = os.environ.get("HILUM_FILMS")
    if not named:
        pytest.skip("needs real films: set HILUM_FILMS to their folder")
    folder = Path(named)
    assert folder.is_dir(), f"HILUM_FILMS names no folder: {folder}"
    return folder


@pytest.fixture(scope="session")
def gpu() -> str:
    """The GPU's name; skips, and says so, where torch sees none."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: torch sees none here")
    return str(torch.cuda.get_device_name())


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache or configuration."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("HILUM_CACHE", str(base / "cache"))
    monkeypatch.setenv("HILUM_CONFIG", str(base / "config"))


def brightness_graph(size: int = 32, *, cam: bool = True) -> bytes:
    """An ONNX graph in the shape of a bundle's: the logit is the film's brightness, 8 a unit."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: object, kind: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, kind), name)

    nodes = [
        helper.make_node("Cast", ["films"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["unit"]),
        helper.make_node("Sub", ["unit", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "gain"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence", "axes"], ["logit"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])]
    if cam:
        nodes += [
            helper.make_node("Unsqueeze", ["evidence", "one"], ["channel"]),
            helper.make_node(
                "AveragePool", ["channel"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]
            ),
            helper.make_node("Squeeze", ["pooled", "one"], ["cam"]),
        ]
        outputs.append(helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["n", "h", "w"]))
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("films", TensorProto.UINT8, ["n", size, size])],
        outputs,
        [
            constant("full", 255.0),
            constant("half", 0.5),
            constant("gain", 8.0),
            constant("axes", [1, 2], np.int64),
            constant("one", [1], np.int64),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def brightness_bundle(size: int = 32, *, cam: bool = True, **changes: object) -> Bundle:
    """A bundle that calls bright films positive."""
    points = {
        "balanced": OperatingPoint("balanced", 0.5, rule="bright"),
        "screening": OperatingPoint("screening", 0.2, rule="rather bright"),
    }
    made = Bundle(
        name="brightness",
        target="pneumonia",
        classes=("normal", "pneumonia"),
        preprocessing=Preprocessing(size=size),
        calibration=Calibration(),
        operating_points=points,
        default_operating_point="balanced",
        model=brightness_graph(size, cam=cam),
        card="# brightness\n",
        outputs=("logit", "cam") if cam else ("logit",),
        hilum="0",
    )
    return replace(made, **changes)


@pytest.fixture
def bundle() -> Bundle:
    return brightness_bundle()


@pytest.fixture
def bundle_without_cam() -> Bundle:
    return brightness_bundle(cam=False)


@pytest.fixture
def grey_films(tmp_path: Path) -> Path:
    """A folder with a dark and a bright film, neither constant."""
    from PIL import Image

    folder = tmp_path / "grey"
    folder.mkdir()
    ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    Image.fromarray(ramp).save(folder / "dark.png")
    Image.fromarray(ramp + 190).save(folder / "bright.png")
    return folder
