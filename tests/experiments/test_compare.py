from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import hilum
from hilum import machine
from hilum.cli.app import run
from hilum.cli.compare import summary
from hilum.datasets import phantom
from hilum.datasets.manifest import Manifest
from hilum.datasets.split import leaks, note_leaks
from hilum.errors import (
    FolderTaken,
    Interrupted,
    RecipeError,
    Refused,
    UsageError,
    WorkerLost,
)
from hilum.evaluation.scores import Scores
from hilum.experiments import paper
from hilum.experiments.compare import (
    agreement,
    breakdown,
    claims,
    conditions,
    figures,
    jobs,
    payback,
    speed,
)
from hilum.experiments.compare import compare as comparing
from hilum.experiments.compare.agreement import equivalence
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.document import lead
from hilum.experiments.compare.jobs import Job, Outcome, perform
from hilum.experiments.compare.places import among, default_places, several
from hilum.experiments.compare.sample import of_films, sample
from hilum.experiments.compare.sections import again, places
from hilum.experiments.compare.spent import _unlike
from hilum.experiments.compare.tables import Table, places_table, seconds, tables
from hilum.machine import Place
from hilum.progress import SILENT, Progress
from hilum.training.gpu import CudaLearner
from hilum.training.learner import TorchLearner
from hilum.training.parts import Films
from hilum.training.recipe import Recipe
from hilum.training.sequential import ReferenceLearner

MARGIN = 0.02


# --- equivalence --------------------------------------------------------------------------------


def test_equals_are_alike_and_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.004, 6)
    assert equivalence(noise, MARGIN).verdict == "alike"
    found = equivalence(noise + 0.06, MARGIN)
    assert found.verdict == "different"
    assert found.low is not None and found.low < 0.06 < found.high  # type: ignore[operator]


def test_few_and_noisy_runs_leave_the_question_open() -> None:
    assert equivalence([0.03, -0.03], MARGIN).verdict == "open"
    single = equivalence([0.0], MARGIN)
    assert single.verdict == "not tested" and single.low is None and single.p is None


def test_identical_runs_are_alike() -> None:
    assert equivalence([0.0, 0.0, 0.0], MARGIN).verdict == "alike"


def test_the_same_difference_in_every_run_has_no_spread_to_test_by() -> None:
    accuracies = (102 / 106, 99 / 106), (101 / 106, 98 / 106)  # three films in both pairs
    found = equivalence([after - before for before, after in accuracies], MARGIN)
    assert found.verdict == "not tested" and found.low is None and found.n == 2


def test_a_difference_at_the_margin_passes_in_one_of_twenty_at_most() -> None:
    rng = np.random.default_rng(1)
    passed = [
        equivalence(rng.normal(MARGIN, 0.01, 5), MARGIN).verdict == "alike" for _ in range(2000)
    ]
    assert np.mean(passed) < 0.065  # 5 %, and three standard errors


@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=8))
def test_the_verdict_the_interval_and_p_agree(differences: list[float]) -> None:
    assume(np.ptp(differences) > 1e-9)
    found = equivalence(differences, MARGIN)
    assert found.low is not None and found.high is not None and found.p is not None
    assert found.low <= found.difference <= found.high
    assert (found.verdict == "alike") == (found.low > -MARGIN and found.high < MARGIN)
    if abs(found.p - 0.05) > 1e-6:
        assert (found.verdict == "alike") == (found.p < 0.05)


def test_the_interval_is_students() -> None:
    found = equivalence([0.01, 0.02, 0.03], MARGIN)
    # mean .02, s .01, t(.95, 2) = 2.919986
    assert found.high == pytest.approx(0.02 + 2.919986 * 0.01 / 3**0.5, abs=1e-7)


def epochs_of(bias: float, seed: int, count: int = 3) -> list[dict[str, Any]]:
    """Epochs of a made-up run, its losses higher and its accuracies lower by ``bias``."""
    drawn = np.random.default_rng([seed, round(1000 * bias)])
    wobble = 0.001 * drawn.normal(size=count)
    return [
        {
            "epoch": k + 1,
            "seconds": 2.0 + seed,
            "ms_per_step": 100.0 + seed,
            "loss": 0.5 / (k + 1) + bias + wobble[k],
            "accuracy": 0.8,
            "val_loss": 0.4 / (k + 1) + bias + wobble[k],
            "val_accuracy": 0.9 - bias + wobble[k],
            "val_auroc": 0.95 - bias + wobble[k],
            "lr": 0.001,
        }
        for k in range(count)
    ]


def test_runs_are_paired_by_the_seeds_that_both_have() -> None:
    first = {seed: epochs_of(0.0, seed) for seed in (0, 1, 2)}
    second = {seed: epochs_of(0.1, seed) for seed in (1, 2, 3)}
    found = agreement.compare_runs(first, second)
    assert set(found) == set(agreement.MARGINS)
    assert all(e.n == 2 for e in found.values())
    assert found["val_loss"].difference == pytest.approx(0.1, abs=0.002)
    assert found["curve_loss"].verdict == "different"
    assert found["val_accuracy"].difference == pytest.approx(-0.1, abs=0.002)


def test_a_measure_that_is_not_defined_is_left_out() -> None:
    epochs = [{**e, "val_auroc": None} for e in epochs_of(0.0, 0)]
    assert "val_auroc" not in agreement.compare_runs({0: epochs}, {0: epochs})


def test_few_films_that_agree_by_chance_do_not_show_that_places_converge_alike() -> None:
    rng, seeds, films = np.random.default_rng(2), (0, 1), 20

    def runs(accuracy: float) -> dict[int, list[dict[str, Any]]]:
        """One epoch a seed, of models that are right on so many films by chance."""
        return {
            seed: [
                {**epochs_of(0.0, seed, 1)[0], "val_accuracy": float(right) / films,
                 "val_loss": float(rng.normal(0.4, 0.01))}
            ]
            for seed, right in zip(seeds, rng.binomial(films, accuracy, 2), strict=True)
        }  # fmt: skip

    found = [agreement.compare_runs(runs(0.99), runs(0.96)) for _ in range(300)]
    verdicts = [by_measure["val_accuracy"].verdict for by_measure in found]
    assert "alike" not in verdicts and "not tested" in verdicts
    same = runs(0.99)
    rounded = {s: [{**e, "val_loss": e["val_loss"] + 5e-8} for e in same[s]] for s in same}
    for other in (same, rounded):  # a sum in another order is the same run
        again = agreement.compare_runs(same, other)
        assert again["val_accuracy"].verdict == again["val_auroc"].verdict == "alike"


def test_flips_are_counted_at_one_half() -> None:
    first, second = np.array([-1.0, 1.0, 0.1, -3.0]), np.array([-0.1, -1.0, 0.2, 3.0])
    assert agreement.flipped(first, second) == 2
    runs = {0: first, 1: second, 2: first}
    assert agreement.flips_between_seeds(runs) == [2, 0, 2]
    assert agreement.flips_between_places(runs, {1: first, 5: first}) == [2]
    assert agreement.one_answer(np.array([0.0, 0.1]))
    assert not agreement.one_answer(np.array([0.0, -0.1]))


# --- speed --------------------------------------------------------------------------------------


def test_the_papers_speed_up_comes_out_of_its_tables() -> None:
    cpu, gpu = ([e.seconds for e in epochs] for epochs in (paper.CPU, paper.GPU))
    found = speed.speed_up([cpu], [gpu])
    assert round(found["ratio"], 2) == paper.SPEED_UP
    assert (round(found["least"], 2), round(found["most"], 2)) == (5.70, 6.48)
    assert found["low"] is None and found["n"] == 10, "epochs of one run share its hour"


