"""``hilum predict``"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hilum.cli import options
from hilum.cli.display import print_json, table

if TYPE_CHECKING:
    from hilum.inference.prediction import Prediction

HEADS = ("film", "answer", "probability", "remark")
FIELDS = (
    "film",
    "decision",
    "probability",
    "operating_point",
    "threshold",
    "reasons",
    "error",
    "model",
    "sha256",
)


@click.command()
@click.argument("films", nargs=-1, required=True, metavar="FILMS...")
@options.model
@click.option("--operating-point", metavar="NAME", help="Threshold by name (default: the model's).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
    help="How to print the answers.",
)
@click.option(
    "--heatmaps",
    type=click.Path(),
    metavar="DIR",
    help="Write overlays as PNG into this new folder.",
)
@click.option("--workers", type=click.IntRange(1), help="Decoding processes (default: all cores).")
@click.option(
    "--beyond-intended-use",
    is_flag=True,
    help="Answer films outside the ages and views that the model was made for, and say so.",
)
@options.hide_names
@options.allow_modified
@options.common
def predict(
    films: tuple[str, ...],
    model: str | None,
    operating_point: str | None,
    form: str,
    heatmaps: str | None,
    workers: int | None,
    beyond_intended_use: bool,
    allow_modified: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Answer films: files, folders or globs.

    A film that cannot be read costs one record with its error and exit code 4, nothing else.

    \b
    Examples:
      hilum predict film.jpg
      hilum predict ward/ --format csv > answers.csv
      hilum predict 'scans/*.dcm' --heatmaps maps/
    """
    from hilum.errors import Refused, UsageError
    from hilum.films.read import find
    from hilum.inference.model import load
    from hilum.storage import new_folder

    if as_json and form == "csv":
        raise UsageError("two formats: --json and --format csv. Leave one out.")
    progress = options.terminal(quiet)
    strays: list[Path] = []
    paths = find(films, passed=strays, keep_absent=True)
    if not paths:
        raise Refused(
            f"no films: {', '.join(films)}. {len(strays)} other files are there, no films by their "
            "names or results of hilum's own. Check the path."
        )
    if strays:
        what = "file that is no film" if len(strays) == 1 else "files that are no films"
        progress.say(f"passed over: {len(strays)} {what}")
    answering = load(model, allow_modified=allow_modified)
    if answering.bundle.chance:
        progress.warn(f"this model is {answering.bundle.chance}")
    if heatmaps is not None:
        new_folder(heatmaps, option="--heatmaps")  # never over a film or another film's map
    answers = answering.answers(
        paths,
        operating_point=operating_point,
        heatmaps=heatmaps is not None,
        workers=workers,
        beyond_intended_use=beyond_intended_use,
        progress=progress,
    )
    if heatmaps is not None:
        answers = _with_heatmaps(answers, Path(heatmaps))
    counts: Counter[str] = Counter()
    if as_json or form == "jsonl":
        for answer in answers:
            counts[answer.decision or "unreadable"] += 1
            print_json(answer.as_dict(), indent=None)
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
        writer.writeheader()
        for answer in answers:
            counts[answer.decision or "unreadable"] += 1
            writer.writerow(_flat(answer))
    else:
        listed = []
        for answer in answers:
            counts[answer.decision or "unreadable"] += 1
            listed.append(line(answer))
        click.echo(table(HEADS, listed, right="llr"))
        point = answering.bundle.point(operating_point)
        progress.say(
            f"\n{answering.bundle.name} at {point.name}: positive from {point.threshold:.3f}. "
            "Not a medical device."
        )
    if heatmaps is not None:
        progress.say(f"heat maps: {heatmaps}")
    if counts["unreadable"]:
        progress.say(f"{counts['unreadable']} of {len(paths)} films could not be read.")
    return 4 if counts["unreadable"] else 0


def _with_heatmaps(answers: Iterator[Prediction], folder: Path) -> Iterator[Prediction]:
    from hilum.names import without_ending
    from hilum.storage import write_file

    taken: Counter[str] = Counter()
    # Says whose map is whose, and to the next command that these pictures are no films.
    with (folder / "heatmaps.csv").open("w", encoding="utf-8", newline="") as listed:
        rows = csv.writer(listed, lineterminator="\n")
        rows.writerow(("heatmap", "kind", "film"))
        for answer in answers:
            if answer.heat is not None:
                # File systems allow 255 bytes; a number and .png come behind it.
                whole = without_ending(Path(answer.film).name)
                name = stem = whole.encode()[:240].decode(errors="ignore")
                while taken[name]:  # as another film's, perhaps by its own name
                    taken[stem] += 1
                    name = f"{stem}-{taken[stem]}"
                taken[name] += 1
                write_file(folder / f"{name}.png", answer.picture())
                rows.writerow((f"{name}.png", answer.heat_kind, answer.film))
            yield answer


def line(answer: Prediction) -> tuple[str, ...]:
    """An answer as a row below ``HEADS``, in people's words."""
    probability = "–" if answer.probability is None else f"{answer.probability:.3f}"
    remarks = [reason.text for reason in answer.reasons]
    if answer.error:
        remarks.append(answer.error.text)
    return (answer.film, answer.words, probability, "; ".join(remarks))


def _flat(answer: Prediction) -> dict[str, object]:
    record = answer.as_dict()
    return {
        "film": record["film"],
        "decision": record["decision"] or "",
        "probability": "" if record["probability"] is None else record["probability"],
        "operating_point": record["operating_point"]["name"],
        "threshold": record["operating_point"]["threshold"],
        "reasons": "; ".join(reason["code"] for reason in record["reasons"]),
        "error": record["error"]["code"] if record["error"] else "",
        "model": f"{record['model']['name']}@{record['model']['digest']}",
        "sha256": record["sha256"] or "",
    }
