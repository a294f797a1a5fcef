"""The whole way on made-up films: draw, index, train, evaluate, answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.errors import require
from hilum.progress import SILENT, Progress
from hilum.storage import dated_folder, new_folder, write_file

if TYPE_CHECKING:
    from hilum.inference.prediction import Prediction

FILMS_NOTE = (
    "The films of this demo are made up (drawn by hilum): none of its figures says anything about "
    "real films."
)


# Fewer films than a hospital's: smaller batches, so that there are steps enough.
DEMO_CHANGES = ("training.batch=32", "training.epochs=20")


@dataclass(frozen=True)
class Demo:
    """What a demo leaves behind."""

    folder: Path
    run: Path
    report: Path
    picture: Path
    answers: list[Prediction]
    seconds: float


def demo(
    out: Path | str | None = None,
    *,
    patients: int = 600,
    size: tuple[int, int] = (224, 280),
    seed: int = 0,
    progress: Progress = SILENT,
) -> Demo:
    """Run the demo into a new folder.

    Parameters
    ----------
    patients : made-up patients, each with one or several films
    size : (height, width) of a film in pixels
    """
    from hilum.datasets import phantom
    from hilum.datasets.index import index
    from hilum.evaluation.evaluate import evaluate
    from hilum.films.picture import mosaic, png
    from hilum.inference.model import load
    from hilum.training.train import train

    start = time.perf_counter()
    require("train")
    folder = new_folder(out or dated_folder("demo"))
    progress.say(f"{FILMS_NOTE}\n")
    progress.say("1. Draw films of made-up patients")
    films = phantom.make(
        folder / "films", patients=patients, size=size, seed=seed, progress=progress
    )
    progress.say("2. Index them: labels from folders, parts drawn by patient")
    manifest = index(films, progress=progress)
    manifest.write(folder / "films.csv")
    progress.say("3. Train the recipe 'fast', shortened")
    run = train(
        manifest,
        "fast",
        seed=seed,
        out=folder / "run",
        overrides=DEMO_CHANGES,
        progress=progress,
    )
    model = load(run.folder)
    progress.say("4. Evaluate on the test part")
    evaluation = evaluate(
        manifest, [model], part="test", out=folder / "evaluation", progress=progress
    )
    progress.say("5. Answer new films")
    fresh = phantom.make(folder / "new", patients=8, size=size, seed=seed + 1, progress=progress)
    new = index(fresh, draw=False)
    one_each = dict(zip(new.patient, new.files(), strict=True))
    answers = model.predict(list(one_each.values()), heatmaps=True)
    said = [
        f"{answer.words} ({answer.probability:.2f})"
        if answer.probability is not None
        else answer.words
        for answer in answers
    ]
    picture = folder / "answers.png"
    painted = [answer.painted() for answer in answers]
    write_file(picture, png(mosaic(painted, columns=4, labels=said)))
    return Demo(
        folder,
        run.folder,
        evaluation.folder / "report.html",
        picture,
        answers,
        time.perf_counter() - start,
    )