def test_the_interval_of_a_speed_up_covers_what_runs_share() -> None:
    """Each run has an hour of its own, 5 % off; its epochs differ by 1 %. The truth is 2."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        hours = rng.normal(0, 0.05, (3, 2))
        slow, fast = (
            [base * np.exp(hour[k] + rng.normal(0, 0.01, 10)) for hour in hours]
            for k, base in ((0, 20.0), (1, 10.0))
        )
        found = speed.speed_up(slow, fast)
        inside += found["low"] <= 2 <= found["high"]
    assert 0.92 <= inside / 400 <= 0.98
    with pytest.raises(ValueError, match="pairs of times"):
        speed.speed_up([[1.0, 2.0]], [[1.0]])


@pytest.mark.parametrize(
    ("setup", "seconds", "epochs"),
    [(10, 5, 0), (9, 10, 0), (30, 5, 4), (30, 12, None), (8, 11, None), (31, 5, 5)],
)
def test_break_even(setup: float, seconds: float, epochs: int | None) -> None:
    """Against a baseline of 10 s set-up and 10 s an epoch."""
    assert speed.break_even(setup, seconds, 10, 10) == epochs


# --- fewer films --------------------------------------------------------------------------------


def test_a_sample_takes_whole_patients_of_each_part_and_class(films: Manifest) -> None:
    some = of_films(films, 50)
    assert 35 <= len(some) <= 65
    whole = {p: films.patient.count(p) for p in set(some.patient)}
    assert {p: some.patient.count(p) for p in whole} == whole
    assert {row[0] for row in some.counts()} == {"train", "validation", "test"}
    assert all(min(row[1:3]) > 0 for row in some.counts())
    assert some.notes["sampled"]["of"] == len(films)


def test_a_sample_counts_its_own_leaks(films: Manifest) -> None:
    part = tuple(("train", "test")[row % 2] for row in range(len(films)))
    torn = replace(films, part=part, notes={})
    everything = len(note_leaks(torn))
    some = sample(torn, 0.5)
    assert some.notes.get("leak", 0) == len(leaks(some)) < everything
    assert torn.notes["leak"] == everything


def test_a_patient_with_films_of_both_classes_stays_whole(films: Manifest) -> None:
    """A child who was ill and well: all films or none, and each class keeps films of its own."""
    patient = [f"p{row // 2}" for row in range(len(films))]
    label = np.arange(len(films), dtype=np.int8) % 2
    both = replace(films, patient=patient, label=label, part=["train"] * len(films), notes={})
    some = sample(both, 0.5)
    assert 0.4 * len(films) < len(some) < 0.6 * len(films)
    assert {some.patient.count(p) for p in some.patient} == {2}


def test_smaller_samples_lie_within_larger_ones(films: Manifest) -> None:
    half, quarter = (sample(films, share, parts=("train",)) for share in (0.5, 0.25))
    assert set(quarter.path) < set(half.path) < set(films.path)
    for part in ("validation", "test"):
        assert half.of_part(part).path == films.of_part(part).path


# --- processes ----------------------------------------------------------------------------------


def job_in(folder: Path) -> Job:
    return Job("train", folder / "runs" / "a", "cpu:1", folder / "r.toml", folder / "films.csv")


def test_a_process_that_dies_is_a_failed_job_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WORKER", "hilum.no_such_room")
    outcome = perform(job_in(tmp_path), SILENT)
    assert outcome.status == "failed"
    assert "no_such_room" in outcome.reason and "exit code 1" in outcome.reason


def test_a_process_that_dies_before_it_is_asked_is_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = jobs.subprocess.Popen

    def dead(*given: Any, **named: Any) -> Any:
        process = started(*given, **named)
        process.wait(60)
        return process

    monkeypatch.setattr(jobs, "WORKER", "hilum.no_such_room")
    monkeypatch.setattr(jobs.subprocess, "Popen", dead)
    assert "no_such_room" in perform(job_in(tmp_path), SILENT).reason


def test_a_librarys_own_word_is_no_event() -> None:
    outcome: dict[str, Any] = {"status": "done", "reason": "", "found": {"x": 1}}
    told = ["0\n", '["outcome"]\n', "null\n", "a word\n", json.dumps({"outcome": outcome}) + "\n"]
    assert jobs._follow(io.StringIO("".join(told)), SILENT) == Outcome(**outcome)


def test_what_was_found_is_not_computed_again_and_failures_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WORKER", "hilum.no_such_room")
    job = job_in(tmp_path)
    job.kept.parent.mkdir()
    job.kept.write_text(json.dumps({"status": "done", "reason": "", "found": {"x": 1}}))
    progress = Progress()
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    assert perform(job, progress).found == {"x": 1}
    assert lines == ["  measured before; kept"]
    job.kept.write_text(json.dumps({"status": "failed", "reason": "before", "found": {}}))
    assert "no_such_room" in perform(job, SILENT).reason


def test_a_comparison_goes_on_under_the_conditions_of_its_begin_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions.library, "level", lambda: "x86-64-v3")
    monkeypatch.setattr(conditions.library, "compiler", lambda: "g++")
    conditions.hold(tmp_path)
    conditions.hold(tmp_path)  # nothing has changed

    def said() -> str:
        with pytest.raises(Refused) as refused:
            conditions.hold(tmp_path)
        return str(refused.value)

    def off() -> str:
        raise conditions.library.Unavailable("HILUM_KERNELS=off")

    for name in ("level", "compiler"):  # either is enough, and why makes no difference
        with monkeypatch.context() as some:
            some.setattr(conditions.library, name, off)
            assert said() == (
                f"begun under other conditions: {tmp_path} (there: with hilum's CPU kernels; here: "
                "without hilum's CPU kernels); their times are not compared. Go on as it was "
                "begun, or begin anew with another --out."
            )
    with monkeypatch.context() as some:
        some.setattr(conditions, "version", lambda name: "99.0")
        some.setattr(hilum, "__version__", "98.0")
        some.setattr(machine, "cores", lambda: 1000)
        assert ", 1000 cores, hilum 98.0, torch 99.0); " in said()
        assert "kernels" not in said(), "what is the same is not named"
    for damaged in ("{", '"A machine, 64 cores"', "[]"):
        (tmp_path / "machine.json").write_text(damaged)
        assert "(there: not known; here: " in said()


def test_another_gpu_is_another_condition_where_a_place_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def have(*names: str) -> None:
        told = [f"GPU {k}: {name} (UUID: GPU-{k}a)" for k, name in enumerate(names)]
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in told))
        program.chmod(0o700)

    def begin(content: dict[str, Any]) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "plan.json").write_text(json.dumps(content))
        conditions.hold(folder)
        return folder

    have("NVIDIA H100", "NVIDIA H100")
    on_gpu, tried = begin({"places": ["cpu:1", "cuda"]}), begin({"on": [], "wishes": True})
    on_cpu = begin({"places": ["cpu:1", "cpu:2"]})
    assert "gpus" not in json.loads((on_cpu / "machine.json").read_text())
    earlier = begin({"places": ["cuda:2", "cpu:1"]})
    kept = json.loads((earlier / "machine.json").read_text())
    assert kept.pop("gpus") == "2 × NVIDIA H100"
    (earlier / "machine.json").write_text(json.dumps(kept))
    with pytest.raises(Refused, match=r"\(there: gpus not known; here: 2 × NVIDIA H100\)"):
        conditions.hold(earlier)
    have("NVIDIA L4", "NVIDIA H100", "NVIDIA H100")
    for granted in ("1,2", "GPU-1,GPU-2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", granted)
        conditions.hold(on_gpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    conditions.hold(on_cpu)
    for folder in (on_gpu, tried):
        with pytest.raises(Refused, match=r"there: 2 × NVIDIA H100; here: 1 × NVIDIA L4\)"):
            conditions.hold(folder)
    program.unlink()
    conditions.hold(earlier)  # no GPU, no time of another
    with pytest.raises(Refused, match=r"\(there: 2 × NVIDIA H100; here: no GPU\)"):
        conditions.hold(on_gpu)


def test_a_job_survives_json() -> None:
    job = Job("breakdown", Path("a/b"), "cuda", Path("r"), Path("m"), 3, ("x=1",))
    assert Job.from_dict(json.loads(json.dumps(job.as_dict()))) == job


# --- where the time goes ------------------------------------------------------------------------


def part(count: int = 36, size: int = 32) -> Films:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (count, size, size), dtype=np.uint8)
    return Films(pixels, np.arange(count), (np.arange(count) % 2).astype(np.int8), np.arange(count))


def tiny(name: str = "paper2021", size: int = 32) -> Recipe:
    options = {"filters": [8, 8], "units": [4]} if name == "paper2021" else {}
    return Recipe.from_dict(
        {
            "network": {"name": name, "options": options},
            "preprocessing": {"size": size},
            "training": {"batch": 8, "epochs": 2},
            "augmentation": {"zoom": 0.1},
        }
    )


@pytest.mark.parametrize("name", ["paper2021", "compact"])
def test_the_parts_of_a_step_on_torch(name: str) -> None:
    recipe, films = tiny(name), part()
    learner = TorchLearner(recipe, Place("cpu", 1, 1, "float32"), (1.0, 1.0))
    found = breakdown._torch(learner, films, recipe, breakdown._batches(len(films), recipe))
    parts = found["parts"]
    assert set(parts) == set(breakdown.PARTS)
    assert min(parts["convolution"], parts["optimiser"], parts["data"], parts["dense"]) > 0
    assert parts["transfer"] == parts["exchange"] == 0
    assert found["steps"] == breakdown.STEPS and found["ms_per_step"] > 0


def test_a_gpus_step_is_timed_as_it_trains_and_taken_apart_by_operators() -> None:
    recipe, films = tiny("compact"), part()
    learner = CudaLearner(recipe, Place("cpu", 1, 1, "float32"), (1.0, 1.0))
    learner.graphs = True  # as on a GPU, where a step is one graph
    launched: list[bool] = []

    def captured(step: Any) -> Any:
        return lambda: (launched.append(learner.eager), step())

    learner._capture = captured  # type: ignore[method-assign]
    found = breakdown._torch(learner, films, recipe, breakdown._batches(len(films), recipe))
    assert launched == [False] * (breakdown.WARM + breakdown.STEPS)
    assert found["parts"]["convolution"] > 0 and found["parts"]["data"] > 0


def test_processes_begin_a_timed_step_together() -> None:
    recipe, films, told = tiny(), part(), list[str]()
    learner: Any = TorchLearner(recipe, Place("cpu", 1, 1, "float32"), (1.0, 1.0))
    learner.group = SimpleNamespace(
        rank=0, size=1, share=lambda batch: batch, arrive=lambda: None, collect=lambda: None,
        meet=lambda: None, alone=lambda shared: nullcontext(told.append("alone")),
        total=lambda values: told.append("met"),
    )  # fmt: skip
    step = learner.step
    learner.step = lambda *given: (told.append("step"), step(*given))
    found = breakdown._torch(learner, films, recipe, breakdown._batches(len(films), recipe))
    timed = told[breakdown.WARM :][: 5 * breakdown.PAIRS]
    assert timed == ["met", "step", "met", "alone", "step"] * breakdown.PAIRS
    assert found["exchange"] is not None


def test_the_parts_of_a_step_of_the_reference_add_up() -> None:
    recipe, films = tiny(), part()
    learner = ReferenceLearner(recipe, (1.0, 1.0))
    found = breakdown._reference(learner, films, recipe, np.arange(8))
    assert sum(found["parts"].values()) == pytest.approx(found["ms_per_step"], abs=0.02)
    assert found["parts"]["convolution"] > 0 and found["parts"]["pooling"] > 0
    from hilum.networks import reference

    assert not hasattr(reference.correlate, "__wrapped__")  # the timers are gone again


def event(name: str, parent: Any = None) -> Any:
    return SimpleNamespace(name=name, cpu_parent=parent)


def test_why_a_process_of_a_group_left_is_told_and_a_librarys_word_is_not() -> None:
    def rank(*words: str) -> Any:
        return SimpleNamespace(stdout=io.StringIO("".join(f"{word}\n" for word in words)))

    done = json.dumps({"outcome": {"status": "done", "reason": "", "found": {"x": 1}}})
    left = json.dumps({"error": "WorkerLost", "text": "rank 0 fell silent"})
    assert breakdown._answer([rank("0", "{no event", "[]", done), rank(done)]) == {"x": 1}
    for words, why in (([left], "rank 0 fell silent"), ([], "a process left no word")):
        with pytest.raises(WorkerLost, match=why):
            breakdown._answer([rank(done), rank(*words)])


def test_an_operator_belongs_to_its_nearest_name_but_a_marked_range_comes_first() -> None:
    step = event("hilum step")
    backward = event("autograd::engine::evaluate_function: ConvolutionBackward0", step)
    assert breakdown._part(event("aten::add", backward)) == "convolution"
    assert breakdown._part(event("FirstConvReluPool", step)) == "convolution"
    assert breakdown._part(event("FirstTwoConvReluPool", step)) == "convolution"
    assert breakdown._part(event("aten::max_pool2d_with_indices", step)) == "pooling"
    data = event("hilum data", step)
    assert breakdown._part(event("aten::mm", data)) == "data"
    assert breakdown._part(event("aten::relu", step)) is None


def test_one_disturbed_step_is_no_part_of_where_the_time_goes() -> None:
    events = []
    for number, late in enumerate((0.0, 9e4, 0.0)):
        start = 1e6 * number
        common = {"device_type": "DeviceType.CPU", "time_range": SimpleNamespace(start=start)}
        step = SimpleNamespace(name="hilum step", cpu_parent=None, self_cpu_time_total=10.0,
                               cpu_time_total=2e4 + late, **common)  # fmt: skip
        mark = SimpleNamespace(**{**vars(step), "device_type": "DeviceType.CUDA"})
        data = SimpleNamespace(name="hilum data", cpu_parent=step,
                               self_cpu_time_total=2e3 + late, **common)  # fmt: skip
        events += [step, mark, data]
    assert breakdown._sorted(events, False)["data"] == 2.0
    assert breakdown._whole(events) == 20.0


# --- the whole, with made-up runs ---------------------------------------------------------------


class MadeUp:
    """In place of ``perform``: runs whose numbers are planted, by place."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.done: list[str] = []
        self.stop_after = stop_after

    def __call__(self, job: Job, progress: Progress) -> Outcome:
        if job.kept.is_file():
            return Outcome(**json.loads(job.kept.read_text()))
        if self.stop_after is not None and len(self.done) == self.stop_after:
            raise KeyboardInterrupt
        outcome = self.outcome(job)
        self.done.append(job.folder.name)
        if outcome.status == "done":
            job.kept.parent.mkdir(exist_ok=True)
            job.kept.write_text(json.dumps({"status": "done", "found": outcome.found}))
        return outcome

    def outcome(self, job: Job) -> Outcome:
        if job.place.startswith("cuda"):
            return Outcome("skipped", "no such place here: cuda.")
        if job.place.startswith("reference"):
            return Outcome("failed", "it broke.")
        slow = {"cpu:1": 6.0, "cpu:2": 3.0}.get(job.place.split("@")[0], 3.0)
        bias = 0.2 if "bfloat16" in job.place else 0.0
        if job.kind == "breakdown":
            parts = dict.fromkeys(breakdown.PARTS, 1.0) | {"convolution": 10.0}
            return Outcome(
                "done", found={"parts": parts, "ms_per_step": 17.0, "steps": 6, "method": "m"}
            )
        epochs = epochs_of(bias, job.seed)
        for epoch in epochs:
            epoch["seconds"] *= slow
            epoch["ms_per_step"] *= slow
        self.write_scores(job, bias)
        environment = {
            "place": job.place, "precision": "float32", "threads": 1, "processes": 1,
            "processor": "p", "cores": 2, "memory_gib": 8, "hilum": "0", "torch": "2",
            "python": "3",
        }  # fmt: skip
        return Outcome(
            "done",
            found={
                "environment": environment, "epochs": epochs, "films": 64, "steps": 4,
                "setup_seconds": 5.0 if slow > 3 else 8.0, "finish_seconds": 1.0,
                "peak_memory_mib": 500.0, "resumed": False,
            },
        )  # fmt: skip

    def write_scores(self, job: Job, bias: float) -> None:
        manifest = Manifest.read(job.manifest).of_part("validation")
        n = len(manifest)
        logit = np.linspace(-2, 2, n) + 0.01 + 8 * bias
        job.folder.mkdir(parents=True)
        Scores(
            manifest.path, manifest.patient, manifest.part, manifest.label, logit,
            1 / (1 + np.exp(-logit)), ("",) * n, ("",) * n,
        ).write(job.folder / "scores.csv")  # fmt: skip


