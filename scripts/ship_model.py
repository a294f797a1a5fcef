"""Make the shipped model anew: train recipe ``shipped``, judge it, put it into the package.

Run: make model DATA=folder-of-kermany-films   (about a quarter of an hour on two cores)

The model goes to src/hilum/models/pneumonia.hilum, the run and the evaluation of its drawn test
part to a dated folder here, for the record.
"""

from __future__ import annotations

import argparse
import shutil

from hilum.bundle import Bundle
from hilum.cli.display import Terminal
from hilum.datasets.index import open_data
from hilum.evaluation.evaluate import evaluate
from hilum.inference.model import SHIPPED, load
from hilum.storage import dated_folder
from hilum.training.train import train

LARGEST = 5_000_000  # bytes, of all files together


def main() -> None:
    """Train, judge, replace."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", help="folder of Kermany's films")
    arguments.add_argument("--recipe", default="shipped")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--on", default=None)
    chosen = arguments.parse_args()
    progress = Terminal()
    folder = dated_folder("model")
    run = train(
        open_data([chosen.data], progress=progress),
        chosen.recipe,
        on=chosen.on,
        seed=chosen.seed,
        out=folder / "run",
        progress=progress,
    )
    made = run.folder / "model.hilum"
    size = sum(file.stat().st_size for file in made.iterdir())
    if size > LARGEST:
        raise SystemExit(f"the model is too large to ship: {size} bytes, {LARGEST} at most.")
    evaluation = evaluate(
        open_data([run.folder / "films.csv"], draw=False),
        [load(made)],
        out=folder / "evaluation",
        progress=progress,
    )
    if SHIPPED.exists():
        shutil.rmtree(SHIPPED)
    shutil.copytree(made, SHIPPED)
    progress.say(f"shipped: {Bundle.read(SHIPPED).digest[:16]}, {size / 1e6:.1f} MB")
    progress.say(f"judged:  {evaluation.folder / 'report.html'}")


if __name__ == "__main__":
    main()
