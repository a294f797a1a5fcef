"""Tables 1 to 5 as the paper has them, and those that it lacks: as CSV, Markdown and HTML."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hilum import report
from hilum.experiments import paper
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.runs import At
from hilum.experiments.compare.speed import times
from hilum.experiments.paper import PaperEpoch
from hilum.storage import atomic_write

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table of values.

    Attributes
    ----------
    name : of its files
    title : for people
    heads : of the columns; the first names the row
    rows : numbers, texts, None where nothing was measured
    forms : a format for people a column, ``""`` for as it is, ``s`` for seconds, ``x``
        for a ratio
    beside : a table of the same shape (fewer rows allowed) that is shown beneath each cell: the
        paper's; its columns of the files carry ``paper``
    """

    name: str
    title: str
    heads: tuple[str, ...]
    rows: list[list[Cell]]
    forms: tuple[str, ...]
    beside: list[list[Cell]] | None = None

    def write(self, folder: Path) -> None:
        """``NAME.csv`` (plain values, six figures) and ``NAME.md`` (as for people)."""
        heads, plain = list(self.heads), [list(row) for row in self.rows]
        shown = [self._shown(row) for row in self.rows]
        if self.beside is not None:
            heads += [f"{head} (paper)" for head in self.heads[1:]]
            for k, (values, texts) in enumerate(zip(plain, shown, strict=True)):
                paper_row = self._paper_row(k)
                values += paper_row[1:]
                texts += self._shown(paper_row)[1:]
        with atomic_write(folder / f"{self.name}.csv", "w") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(heads)
            table.writerows(map(_plain, row) for row in plain)
        with atomic_write(folder / f"{self.name}.md", "w") as stream:
            stream.write(f"{self.title}\n\n")
            for line in (heads, ["---"] + ["--:"] * (len(heads) - 1), *shown):
                stream.write("| " + " | ".join(line) + " |\n")

    def html(self, kind: str = "tall", *, without: tuple[str, ...] = ()) -> str:
        """For the report: the paper's value in small type beneath ours; some columns left out."""
        kept = [k for k, head in enumerate(self.heads) if head not in without]
        rows = []
        for k, row in enumerate(self.rows):
            cells = [escape(text) for text in self._shown(row)]
            if self.beside is not None:
                theirs = self._shown(self._paper_row(k))
                cells = [cells[0]] + [
                    f"{ours}<i>{escape(text)}</i>"
                    for ours, text in zip(cells[1:], theirs[1:], strict=True)
                ]
            rows.append([cells[i] for i in kept])
        return report.table([escape(self.heads[i]) for i in kept], rows, kind=kind)

    def _paper_row(self, k: int) -> list[Cell]:
        assert self.beside is not None
        return self.beside[k] if k < len(self.beside) else [None] * len(self.heads)

    def _shown(self, row: Sequence[Cell]) -> list[str]:
        return [
            "–" if cell is None
            else cell if isinstance(cell, str)
            else seconds(cell) if form == "s"
            else times(float(cell)) if form == "x"
            else f"{cell:{form}}"
            for cell, form in zip(row, self.forms, strict=True)
        ]  # fmt: skip


def _plain(cell: Cell) -> str | int:
    """A cell of a CSV file: six figures of a number, and never fewer than its whole part has."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1e5 else f"{cell:.6g}"
    return "" if cell is None else cell


def seconds(value: float, sign: str = "") -> str:
    """Seconds for people: two figures of what is short, and no ``-0.0``."""
    digits = 1 if abs(value) >= 9.95 else 2 if abs(value) >= 0.995 else 3
    return f"{value:{sign}z.{digits}f}"


def tables(comparison: Comparison) -> dict[str, Table]:
    """The paper's tables 1 to 5 from what was measured here, and all epochs as one table."""
    measured, second = comparison.measured, comparison.baseline
    first = _parallel(comparison)
    beside = paper.CURVES if comparison.recipe.network.name == "paper2021" else {}
    made = [
        _one("table-1", 1, measured[first], beside.get("GPU"), "GPU"),
        _one("table-2", 2, measured[second], beside.get("CPU"), "CPU"),
        _by_place(
            "table-3",
            "Table 3. Losses over the epochs",
            measured,
            ("loss", "val_loss"),
            ".4f",
            ".4f",
        ),
        _by_place(
            "table-4",
            "Table 4. Accuracies over the epochs",
            measured,
            ("accuracy", "val_accuracy"),
            ".4f",
            ".4f",
        ),
        _by_place(
            "table-5", "Table 5. Time of an epoch, of a step", measured, ("seconds", "ms_per_step"),
            "s", ".1f",
        ),
        _epochs(comparison),
        places_table(comparison),
    ]  # fmt: skip
    return {table.name: table for table in made}


def _parallel(comparison: Comparison) -> str:
    """The place of table 1, the paper's parallel one: the fastest of those that compute on several
    cores, else of all beside the baseline; the baseline where it is alone."""
    others = [name for name in comparison.measured if name != comparison.baseline]
    parallel = [name for name in others if name in comparison.parallel]
    return comparison.fastest_of(parallel or others or [comparison.baseline])