PLACES = ("cpu:1", "cpu:2", "cpu:2@bfloat16", "cuda", "reference")
SMALL = ("preprocessing.size=94", "training.epochs=3")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    stand_in = MadeUp()
    monkeypatch.setattr(comparing, "perform", stand_in)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    return stand_in


@pytest.fixture(scope="module")
def planted(films: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, MadeUp]:
    """A comparison of made-up runs, and what made them."""
    stand_in = MadeUp()
    base = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(base / "cache"))
        patch.setattr(comparing, "perform", stand_in)
        patch.setattr(machine, "cores", lambda: 2)
        made = comparing.compare(films, PLACES, seeds=3, overrides=SMALL, out=base / "c")
    # Beyond the context: the stand-in must not live on under the tests that follow.
    return made, stand_in


def test_a_comparison_says_what_was_planted(planted: tuple[Comparison, MadeUp]) -> None:
    done, made_up = planted
    assert list(done.measured) == ["cpu:1", "cpu:2", "cpu:2@bfloat16"]
    assert made_up.done.count("cuda-seed0") == 1  # absent once, not tried again
    assert done.baseline == "cpu:1" and done.baselines == ["cpu:1", "cpu:2"]
    ratio = done.speed_up("cpu:2", over="cpu:1")
    assert ratio is not None and ratio["ratio"] == 2.0 and ratio["n"] == 9
    assert {e.verdict for e in done.equivalences["cpu:2"].values()} == {"alike"}
    assert {e.verdict for e in done.equivalences["cpu:2@bfloat16"].values()} == {"different"}
    assert done.flips["cpu:2"] == [0, 0, 0]
    assert min(done.flips["cpu:2@bfloat16"]) > 0

    content = json.loads((done.folder / "comparison.json").read_text())
    by_place = {place["place"]: place for place in content["places"]}
    assert content["format"] == 1 and list(by_place) == list(PLACES)
    assert by_place["cuda"]["status"] == "skipped" and "no such place" in by_place["cuda"]["reason"]
    assert "seconds_an_epoch" not in by_place["cuda"]  # no figure that was not measured
    assert by_place["reference"]["reason"] == "seed 0: it broke."
    assert by_place["cpu:1"]["seconds_an_epoch"]["n"] == 9
    # Set-up is 3 s longer; an epoch of three seeds takes 18 s and 9 s on average.
    assert [(row["epochs"], row["known"]) for row in content["break_even"]] == [(1, True)] * 2


