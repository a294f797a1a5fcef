"""A GPU's learner: on a CPU without graphs, pinned memory and streams, all else as it is there."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.utils._python_dispatch import TorchDispatchMode

from hilum.errors import NonFiniteLoss, PlaceUnavailable, Refused, TrainingStopped
from hilum.machine import Place
from hilum.networks import kernels
from hilum.training import augment, backends, faults, memory, step
from hilum.training.augment import Augmentation
from hilum.training.gpu import CudaLearner
from hilum.training.learner import TorchLearner, class_weights
from hilum.training.loop import batches, fit, order, steps_in_epoch
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.resident import BUFFERS, OnDevice, Stream, size_of, upload
from hilum.training.run import Run
from hilum.training.schedule import LearningRate

from .conftest import CPU, films_of, recipe_of

EVERYTHING: dict[str, Any] = {
    "flip": True, "rotation": 10.0, "zoom": 0.1, "stretch": 0.2, "shift": 0.08, "shear": 3.0,
    "blur": 1.5, "sharpen": 1.5, "gamma": 0.7, "contrast": 0.5, "field": 0.3, "noise": 0.05,
    "cutout": 0.5,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    # Newton and Schulz enlarge what is small: a rounding grows tenfold and more an epoch.
    "muon": {
        "optimiser": {"name": "muon", "lr": 0.004, "weight_decay": 0.01},
        "training": {"epochs": 2},
    },
    # Rates that a float32 holds exactly, as a GPU is given them: equal to the bit.
    "adam": {"optimiser": {"name": "adam", "lr": 2.0**-9}},
    "adamw": {"optimiser": {"name": "adamw", "lr": 2.0**-9, "weight_decay": 0.05}},
    "sgd": {"optimiser": {"name": "sgd", "lr": 2.0**-4}},
    "everything": {
        "augmentation": EVERYTHING,
        "averaging": {"decay": 0.9, "every": 2},
        "network": {"options": {"width": 4, "dropout": 0.2}},
        "schedule": {"name": "cosine", "warmup": 0.2},
        "sizes": {"phases": [[16, 0.5], [32, 0.5]]},
        "training": {"label_smoothing": 0.1},
    },
}


def trained(kind: type, recipe: Recipe, part: Films, other: Films, **setting: Any) -> Any:
    """A learner after the recipe's epochs, and the epochs."""
    learner = kind(recipe, CPU, class_weights(part.labels, "balanced"))
    for name, value in setting.items():
        setattr(learner, name, value)
    epochs: list[Any] = []
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    fit(learner, recipe, part, other, rate=rate, ended=epochs.append)
    return learner, epochs


def weights(learner: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.network().parameters()])


def apart(one: Any, other: Any) -> float:
    """Distance of the weights of two learners over their length."""
    a, b = weights(one), weights(other)
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("room", [None, 0], ids=["resident", "streamed"])
def test_its_step_is_that_of_the_plain_learner(
    name: str, room: int | None, part: Films, other: Films
) -> None:
    recipe = recipe_of(**RECIPES[name])
    plain, expected = trained(TorchLearner, recipe, part, other)
    ours, found = trained(CudaLearner, recipe, part, other, room=room)
    assert [held.resident for held in ours._sets.values()] == [room is None] * 2
    if name in ("adam", "adamw", "sgd"):
        assert torch.equal(weights(ours), weights(plain))
    else:
        assert apart(ours, plain) < 1e-4
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=1e-3)


def test_the_papers_network_too(part: Films, other: Films) -> None:
    small = {"filters": [8, 8, 8, 8, 8], "units": [8, 4]}
    recipe = recipe_of("paper2021", 94, network={"name": "paper2021", "options": small},
                       training={"epochs": 1, "batch": 8})  # fmt: skip
    films = films_of(20, 94)
    plain, _ = trained(TorchLearner, recipe, films, films)
    ours, _ = trained(CudaLearner, recipe, films, films)
    assert apart(ours, plain) < 1e-4


