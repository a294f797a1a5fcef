from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hilum.errors import TrainingStopped
from hilum.training.export import export, parity
from hilum.training.graph import Graph, scale
from hilum.training.learner import new_network

from .conftest import films_of, recipe_of


def network_of(name: str, size: int) -> Any:
    network = new_network(recipe_of(name, size))
    with torch.no_grad():  # weights that are not fresh: statistics that are not 0 and 1
        for index, value in enumerate(network.state_dict().values()):
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(index))
                value.add_(0.05 * noise)
    return network.eval()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("name", "size"), [("compact", 32), ("compact", 64), ("paper2021", 94)])
def test_the_graph_answers_like_the_network(name: str, size: int, mirror: bool) -> None:
    graph = Graph(network_of(name, size), mirror)
    films = films_of(40, size).pixels
    model = export(graph, size)
    onnx.checker.check_model(onnx.load_from_string(model))
    assert parity(graph, model, films) < 1e-4


def test_a_film_and_its_mirror_image_get_one_answer_and_maps_that_mirror_each_other() -> None:
    network, films = network_of("compact", 32), torch.from_numpy(films_of(3, 32).pixels)
    plain, both = Graph(network), Graph(network, mirror=True)
    with torch.inference_mode():
        logit, cam = both(films)
        turned, turned_cam = both(films.flip(2))
        alone, of_mirror = plain(films)[0], plain(films.flip(2))[0]
    assert torch.allclose(logit, (alone + of_mirror) / 2, atol=1e-6)
    assert not torch.allclose(alone, of_mirror, atol=1e-4)
    assert torch.allclose(logit, turned, atol=1e-6)
    assert torch.allclose(cam, turned_cam.flip(2), atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_inputs_and_outputs_of_the_graph(mirror: bool) -> None:
    model = export(Graph(network_of("compact", 32), mirror), 32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (films,) = session.get_inputs()
    assert (films.name, films.type, films.shape[1:]) == ("films", "tensor(uint8)", [32, 32])
    assert [output.name for output in session.get_outputs()] == ["logit", "cam"]
    assert "BatchNormalization" not in {n.op_type for n in onnx.load_from_string(model).graph.node}
    for n in (1, 2, 5, 33):
        logit, cam = session.run(None, {"films": films_of(n, 32).pixels})
        assert logit.shape == (n,) and cam.shape[0] == n and cam.ndim == 3
        np.testing.assert_allclose(cam.mean((1, 2)), logit, rtol=1e-4, atol=1e-4)


def test_the_network_without_a_map_has_none() -> None:
    network = network_of("paper2021", 94)
    assert Graph(network).outputs == ("logit",)


def test_a_graph_of_other_weights_is_refused() -> None:
    network = network_of("compact", 32)
    model = export(Graph(network), 32)
    with torch.no_grad():
        network.classifier.bias.add_(1e-2)
    with pytest.raises(TrainingStopped, match="does not answer like the trained network"):
        parity(Graph(network), model, films_of(20).pixels)


def test_a_graph_that_is_not_finite_is_refused() -> None:
    network = network_of("compact", 32)
    with torch.no_grad():
        network.classifier.bias.fill_(float("nan"))
    model = export(Graph(network), 32)
    with pytest.raises(TrainingStopped, match="not finite"):
        parity(Graph(network), model, films_of(20).pixels)


def test_a_network_that_ran_away_is_told_as_one() -> None:
    network = network_of("compact", 32)
    with torch.no_grad():
        network.classifier.weight.mul_(1e7)
    model = export(Graph(network), 32)
    with torch.no_grad():
        network.classifier.weight.mul_(1.01)
    with pytest.raises(TrainingStopped, match=r"has diverged.*Lower optimiser\.lr"):
        parity(Graph(network), model, films_of(20).pixels)


class TestScale:
    def test_unit(self) -> None:
        films = torch.tensor([0.0, 51.0, 255.0]).reshape(1, 1, 1, 3)
        assert scale(films, "unit").flatten().tolist() == pytest.approx([0, 0.2, 1])

    def test_standardise_takes_away_brightness_and_contrast(self) -> None:
        films = torch.from_numpy(films_of(4).pixels)[:, None].float()
        one = scale(films, "standardise")
        assert one.mean((1, 2, 3)).abs().max() < 1e-5
        assert (one.std((1, 2, 3)) - 1).abs().max() < 0.02
        torch.testing.assert_close(scale(films * 0.5 + 40, "standardise"), one, rtol=0, atol=0.03)

    def test_a_constant_film_stays_finite(self) -> None:
        assert scale(torch.full((1, 1, 8, 8), 77.0), "standardise").abs().max() == 0

    def test_a_name_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="no such scaling"):
            scale(torch.zeros(1, 1, 2, 2), "both")