def test_its_tables_figures_and_pages_are_written(planted: tuple[Comparison, MadeUp]) -> None:
    out = planted[0].folder
    for number in range(1, 6):
        for ending in ("csv", "md"):
            assert (out / "tables" / f"table-{number}.{ending}").is_file()
    for number in range(5, 9):
        for ending in ("png", "svg"):
            assert (out / "figures" / f"figure-{number}.{ending}").stat().st_size > 1000
    with (out / "tables" / "table-2.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["s an epoch"]) == pytest.approx((12 + 18 + 24) / 3)
    assert float(rows[0]["s an epoch (paper)"]) == paper.CPU[0].seconds
    with (out / "tables" / "epochs.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 3 * 3 * 3
    page = (out / "report.html").read_text("utf-8")
    assert "cuda was not measured: no such place here" in page
    assert "reference was not measured: seed 0: it broke." in page
    assert "<b>different</b>" in page and "<b>alike</b>" in page
    assert "Student's t of the logarithms" in page and "bootstrap" not in page


def verdict(done: Comparison, claim: str, sequential: Comparison | None = None) -> tuple[str, str]:
    (found,) = [row for row in claims.rows_of(done, sequential) if row[0].startswith(claim)]
    return found[1:]


def test_what_a_breakdown_would_tell_is_not_said_without_one(
    planted: tuple[Comparison, MadeUp],
) -> None:
    done, _ = planted
    bare = replace(done, places={name: replace(at, parts=None) for name, at in done.places.items()})
    for claim in ("Moving data", "Convolution"):
        assert verdict(bare, claim)[0] == "not measured"
    bare.places["cpu:2x1"] = bare.places["cpu:2"]
    assert verdict(bare, "Moving data") == ("not measured", "no breakdown was made")


def test_convolution_is_judged_where_it_stands_alone(
    planted: tuple[Comparison, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = planted

    def row() -> tuple[str, str]:
        return verdict(done, "Convolution")

    def merge(name: str) -> None:
        at = done.places[name]
        assert at.parts is not None
        monkeypatch.setitem(at.environment, "kernels", "fast CPU kernels: AVX2")
        monkeypatch.setitem(at.parts.found["parts"], "pooling", 0.0)

    assert row()[0] == "held" and "pooling" not in row()[1]
    merge("cpu:2")
    assert row()[0] == "held"
    assert row()[1].endswith("so what is convolution alone is not known: cpu:2")
    parts = done.places["cpu:1"].parts
    assert parts is not None
    with monkeypatch.context() as some:
        some.setitem(parts.found["parts"], "dense", 20.0)
        assert row()[0] == "in part"
    formulas = replace(done, places={"reference": deepcopy(done.places["cpu:1"])})
    for name in done.measured:
        merge(name)
    assert row()[0] == "open"
    held, said = verdict(done, "Convolution", formulas)
    assert held == "held" and "; decided by the sequential run: reference: " in said
    parts = formulas.places["reference"].parts
    assert parts is not None
    parts.found["parts"]["dense"] = 20.0
    assert verdict(done, "Convolution", formulas)[0] == "in part"


def only(done: Comparison, *names: str) -> Comparison:
    return replace(done, places={name: done.places[name] for name in names})


def test_claims_of_parallel_training_are_judged_by_parallel_places(
    planted: tuple[Comparison, MadeUp],
) -> None:
    done, _ = planted
    assert verdict(done, "The parallel")[0] == "faster, by less"
    assert verdict(done, "Setting up") == (
        "held",
        "cpu:2: +3.00 s, pays after 1 epoch; cpu:2@bfloat16: +3.00 s, pays after 1 epoch "
        "(held: extra time, paid within 3 epochs)",
    )
    alone = only(done, "cpu:1")
    alone.places["cpu:1@bfloat16"] = done.places["cpu:2"]  # twice as fast, and one core
    assert verdict(alone, "The parallel")[0] == "not measured"
    assert verdict(alone, "Setting up")[0] == "not measured"


@pytest.mark.parametrize(
    ("between", "held", "said"),
    [
        (None, "in part", "cpu:2x1: 11.8 % of a step"),
        ((0.2, 1.0), "open", "cpu:2x1: 11.8 % (7.4 to 11.8) of a step"),
        ((-0.4, 0.3), "held", "cpu:2x1: 11.8 % (6.2 to 8.0) of a step"),
        ((0.9, 2.0), "in part", "(11.2 to 16.7)"),
    ],
)
def test_whether_moving_data_is_a_threat_is_judged_by_the_interval(
    planted: tuple[Comparison, MadeUp],
    between: tuple[float, float] | None,
    held: str,
    said: str,
) -> None:
    done, _ = planted
    two = only(done, "cpu:1", "cpu:2")
    found = {**done.places["cpu:2"].parts.found, "exchange": between}  # type: ignore[union-attr]
    at = replace(done.places["cpu:2"], parts=Outcome("done", found=found))
    two.places["cpu:2x1"] = at
    assert verdict(two, "Moving data")[0] == held and said in verdict(two, "Moving data")[1]


def test_a_single_epoch_shows_no_spread() -> None:
    found = speed.speed_up([[4.0]], [[2.0]])
    assert speed.bounds(found) is None and found["ratio"] == 2
    row = {"between": speed.bounds(found), "known": False, "epochs": 3, "setup_more": 1.0}
    assert payback.pays(row) == "not known (one epoch)"
    assert speed.bounds(speed.speed_up([[4.0, 5.0]], [[2.0, 2.0]])) == (2.0, 2.5)


def test_the_head_of_a_page_is_of_a_parallel_place(planted: tuple[Comparison, MadeUp]) -> None:
    done, _ = planted
    slow = replace(only(done, "cpu:1", "cpu:2"), folder=done.folder)
    slow.places["cpu:1"], slow.places["cpu:2"] = slow.places["cpu:2"], slow.places["cpu:1"]
    assert slow.fastest == "cpu:1" and "0.50 ×" in lead(slow) and "2.00 ×" not in lead(slow)


@pytest.mark.parametrize("count", [1, 5, 6, 12, 25])
def test_an_interval_of_the_median_covers_it(count: int) -> None:
    values = np.sort(np.random.default_rng(count).exponential(size=(4000, count)), axis=1)
    ends = np.array([speed.around_the_median(row.tolist()) for row in values])
    inside = ((ends[:, 0] <= math.log(2)) & (math.log(2) <= ends[:, 1])).mean()
    assert inside > 0.94 if count > 5 else (ends == values[:, [0, -1]]).all()
    assert inside < 0.99 or count < 12


def test_parts_that_do_not_add_up_are_told() -> None:
    quiet = {"parts": {"other": 10.0}, "ms_per_step": 11.0}
    assert _unlike({"cpu:1": quiet}) == ""
    told = _unlike({"cpu:1": quiet, "cpu:2": {"parts": {"other": 16.4}, "ms_per_step": 21.3}})
    assert "on cpu:2: the machine was not quiet" in told


def test_a_claim_of_speed_needs_more_than_a_mean(
    planted: tuple[Comparison, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interval beyond 1, or with a single run no epoch that was slower."""
    done, _ = planted
    first = {n: replace(done.places[n], outcomes={0: done.places[n].outcomes[0]})
             for n in ("cpu:1", "cpu:2")}  # fmt: skip
    single = replace(done, seeds=(0,), places=first)
    held, said = verdict(single, "The parallel")
    assert held == "faster, by less" and said.endswith("its slowest epoch decides")
    usual = Comparison.speed_up

    def noisy(self: Comparison, *given: Any) -> dict[str, Any] | None:
        return {**usual(self, *given), "ratio": 1.01, "least": 0.9}  # type: ignore[dict-item]

    monkeypatch.setattr(Comparison, "speed_up", noisy)
    assert verdict(single, "The parallel")[0] == "not shown"
    held, said = verdict(single, "Setting up")
    assert held == "in part"
    assert said.startswith("cpu:2: +3.00 s, when it pays is not known (0.90 to 2.00 times as fast)")
    section = payback.section(single)
    assert section is not None and "not known (0.90 to 2.00 times as fast)" in section.body


@pytest.mark.parametrize(
    ("more", "epochs", "between", "said"),
    [
        (2.0, 3, (1.01, 2.0), "after 3 epochs"), (2.0, None, (0.8, 0.99), "never"),
        (-2.0, 0, (1.01, 2.0), "from the start"),
        (-2.0, None, (0.8, 0.99), "never (ready sooner, slower by the epoch)"),
        *(
            (more, epochs, (0.8, 1.1), "not known (0.80 to 1.10 times as fast)")
            for more, epochs in ((2.0, 140), (2.0, None), (-2.0, 0))
        ),
    ],
)  # fmt: skip
def test_when_a_set_up_has_paid_in_words(
    more: float, epochs: int | None, between: tuple[float, float], said: str
) -> None:
    known = speed.known(between)
    row = {"setup_more": more, "epochs": epochs, "between": between, "known": known}
    assert payback.pays(row) == said


def test_when_a_set_up_pays_is_of_the_seeds_that_were_run_in_both(
    planted: tuple[Comparison, MadeUp],
) -> None:
    """A place without its slow seed does not save what that seed takes elsewhere."""
    done, _ = planted
    few = {seed: done.places["cpu:2"].outcomes[seed] for seed in (0, 1)}
    one = replace(
        done, places={**done.places, "cpu:2": replace(done.places["cpu:2"], outcomes=few)}
    )
    row = one.break_even()[0]
    assert (row["place"], row["saved_an_epoch"]) == ("cpu:2", 15.0 - 7.5)
    assert row["between"] == (2.0, 2.0) and row["setup_more"] == 3.0
    other = replace(done.places["cpu:2"], outcomes={7: done.places["cpu:2"].outcomes[0]})
    assert replace(one, places={**one.places, "cpu:2": other}).break_even()[0]["place"] != "cpu:2"


def test_models_that_learnt_nothing_do_not_show_that_places_converge_alike(
    planted: tuple[Comparison, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = planted
    alike = only(done, "cpu:1", "cpu:2")
    assert verdict(alike, "Losses")[0] == "held" and "chance" not in summary(alike)
    monkeypatch.setitem(alike.places["cpu:1"].found[1], "chance", "not better than chance.")
    assert verdict(alike, "Losses")[0] == "open"
    assert "alike, at chance" in summary(alike)
    assert "not shown to be better than chance: cpu:1 (seed 1)" in lead(alike)


@pytest.mark.parametrize("answer", [-1.0, 1.0])
def test_models_of_one_answer_do_not_show_that_places_converge_alike(
    planted: tuple[Comparison, MadeUp], tmp_path: Path, answer: float
) -> None:
    done, _ = planted
    runs = {}
    for name in ("cpu:1", "cpu:2"):
        runs[name] = replace(done.places[name], folder=tmp_path)
        for seed in done.seeds:
            scores = Scores.read(done.places[name].run_folder(seed) / "scores.csv")
            off = 9 * answer if (name, seed) == ("cpu:2", 1) else 0  # the films' order stays
            runs[name].run_folder(seed).mkdir()
            moved = replace(scores, logit=scores.logit + off)
            moved.write(runs[name].run_folder(seed) / "scores.csv")
    alike = replace(done, places=runs)
    assert alike.places["cpu:1"].one_answer == [] and alike.places["cpu:2"].one_answer == [1]
    assert [place["one_answer"] for place in alike.as_dict()["places"][:2]] == [[], [1]]
    held, said = verdict(alike, "Losses")
    assert held == "open" and said.endswith("; but some models answer every film alike")
    assert "alike, one answer" in summary(alike) and "at chance" not in summary(alike)
    assert "every validation film gets the same answer at one half: cpu:2 (seed 1)." in lead(alike)
    assert "same answer" not in lead(only(done, "cpu:1", "cpu:2"))


@pytest.mark.parametrize(
    ("value", "sign", "shown"),
    [
        (0.0654, "", "0.065"), (1.986, "", "1.99"), (9.97, "", "10.0"), (578, "", "578.0"),
        (-0.0004, "+", "+0.000"), (-0.02, "+", "-0.020"), (2.71, "+", "+2.71"),
    ],
)  # fmt: skip
def test_short_times_keep_their_figures(value: float, sign: str, shown: str) -> None:
    assert seconds(value, sign) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"), [(12.345, "12.35"), (1.0, "1.00"), (0.0996, "0.10"), (0.0322, "0.032")]
)
def test_small_ratios_keep_two_figures(ratio: float, shown: str) -> None:
    assert speed.times(ratio) == shown


def test_the_first_table_is_of_a_parallel_place_where_there_is_one(
    planted: tuple[Comparison, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = planted
    slow = deepcopy(done.places["cpu:2"])
    for epochs in slow.epochs.values():
        for epoch in epochs:
            epoch["seconds"] *= 9
    one = done.places["cpu:1"]
    at = {"cpu:1": one, "reference": replace(one, name="reference"), "cpu:2": slow}

    def titles(*names: str) -> list[str]:
        made = tables(replace(done, places={name: at[name] for name in names}))
        return [made[f"table-{number}"].title.split(",")[0] for number in (1, 2)]

    alone = "Table 2. Training on cpu:1"
    assert titles("cpu:1", "reference", "cpu:2") == ["Table 1. Training on cpu:2", alone]
    assert titles("cpu:1", "reference") == ["Table 1. Training on reference", alone]
    assert titles("cpu:1") == ["Table 1. Training on cpu:1", alone]


def test_a_table_of_values_has_six_figures_and_whole_numbers(tmp_path: Path) -> None:
    cells = [0.20800000000000002, 1234567.8, 123456.0, 99999.96, 12.0, 1e-5, None, 7, "x"]
    heads = tuple(f"h{k}" for k in range(len(cells)))
    Table("t", "T", heads, [cells], ("",) * len(cells)).write(tmp_path)
    written = (tmp_path / "t.csv").read_text().splitlines()[1]
    assert written == "0.208,1234568,123456,100000,12,1e-05,,7,x"


def test_a_margin_that_was_stated_is_part_of_the_command(
    planted: tuple[Comparison, MadeUp],
) -> None:
    compared, _ = planted
    assert "--margin" not in again(compared)
    stated = replace(compared, margins={**compared.margins, "val_loss": 0.2})
    assert again(stated).endswith(" --margin val_loss=0.2")


def test_the_page_says_which_runs_were_gone_on_with(
    planted: tuple[Comparison, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, _ = planted
    made = tables(compared)
    assert "gone on with" not in places(compared, made).body
    for seed in (0, 2):
        monkeypatch.setitem(compared.places["cpu:2"].found[seed], "resumed", True)
    said = "Interrupted and gone on with: cpu:2 (seed 0, 2). Their set-up is that of the first"
    assert said in places(compared, made).body


def test_more_threads_than_cores_are_a_remark(
    planted: tuple[Comparison, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = only(planted[0], "cpu:1", "cpu:2")
    said = "4 threads for 2 cores: they wait for each other"
    monkeypatch.setitem(compared.places["cpu:2"].environment, "threads", 2)
    assert compared.places["cpu:2"].remark == ""
    monkeypatch.setitem(compared.places["cpu:2"].environment, "processes", 2)
    assert said in summary(compared) and f"cpu:2 has {said}" in lead(compared)
    assert [row[-1] for row in places_table(compared).rows] == ["", said]


def test_a_baseline_that_was_not_measured_is_told(planted: tuple[Comparison, MadeUp]) -> None:
    compared, _ = planted
    assert not compared.replaced
    asked = replace(compared, asked="cuda")
    assert asked.baseline == "cpu:1" and "asked for, cuda, was not measured" in lead(asked)
    assert "--baseline cuda" in again(asked)


def test_a_job_knows_the_command_that_it_is_a_part_of(tmp_path: Path) -> None:
    def job(folder: Path) -> Job:
        return Job("train", folder, "cpu:1", tmp_path / "r.toml", tmp_path / "films.csv")

    whole = tmp_path / "paper"
    inner = whole / "comparison"
    for folder in (whole, inner, whole / "wishes"):
        folder.mkdir()
    (inner / "plan.json").write_text("{}")
    alone = job(inner / "runs" / "cpu-1-seed0")
    assert alone.whole == inner and alone.resume_line.endswith(f"compare --resume {inner}")
    (whole / "plan.json").write_text("{}")
    for part in (alone, job(whole / "wishes" / "x.run")):
        assert part.whole == whole and part.resume_line.endswith(f"reproduce --resume {whole}")


def test_what_was_kept_and_is_damaged_is_measured_again(tmp_path: Path) -> None:
    job = Job("train", tmp_path / "runs" / "x", "cpu:1", tmp_path / "r.toml", tmp_path / "f.csv")
    job.kept.parent.mkdir()
    job.kept.write_text('{"status": "done", "rea')
    assert jobs.before(job) is None


def test_a_difference_beyond_the_figure_is_said_at_its_edge(
    planted: tuple[Comparison, MadeUp],
) -> None:
    compared, _ = planted

    def said(margin: float) -> list[str]:
        one = replace(compared, margins=dict.fromkeys(compared.margins, margin))
        return [text.get_text() for text in figures.agreement(one).axes[0].texts]

    assert all("margins" in text for text in said(0.005)) and said(0.005)
    assert not said(1.0)


def test_kernels_are_built_before_any_place_is_timed(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_before: list[int] = []
    monkeypatch.setattr(
        conditions.library, "build", lambda wanted: done_before.append(len(made_up.done))
    )
    comparing.compare(films, ("cpu:1", "cpu:2"), overrides=SMALL, out=tmp_path / "c")
    assert done_before == [0]


def test_runs_that_are_compared_choose_their_points_on_plain_validation(
    planted: tuple[Comparison, MadeUp],
) -> None:
    assert Recipe.load("paper2021").finish.shifts == ("all",)
    assert planted[0].recipe.finish.shifts == ()


def test_an_interrupted_comparison_goes_on(
    films: Manifest, made_up: MadeUp, tmp_path: Path
) -> None:
    made_up.stop_after = 2
    with pytest.raises(Interrupted, match="--resume"):
        comparing.compare(films, ("cpu:1", "cpu:2"), seeds=2, overrides=SMALL, out=tmp_path / "c")
    first = list(made_up.done)
    made_up.stop_after = None
    done = comparing.resume(tmp_path / "c")
    assert made_up.done[:2] == first and len(set(made_up.done)) == len(made_up.done) == 6
    assert done.seeds == (0, 1) and len(done.places["cpu:2"].found) == 2


def test_a_comparison_within_a_reproduction_goes_on_from_its_own_folder(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "comparison"
    (tmp_path / "plan.json").write_text("{}")
    seen: list[Path] = []
    monkeypatch.setattr(conditions, "hold", seen.append)
    made_up.stop_after = 1
    with pytest.raises(Interrupted):
        comparing.compare(films, ("cpu:1", "cpu:2"), overrides=SMALL, out=inner)
    made_up.stop_after = None
    monkeypatch.chdir(inner)
    done = comparing.resume(".")
    assert set(seen) == {tmp_path} and done.folder == inner


def test_later_seeds_take_the_precision_that_the_first_run_settled_on(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, asked = made_up.outcome, list[tuple[str, int, str]]()
    broken = {("cpu:2", 0)}

    def settled(job: Job) -> Outcome:
        name = job.folder.name.rpartition("-seed")[0].replace("-", ":", 1)
        asked.append((name, job.seed, job.place))
        if (name, job.seed) in broken:
            return Outcome("failed", "killed.")
        outcome = usual(job)
        if "@" not in job.place:  # as a trial finds it: no two runs alike
            precision = ("float32", "bfloat16")[job.seed % 2]
            outcome.found["environment"]["place"] = f"{job.place}@{precision}"
        return outcome

    monkeypatch.setattr(made_up, "outcome", settled)
    free = (*SMALL, 'training.precision="auto"')
    comparing.compare(
        films, ("cpu:1", "cpu:2"), seeds=3, overrides=free, breakdown=False, out=tmp_path / "c"
    )
    broken.clear()
    comparing.resume(tmp_path / "c")
    one, two = (
        [(seed, place) for name, seed, place in asked if name == where]
        for where in ("cpu:1", "cpu:2")
    )
    assert one == [(0, "cpu:1"), (1, "cpu:1@float32"), (2, "cpu:1@float32")]
    # Its first seed failed, and takes later what the second has settled on.
    assert two == [(0, "cpu:2"), (1, "cpu:2"), (2, "cpu:2@bfloat16"), (0, "cpu:2@bfloat16")]


def test_a_scheduler_that_ends_a_comparison_is_told_how_to_go_on(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(job: Job) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError("nobody was ended")

    monkeypatch.setattr(made_up, "outcome", ended)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="--resume"):
        comparing.compare(films, ("cpu:1", "cpu:2"), overrides=SMALL, out=tmp_path / "c")
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_is_interrupted_while_pages_are_drawn_is_told_how_to_go_on(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawing(comparison: Comparison) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hilum.experiments.compare.document.write", drawing)
    with pytest.raises(Interrupted, match=f"Go on with hilum compare --resume {tmp_path / 'c'}"):
        comparing.compare(films, ("cpu:1", "cpu:2"), overrides=SMALL, out=tmp_path / "c")


def test_one_failed_seed_leaves_the_others(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = made_up.outcome

    def sometimes(job: Job) -> Outcome:
        bad = job.place == "cpu:2" and job.seed == 0 and job.kind == "train"
        return Outcome("failed", "killed.") if bad else usual(job)

    monkeypatch.setattr(made_up, "outcome", sometimes)
    done = comparing.compare(
        films, ("cpu:1", "cpu:2"), seeds=2, overrides=SMALL, out=tmp_path / "c"
    )
    assert list(done.places["cpu:2"].found) == [1]
    assert done.shared_seeds("cpu:1", "cpu:2") == [1]
    assert done.speed_up("cpu:2", "cpu:1")["n"] == 3  # type: ignore[index]
    assert (
        "cpu:2 was measured in part: seed 0: killed."
        in (tmp_path / "c" / "report.html").read_text()
    )
    assert done.failed == ["cpu:2 seed 0"]


def test_the_command_ends_with_a_code_where_a_run_failed_and_none_where_a_place_is_absent(
    films: Manifest, made_up: MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films.write(tmp_path / "films.csv")
    common = ["compare", str(tmp_path / "films.csv"), "--no-breakdown", "--on", "cpu:1"]
    common += [f"--set={change}" for change in SMALL]
    assert run([*common, "--on", "cuda", "--out", str(tmp_path / "absent")]) == 0
    assert run([*common, "--on", "reference", "--out", str(tmp_path / "failed")]) == 3
    said = capsys.readouterr()
    assert "it broke." in said.out, "the table comes first"
    assert "1 run failed: reference seed 0" in said.err
    assert f"hilum compare --resume {tmp_path / 'failed'}" in said.err
    assert (tmp_path / "failed" / "report.html").is_file()


def test_nothing_measured_is_refused_with_the_reasons(
    films: Manifest, made_up: MadeUp, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    with pytest.raises(Refused) as refused:
        comparing.compare(films, ("cuda", "reference"), overrides=SMALL, out=out)
    assert str(refused.value) == (
        f"no place could be measured: {out} (cuda: no such place here: cuda; reference: seed 0: it "
        f"broke). Go on with hilum compare --resume {out}."
    )
    absent = tmp_path / "absent"
    with pytest.raises(Refused) as refused:
        comparing.compare(films, ("cuda", "cuda:2"), overrides=SMALL, out=absent)
    assert str(refused.value).endswith("; cuda:2: no such place here: cuda).")


def test_a_full_disk_in_every_place_is_told_with_one_way_on(
    films: Manifest, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: Job) -> Outcome:
        return Outcome("failed", f"the disk is full. Free some space. {job.resume_line}.")

    monkeypatch.setattr(made_up, "outcome", full)
    out = tmp_path / "c"
    with pytest.raises(Refused) as refused:
        comparing.compare(films, ("cpu:1", "cpu:2"), overrides=SMALL, out=out)
    assert str(refused.value) == (
        f"no place could be measured: {out} (cpu:1: seed 0: the disk is full. Free some space; "
        f"cpu:2: seed 0: the disk is full. Free some space). Go on with hilum compare --resume "
        f"{out}."
    )


def test_wrong_usage_is_told_before_anything_is_done(films: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "c"
    with pytest.raises(UsageError, match="two or more"):
        comparing.compare(films, ["cpu:1"], out=out)
    with pytest.raises(UsageError, match="no such place"):
        comparing.compare(films, ["cpu:1", "gpu"], out=out)
    with pytest.raises(UsageError, match="twice"):
        comparing.compare(films, ["cpu:1", "cpu:1"], out=out)
    with pytest.raises(UsageError, match="baseline"):
        comparing.compare(films, ["cpu:1", "reference"], baseline="cpu:9", out=out)
    for name in ("val_acuracy", "val_acc"):
        with pytest.raises(UsageError, match="val_accuracy"):
            comparing.compare(films, ["cpu:1", "reference"], margins={name: 1}, out=out)
    with pytest.raises(RecipeError, match="no such rule for a threshold"):
        comparing.compare(films, ["cpu:1", "reference"], overrides=['finish.balanced="x"'], out=out)
    with pytest.raises(UsageError, match="no comparison was begun"):
        comparing.resume(out)
    assert not out.exists()
    out.mkdir()
    (out / "plan.json").write_text('{"format": 1, "places": ["cpu:1"]')
    with pytest.raises(Refused, match=r"cannot be read: .*plan\.json \(damaged\)\. Put back"):
        comparing.resume(out)
    (out / "plan.json").write_text('{"format": 9}')
    with pytest.raises(Refused, match="newer hilum"):
        comparing.resume(out)
    (out / "plan.json").write_text('{"format": 1, "wishes": true}')
    with pytest.raises(UsageError, match="hilum reproduce --resume"):
        comparing.resume(out)
    (out / "plan.json").unlink()
    (out / "mine.txt").write_text("x")
    with pytest.raises(FolderTaken):
        comparing.compare(films, ["cpu:1", "reference"], out=out)


@pytest.mark.parametrize(
    ("precision", "one", "two"),
    [
        ("float32", "cpu:2", "cpu:2@float32"), ("bfloat16", "cpu:2@bfloat16", "cpu:2"),
        ("float32", "cuda", "cuda@float32"), ("auto", "reference", "reference@float32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["compare", "reproduce"])
def test_a_place_that_says_what_the_recipe_says_is_the_same_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, precision: str, one: str,
    two: str,
) -> None:  # fmt: skip
    out = str(tmp_path / "c")
    asked = [command, str(tmp_path), "--on", one, "--on", two, "--out", out]
    assert run([*asked, "--set", f'training.precision="{precision}"']) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"hilum: the same place twice: {two} is {one} here. Name it once."
    )
    assert not (tmp_path / "c").exists()


def test_places_that_differ_in_precision_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_bfloat16", lambda: True)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    free, fixed = (
        Recipe.load("paper2021", [f'training.precision="{precision}"'])
        for precision in ("auto", "bfloat16")
    )
    both = ("cpu:2", "cpu:2@float32", "cpu:2@bfloat16")
    assert several(both, free) == both
    assert several(both[:2], fixed) == both[:2]
    assert "cpu:2@bfloat16" in default_places(free)
    assert several(default_places(fixed), fixed)[-1] == "cuda"
    assert among(("cpu:1", "cpu:2"), "cpu@bfloat16", fixed) == "cpu:2"
    with pytest.raises(UsageError, match="not among the places: cpu:2@bfloat16"):
        among(("cpu:1", "cpu:2"), "cpu@bfloat16", free)


def test_the_command_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--on", "cpu:1"]) == 2
    assert run(["compare", "x", "--margin", "val_loss=much", "--on", "cpu:1"]) == 2
    assert run(["compare", "x", "--resume", "y"]) == 2
    for margin in ("nan", "inf", "-1"):
        assert run(["compare", "x", "--margin", f"val_loss={margin}", "--on", "cpu:1"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 6 and all(line.startswith("hilum: ") for line in lines)


@pytest.mark.parametrize("command", ["compare", "reproduce"])
@pytest.mark.parametrize(
    "options",
    [
        ["--on", "tpu"],
        ["--on", "cpu:1"],
        ["--set", "training.epoch=1"],
        ["--set", "preprocessing.size=20"],
    ],
)
def test_a_wrong_option_is_told_before_a_film_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, options: list[str]
) -> None:
    phantom.make(tmp_path / "films", films=8)
    two = ["--on", "cpu:1", "--on", "reference"] if options[0] == "--set" else []
    asked = [command, str(tmp_path / "films"), "--out", str(tmp_path / "c"), *two, *options]
    assert run(asked) == 2
    said = capsys.readouterr().err
    assert said.startswith("hilum: ") and "drawn by patient" not in said
    assert not (tmp_path / "c").exists()


def test_films_that_are_not_there_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        comparing.compare(tmp_path / "none", ["cpu:1", "reference"], out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", ["--seed", "0"]), ("train", ["--on", "cpu:1"]),
        ("train", ["--set", "training.epochs=9"]), ("train", ["films"]),
        ("compare", ["--seeds", "3"]), ("compare", ["--margin", "val_loss=1"]),
        ("reproduce", ["--no-wishes"]), ("reproduce", ["--epochs", "2"]),
    ],
)  # fmt: skip
def test_what_resume_would_not_heed_is_refused(
    capsys: pytest.CaptureFixture[str], command: str, options: list[str]
) -> None:
    assert run([command, "--resume", "somewhere", *options]) == 2
    called = options[0] if options[0] != "films" else "DATA"
    assert f"and nothing else, not {called}:" in capsys.readouterr().err


# --- and once in processes of their own -----------------------------------------------------------


def test_a_real_comparison(films: Manifest, tmp_path: Path) -> None:
    done = comparing.compare(
        films,
        ["cpu:1", "reference", *([] if torch.cuda.is_available() else ["cuda"])],
        "fast",
        overrides=[
            *("preprocessing.size=32", "training.epochs=1", "training.batch=16"),
            'training.last_batch="drop"',
        ],
        breakdown=False,
        out=tmp_path / "c",
    )
    assert list(done.measured) == ["cpu:1"]
    of_an_epoch = done.places["cpu:1"].found[0]
    assert of_an_epoch["films"] == 16 * of_an_epoch["steps"] < films.part.count("train")
    found = done.places["cpu:1"].found[0]
    assert found["setup_seconds"] > 0.3 and len(found["epochs"]) == 1
    assert found["environment"]["threads"] == 1
    assert "the reference cannot train this recipe" in done.places["reference"].reason
    assert done.places["reference"].status == "skipped" and done.failed == []
    assert (tmp_path / "c" / "report.html").read_text().count("the reference cannot train") == 1
    if "cuda" in done.places:
        assert done.places["cuda"].status == "skipped"
    assert (tmp_path / "c" / "runs" / "cpu-1-seed0" / "model.hilum" / "bundle.json").is_file()

    kept = tmp_path / "c" / "runs" / "cpu-1-seed0.json"
    kept.unlink()  # as if it had been stopped after its last epoch
    again = comparing.resume(tmp_path / "c").places["cpu:1"].found[0]
    assert again["resumed"] and again["setup_seconds"] == found["setup_seconds"]
    assert found["peak_memory_mib"] > 50 and again["peak_memory_mib"] is None

    kept.unlink()
    there = tmp_path / "c" / "machine.json"
    begun = there.read_text()
    there.write_text('{"machine": "Another, 64 cores"}')
    with pytest.raises(Refused, match=rf"conditions: {tmp_path}/c \(there: Another, 64 cores, "):
        comparing.resume(tmp_path / "c")
    there.unlink()  # and what was measured there may be of anywhere
    progress, lines = Progress(), []
    progress.say = lines.append  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"conditions: .* \(there: not known; here: "):
        comparing.resume(tmp_path / "c", progress=progress)
    assert not [line for line in lines if "run" in line], "it is told before any run is"
    there.write_text(begun)

    kept.with_name("cpu-1-seed0-setup.json").unlink()  # and by hand from the start
    with pytest.raises(Refused, match=r"its set-up is not known: .*cpu-1-seed0"):
        comparing.resume(tmp_path / "c")