def test_a_run_that_was_resumed_ends_with_the_same_weights(part: Films, other: Films) -> None:
    recipe = recipe_of(**RECIPES["everything"])
    whole, _ = trained(CudaLearner, recipe, part, other)
    states: list[Any] = []
    first = CudaLearner(recipe, CPU, class_weights(part.labels, "balanced"))
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))

    def stop(epoch: Any) -> None:
        states.append({"learner": first.state(), "rate": rate.state()})
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, recipe, part, other, rate=rate, ended=stop)
    second = CudaLearner(recipe, CPU, class_weights(part.labels, "balanced"))
    second.restore(states[-1]["learner"])
    rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
    rate.restore(states[-1]["rate"])
    fit(second, recipe, part, other, rate=rate, first=2)
    assert torch.equal(weights(second), weights(whole))


def test_draws_are_made_piece_by_piece_where_a_step_reads_them(
    part: Films, other: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(**{**RECIPES["everything"], "sizes": {}})
    whole, _ = trained(CudaLearner, recipe, part, other)
    monkeypatch.setattr("hilum.training.learner.DRAWN_AT_ONCE", 7)
    pieces, _ = trained(CudaLearner, recipe, part, other)
    assert torch.equal(weights(pieces), weights(whole))
    before = [t.data_ptr() for t in pieces.drawn if t is not None]
    pieces.begin(part, 2)
    assert [t.data_ptr() for t in pieces.drawn if t is not None] == before


@pytest.mark.parametrize("room", [None, 0], ids=["resident", "streamed"])
def test_warming_up_learns_nothing(room: int | None, part: Films, other: Films) -> None:
    recipe = recipe_of(**RECIPES["everything"])
    expected, _ = trained(CudaLearner, recipe, part, other, room=room)
    learner = CudaLearner(recipe, CPU, class_weights(part.labels, "balanced"))
    learner.room, learner.graphs = room, True  # as on a GPU
    training = recipe.training
    plan = batches(order(0, 0, len(part)), training.batch, training.last_batch)
    before = [t.clone() for t in step._memory(learner)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "_capture", lambda one: one)
        learner.warm_up(part, other, 0)
        assert learner._captured is learner._steps[recipe.training.batch]
        assert all(map(torch.equal, step._memory(learner), before))
        rate = LearningRate(recipe, steps_in_epoch(len(part), recipe))
        fit(learner, recipe, part, other, rate=rate)
    assert torch.equal(weights(learner), weights(expected))
    assert sorted(learner._steps) == sorted({len(batch) for batch in plan})


def test_a_loss_that_is_not_finite_names_its_step(part: Films, other: Films) -> None:
    recipe = recipe_of(optimiser={"name": "sgd", "lr": 1000.0})
    told = []
    for kind in (TorchLearner, CudaLearner):
        with pytest.raises(NonFiniteLoss, match=r"in epoch \d, step \d, at") as stopped:
            trained(kind, recipe, part, other)
        told.append(str(stopped.value))
    assert told[0] == told[1]


def test_the_eager_way_of_groups_and_profilers(part: Films, other: Films) -> None:
    recipe = recipe_of(**RECIPES["everything"])
    plain, expected = trained(TorchLearner, recipe, part, other)
    for room in (None, 0):
        ours, found = trained(CudaLearner, recipe, part, other, eager=True, room=room)
        assert torch.equal(weights(ours), weights(plain))
        assert found[-1].accuracy == expected[-1].accuracy


def test_places_choose_their_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(backends.make_learner(recipe_of(), CPU, (1.0, 1.0))) is TorchLearner
    monkeypatch.setattr(backends, "CudaLearner", lambda *given: ("a GPU's", given[1]))
    place = Place("cuda", 1, 1, "bfloat16")
    assert backends.make_learner(recipe_of(), place, (1.0, 1.0)) == ("a GPU's", place)


def test_a_step_that_cannot_be_captured_goes_on_as_it_is(
    part: Films, other: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    def captured(step: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    recipe = recipe_of(**RECIPES["adam"])
    expected, _ = trained(CudaLearner, recipe, part, other)
    monkeypatch.setattr("hilum.training.gpu.Captured", captured)
    with pytest.warns(RuntimeWarning, match=r"cannot be captured here \(CUDA error: .*capturing\)"):
        found, _ = trained(CudaLearner, recipe, part, other, graphs=True)
    assert torch.equal(weights(found), weights(expected)) and not found.graphs


def test_a_learner_that_is_done_leaves_nothing_behind(part: Films, other: Films) -> None:
    """Without the garbage collector: what it holds is a GPU's memory."""
    learner, _ = trained(CudaLearner, recipe_of(), part, other, room=0)
    watched = weakref.ref(learner), weakref.ref(learner.set.labels)
    gc.collect()
    gc.disable()
    try:
        del learner
        assert [one() for one in watched] == [None, None]
    finally:
        gc.enable()
    assert not [t for t in threading.enumerate() if t.name == "hilum-films"]


# --- what a graph can hold ------------------------------------------------------------------------


class Asked(TorchDispatchMode):
    """Remembers operators by which a host waits for a device, or hands it a number of its own."""

    WORDS = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "scalar_tensor",
             "unique", "is_pinned", "equal")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        bools = [
            a for a in (args[1] if name.startswith("index") and len(args) > 1 else ())
            if isinstance(a, torch.Tensor) and a.dtype in (torch.bool, torch.uint8)
        ] if isinstance(args[1] if len(args) > 1 else None, list) else []  # fmt: skip
        if name in self.WORDS or bools:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation as it runs there."""
    monkeypatch.setattr(augment, "_runs_ahead", lambda x: True)
    monkeypatch.setattr(kernels, "takes_films", lambda pixels: False)


@pytest.mark.parametrize("name", ["muon", "everything"])
def test_a_step_never_asks_the_device(
    name: str, part: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for Adam's fused update, which reads the rate on a CPU and on a GPU does not."""
    as_on_a_gpu(monkeypatch)
    recipe = recipe_of(**RECIPES[name])
    learner = CudaLearner(recipe, CPU, (1.0, 1.0))
    learner.begin(part, 0)
    for one in learner.optimisers:
        if type(one).__name__ != "Muon":
            monkeypatch.setattr(one, "step", lambda share: None)
    one = step.Step(learner, learner.set, 8, learner._ledger)
    one()  # constants that are kept are made here, before a capture
    with Asked() as asked:
        one()
    assert asked.found == []
    with Asked() as asked, torch.no_grad():  # it would have seen it
        float(torch.ones(2)[torch.tensor([True, False])].sum())
    assert {"lift_fresh", "_local_scalar_dense"} <= set(asked.found)


def test_films_that_are_all_computed_come_out_as_those_that_are_picked(
    part: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, numbers = torch.from_numpy(part.pixels), torch.from_numpy(part.identity)
    monkeypatch.setattr(kernels, "takes_films", lambda pixels: False)
    picked = augment.augment(pixels, numbers, 0, 0, Augmentation(blur=2, sharpen=2))
    as_on_a_gpu(monkeypatch)
    every = augment.augment(pixels, numbers, 0, 0, Augmentation(blur=2, sharpen=2))
    assert torch.equal(every, picked)


def test_running_before_a_capture_changes_nothing(part: Films) -> None:
    learner = CudaLearner(recipe_of(**RECIPES["everything"]), CPU, (1.0, 1.0))
    learner.begin(part, 0)
    before = [t.clone() for t in step._memory(learner)]
    drawn = torch.get_rng_state()
    one = step.Step(learner, learner.set, 8, learner._ledger)
    learner._numbers.send(one.row, 0, 1.0, np.arange(8))
    with step._put_back(step._memory(learner), learner.device):
        one()
        moved = [not torch.equal(a, b) for a, b in zip(step._memory(learner), before, strict=True)]
        assert any(moved)
    for now, was in zip(step._memory(learner), before, strict=True):
        assert torch.equal(now, was)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_numbers_carry_what_a_step_needs_to_know() -> None:
    rows, target = step.Numbers(4, torch.device("cpu")), torch.zeros(5, dtype=torch.int64)
    for turn in range(2 * step.STEPS_AHEAD + 3):
        rows.send(target, turn, 0.1 * turn, np.array([7, 8, 2**40 + turn]))
        assert target[0] == turn and target[2:].tolist() == [7, 8, 2**40 + turn]
        assert target[1:2].view(torch.float32)[0] == torch.tensor(0.1 * turn)


# --- films that are streamed ----------------------------------------------------------------------


def holed(count: int = 30, size: int = 16) -> Films:
    """Films that lie scattered among others."""
    whole = films_of(3 * count, size)
    rows = np.random.default_rng(0).permutation(3 * count)[:count]
    return Films(whole.pixels, rows, whole.labels[rows], whole.identity[rows])


def test_the_stream_brings_the_plan_and_anything_else() -> None:
    films, device = holed(), torch.device("cpu")
    stream = Stream(films, 8, device)
    plan = batches(order(0, 0, len(films)), 8, "keep")
    asked = [*plan[:2], np.array([3, 1]), *plan[2:]]
    for _ in range(3):  # abandoned in the middle, and begun anew
        stream.begin(plan)
        for batch in asked:
            found = stream.fetch(batch).numpy()
            assert np.array_equal(found, films.pixels[films.rows[batch]])
    stream.begin(batches(order(0, 0, len(films)), 2, "keep"))  # more than is gathered ahead
    assert [t for t in threading.enumerate() if t.name == "hilum-films"]
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "hilum-films"]


def test_a_batch_stays_while_the_next_one_comes() -> None:
    films = holed()
    stream = Stream(films, 4, torch.device("cpu"))
    plan = batches(np.arange(len(films)), 4, "keep")
    stream.begin(plan)
    last = stream.fetch(plan[0])
    for before, batch in pairwise(plan):
        found = stream.fetch(batch)
        assert np.array_equal(last.numpy(), films.pixels[films.rows[before]])
        last = found


def test_what_the_thread_meets_is_told() -> None:
    films = holed()
    broken = replace(films, rows=np.where(np.arange(len(films)) == 9, 10**6, films.rows))
    stream = Stream(broken, 4, torch.device("cpu"))
    plan = batches(np.arange(len(films)), 4, "keep")
    stream.begin(plan)
    stream.fetch(plan[0])
    stream.fetch(plan[1])
    with pytest.raises(IndexError):
        stream.fetch(plan[2])


def test_a_set_is_carried_over_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.training.resident.PIECE", 7 * 16 * 16)
    films = holed()
    found = upload(films, torch.device("cpu"))
    assert np.array_equal(found.numpy(), films.pixels[films.rows])
    held = OnDevice(films, 8, torch.device("cpu"), resident=True)
    assert size_of(films) == sum(
        t.nbytes for t in (held.pixels, held.labels, held.identity) if t is not None
    )


def test_films_go_to_the_gpu_while_there_is_room(part: Films, other: Films) -> None:
    learner = CudaLearner(recipe_of(), CPU, (1.0, 1.0))
    learner.room = size_of(part) + size_of(other) - 1
    assert learner.on_device(part, 8).resident and not learner.on_device(other, 8).resident


def test_streams_are_as_large_as_their_batches(
    part: Films, other: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Films that are judged come in larger batches than those that are learnt from."""
    monkeypatch.setattr(CudaLearner, "_at_once", 13)
    learner = CudaLearner(recipe_of(), CPU, (1.0, 1.0))
    learner.room = 0
    learner.begin(part, 0, [np.arange(8), np.arange(8, 11)])
    assert learner.set.stream is not None and learner.set.stream.size == 8
    buffers = BUFFERS * 8 * 32 * 32 + 12 * len(part)
    assert learner.set.bytes == buffers and learner.room == -buffers
    learner.step(np.arange(8), 1e-3)
    learner.finish()
    plain = TorchLearner(recipe_of(), CPU, (1.0, 1.0))
    plain.restore(learner.state())
    for films in (other, part):  # part: a stream that has to grow
        assert learner.logits(films, 32) == pytest.approx(plain.logits(films, 32), abs=1e-5)
        stream = learner.on_device(films, 8).stream
        assert stream is not None and stream.size == 13


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Any) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure\nmore"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_lost_gpu_ends_with_the_line_that_goes_on(run: Run, error: Exception) -> None:
    with (
        pytest.raises(TrainingStopped, match=r"does not answer.*--resume") as stopped,
        faults.explained(run, recipe_of(), Place("cuda")),
    ):
        raise error
    assert "\n" not in str(stopped.value) and stopped.value.__cause__ is error


def test_a_peer_that_was_lost_is_no_lost_gpu(run: Run) -> None:
    error = distributed.DistBackendError("NCCL error in: x.cpp, remote process exited\nmore")
    gpu = faults.explained(run, recipe_of(), Place("cuda", 2, 1, "float32"))
    with pytest.raises(distributed.DistBackendError, match="remote process"), gpu:
        raise error


def test_other_errors_stay_what_they_are(run: Run) -> None:
    with pytest.raises(RuntimeError, match="a defect"), faults.explained(run, recipe_of(), CPU):
        raise RuntimeError("a defect")
    gpu = faults.explained(run, recipe_of(), Place("cuda"))
    with pytest.raises(RuntimeError, match="shapes"), gpu:
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("place", [CPU, Place("cuda", 1, 1, "float32")], ids=str)
def test_a_full_memory_names_what_fits(
    run: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = "training.batch=64"
    recipe = Recipe.load("paper2021", [large])
    need = memory.memory_needed(recipe, place)
    monkeypatch.setattr(memory, "of_gpu", lambda device=None: (need // 2, 2 * need))
    with (
        pytest.raises(TrainingStopped) as stopped,
        faults.explained(run, recipe, place),
    ):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except RuntimeError as error:  # as a capture that fails says it
            raise RuntimeError("operation failed due to a previous error during capture") from error
    said = str(stopped.value)
    batch = int(said.split("training.batch=")[1].split(",")[0])
    size = int(said.split("preprocessing.size=")[1].split(".")[0])
    assert 1 <= batch < 33 and 94 <= size < 500
    for changes in ([f"training.batch={batch}"], [large, f"preprocessing.size={size}"]):
        assert memory.memory_needed(Recipe.load("paper2021", changes), place) <= need // 2


def test_processes_that_share_a_memory_are_advised_as_one(run: Run) -> None:
    recipe = Recipe.load("paper2021", ["training.batch=64"])
    place = Place("cpu", 2, 1, "float32")

    def need(batch: int) -> int:
        smaller = Recipe.load("paper2021", [f"training.batch={batch}"])
        return 2 * memory.memory_needed(smaller, place)

    with pytest.raises(TrainingStopped) as stopped, faults.explained(run, recipe, place):
        raise MemoryError
    batch = int(str(stopped.value).split("training.batch=")[1].split(",")[0])
    assert need(batch) <= need(recipe.training.batch) / 2 < need(batch + 1)


def test_a_full_gpu_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, place = Recipe.load("paper2021"), Place("cuda", 1, 1, "float32")
    need = memory.memory_needed(recipe, place)
    monkeypatch.setattr(memory, "of_gpu", lambda device=None: (need - 1, 4 * need))
    with pytest.raises(Refused, match=r"the GPU is full: .* in use .*training\.batch=15"):
        memory.check_memory(recipe, place)
    monkeypatch.setattr(memory, "of_gpu", lambda device=None: (need // 4, need // 2))
    with pytest.raises(Refused, match=r"more memory than there is.*training\.batch=[123]\b"):
        memory.check_memory(recipe, place)
    monkeypatch.setattr(memory, "of_gpu", lambda device=None: (need, need))
    assert memory.check_memory(recipe, place) == need


def test_a_gpu_that_others_hold_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(device: Any) -> Any:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    monkeypatch.setattr(torch.cuda, "mem_get_info", busy)
    with pytest.raises(PlaceUnavailable, match="busy or unavailable"):
        memory.of_gpu()
