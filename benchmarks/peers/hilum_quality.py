"""``hilum train`` from the shell to the sealed model, with its wall time.

    python hilum_quality.py FILMS.csv TESTS.npz RESULT.jsonl SEED RUN [OPTION...]

The clock runs while the command does, with an empty cache, so decoding is part of it. Meanwhile
the checkpoint of each epoch is kept by a second name; they and the sealed model are scored when the
command has ended. Epochs are judged at probability one half, the sealed model at the operating
point that it ships with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from quality import Clock, Results

import hilum
from hilum.films.preprocess import Preprocessing, preprocess
from hilum.films.read import read
from hilum.machine import Place
from hilum.training.learner import TorchLearner
from hilum.training.parts import Films
from hilum.training.recipe import Recipe


def train(films: str, seed: str, run: Path, cache: str, kept: Path, options: list[str]) -> float:
    """Run the command; its seconds. Every checkpoint gets a second name in ``kept``."""
    command = [sys.executable, "-m", "hilum", "train", films, "--seed", seed, "--out", str(run)]
    checkpoint, seen = run / "checkpoint.pt", -1
    began = time.time()
    with subprocess.Popen([*command, *options], env={**os.environ, "HILUM_CACHE": cache}) as made:
        while made.poll() is None:
            time.sleep(0.02)
            if checkpoint.exists() and (now := checkpoint.stat().st_ino) != seen:
                seen = now
                os.link(checkpoint, kept / f"{len(list(kept.iterdir())):04}.pt")
    seconds = time.time() - began
    if made.returncode:
        raise SystemExit(f"benchmark: hilum train has failed with {made.returncode}: {run}.")
    return seconds


def shrunk(films: np.ndarray, size: int) -> np.ndarray:
    """(n, s, s) uint8 as hilum makes its pixels of a film."""
    return np.stack([preprocess(read(film), Preprocessing(size)) for film in films])


class Past:
    """A clock that tells what was measured before."""

    def __init__(self, seconds: float) -> None:
        self.past, self.paused = seconds, 0.0

    def seconds(self) -> float:
        return self.past


def main(films: str, tests: str, result: str, seed: str, folder: str, *options: str) -> None:
    run, threads = Path(folder), torch.get_num_threads()
    with tempfile.TemporaryDirectory(dir=run.parent) as held:
        kept, cache = Path(held) / "kept", Path(held) / "cache"
        kept.mkdir()
        began = time.time()
        seconds = train(films, seed, run, str(cache), kept, list(options))
        results = Results(result, tests, Clock(began))
        recipe = Recipe.load(run / "recipe.toml")
        learner = TorchLearner(recipe, Place.parse("cpu@float32").resolved(), (1.0, 1.0))
        for file in sorted(kept.iterdir()):
            state = torch.load(file, map_location="cpu", weights_only=True)
            learner.restore(state["learner"])
            epoch = int(state["epochs"][-1]["epoch"])

            def score(some: np.ndarray, epoch: int = epoch) -> np.ndarray:
                small = shrunk(some, recipe.preprocessing.size)
                rows = np.arange(len(small))
                films = Films(small, rows, np.zeros(len(small), np.int8), rows)
                return 1 / (1 + np.exp(-learner.logits(films, recipe.size_at(epoch - 1))))

            results.clock = Past(file.stat().st_mtime - began)  # type: ignore[assignment]
            results.epoch(epoch, score)
        model = hilum.load(run)
        point = model.bundle.point()
        results.clock = Past(seconds)  # type: ignore[assignment]
        results.finish(
            lambda some: model.probability(model.logits(shrunk(some, model.engine.size))),
            point.threshold,
            torch=torch.__version__,
            threads=threads,
            recipe=recipe.name,
            recipe_digest=recipe.digest,
            operating_point=point.name,
            seed=int(seed),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