_COLUMNS = (
    ("seconds", "s an epoch", "s"),
    ("ms_per_step", "ms a step", ".1f"),
    ("loss", "loss", ".4f"),
    ("accuracy", "accuracy", ".4f"),
    ("val_loss", "val. loss", ".4f"),
    ("val_accuracy", "val. accuracy", ".4f"),
)


def _one(
    name: str, number: int, at: At, theirs: tuple[PaperEpoch, ...] | None, column: str
) -> Table:
    """The paper's table 1 or 2 for one place, the mean over its seeds."""
    columns = [at.mean(key) for key, _, _ in _COLUMNS]
    seeds = len(at.found)
    rows: list[list[Cell]] = [[k + 1, *row] for k, row in enumerate(zip(*columns, strict=True))]
    where = f"{at.name}{f', mean of {seeds} seeds' if seeds > 1 else ''}"
    return Table(
        name,
        f"Table {number}. Training on {where}" + (f"; with the paper's {column}" if theirs else ""),
        ("epoch", *(head for _, head, _ in _COLUMNS)),
        rows,
        ("", *(form for _, _, form in _COLUMNS)),
        None if theirs is None else [_paper_row(k + 1, e) for k, e in enumerate(theirs)],
    )


def _paper_row(number: int, e: PaperEpoch) -> list[Cell]:
    return [
        number, e.seconds, 1e3 * e.seconds_per_step, e.loss, e.accuracy, e.val_loss,
        e.val_accuracy,
    ]  # fmt: skip


def _by_place(
    name: str, title: str, measured: dict[str, At], keys: tuple[str, str], *forms: str
) -> Table:
    words = {
        "loss": "train",
        "val_loss": "val.",
        "accuracy": "train",
        "val_accuracy": "val.",
        "seconds": "s an epoch",
        "ms_per_step": "ms a step",
    }
    heads = [f"{place}: {words[key]}" for place in measured for key in keys]
    columns = [at.mean(key) for at in measured.values() for key in keys]
    rows: list[list[Cell]] = [[k + 1, *row] for k, row in enumerate(zip(*columns, strict=False))]
    return Table(name, title, ("epoch", *heads), rows, ("", *forms * len(measured)))


def paper_tables() -> dict[str, Table]:
    """The paper's own tables 3 to 5, for standing beside ours."""

    def of(number: int, first: str, second: str, form: str, unit: str) -> Table:
        printed = paper.PRINTED[number]
        split = {"train": first, "val.": second} if unit == "" else {
            "s an epoch": first, "s a step": second,
        }  # fmt: skip
        heads = [f"{side}: {word}" for side in printed for word in split]
        rows: list[list[Cell]] = [
            [k + 1, *(getattr(e, key) for e in pair for key in split.values())]
            for k, pair in enumerate(zip(*printed.values(), strict=True))
        ]
        name, title = f"paper-{number}", f"The paper's table {number}"
        return Table(name, title, ("epoch", *heads), rows, ("", *[form] * len(heads)))

    made = [
        of(3, "loss", "val_loss", ".4f", ""),
        of(4, "accuracy", "val_accuracy", ".4f", ""),
        of(5, "seconds", "seconds_per_step", "g", "time"),
    ]
    return {table.name: table for table in made}


def _epochs(comparison: Comparison) -> Table:
    """Every epoch of every run."""
    heads: list[str] = []
    rows: list[list[Cell]] = []
    for name, at in comparison.measured.items():
        for seed, epochs in at.epochs.items():
            for epoch in epochs:
                heads = heads or ["place", "seed", *epoch]
                rows.append([name, seed, *epoch.values()])
    return Table("epochs", "Every epoch of every run", tuple(heads), rows, ("",) * len(heads))


def places_table(comparison: Comparison) -> Table:
    """One row a place: what was measured, or why nothing was."""
    baselines = comparison.baselines
    heads = (
        "place", "status", "precision", "threads", "s an epoch", "ms a step", "films/s",
        "set-up s", "memory MiB", *(f"× {over}" for over in baselines), "remark",
    )  # fmt: skip
    rows: list[list[Cell]] = []
    for name, at in comparison.places.items():
        if at.status != "done":
            rows.append([name, "not measured", *[None] * (len(heads) - 3), at.reason])
            continue
        ratios = [comparison.speed_up(name, over) for over in baselines]
        memory = [m for f in at.found.values() if (m := f["peak_memory_mib"]) is not None]
        rows.append(
            [
                name,
                "in part" if at.reason else "measured",
                precision_of(at),
                at.environment["processes"] * at.environment["threads"],
                float(at.times("epoch").mean()),
                float(at.times("step").mean()),
                at.films_per_second(),
                at.setup(),
                max(memory, default=None),
                *(None if r is None else r["ratio"] for r in ratios),
                at.remark,
            ]
        )
    forms = ("", "", "", "", "s", ".1f", ",.1f", ".1f", ",.0f", *["x"] * len(baselines), "")
    return Table("places", "Places", heads, rows, forms)


def precision_of(at: At) -> str:
    """The precision a place computed in; the reference's is NumPy's."""
    reference = str(at.environment["place"]).startswith("reference")
    precision: Any = "float64" if reference else at.environment["precision"]
    return str(precision)
