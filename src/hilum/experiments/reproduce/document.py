"""``reproduction.json``, all tables and figures, ``report.html`` and ``paper.html``."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import hilum
from hilum import report
from hilum.datasets.cache import Cache
from hilum.experiments import paper
from hilum.experiments.compare.document import draw
from hilum.experiments.compare.document import warnings as known_first
from hilum.experiments.compare.sections import sections
from hilum.experiments.compare.tables import Table, tables
from hilum.experiments.reproduce import closing, figures, matrix, reread, shortened
from hilum.experiments.reproduce.reproduce import Reproduction, Settings
from hilum.films.picture import mosaic, png
from hilum.names import hash_of
from hilum.networks.build import layer_table
from hilum.progress import Progress
from hilum.report import Section
from hilum.storage import write_file, write_json
from hilum.training.learner import new_network
from hilum.training.loop import HALF

FOOT = (
    f"Made by hilum {hilum.__version__}. This file is complete in itself, and <b>it embeds "
    "films</b>: pass it on only as far as you may pass on the films."
)
NOT_A_DEVICE = (
    "<b>Not a medical device.</b> These figures describe trainings on one set of films; they are "
    "for research and teaching, not for decisions about patients."
)


def write(done: Reproduction, progress: Progress) -> None:
    """Write everything that a reproduction says into its folder."""
    folder = done.folder / "figures"
    with progress.stage("tables, figures, pages", 3) as advance:
        made = tables(done.comparison)
        made["table-6"] = matrix.matrix_table(done.judged, done.manifest.classes)
        if done.wishes is not None:
            made["wishes"] = closing.table(done.wishes)
        (done.folder / "tables").mkdir(exist_ok=True)
        for table in made.values():
            table.write(done.folder / "tables")
        advance(1)
        drawn = draw(done.comparison, folder) | _drawn(done, folder)
        pictures = {"figure-1": _two_films(done, folder), "figure-9": _classified(done, folder)}
        advance(1)
        write_json(done.folder / "reproduction.json", done.as_dict())
        text = report.page(
            "The paper, from start to end",
            _lead(done),
            _sections(done, made, drawn, pictures),
            foot=f"{FOOT} Again: <code>{escape(command(done.settings))}</code>",
        )
        write_file(done.folder / "report.html", text)
        text = reread.page(done)
        write_file(done.folder / "paper.html", text)
        advance(1)


def command(settings: Settings) -> str:
    """The command line of these settings, but for the films."""
    options = {
        "--seeds": settings.seeds,
        "--films": settings.films,
        "--epochs": settings.epochs,
        "--sequential-films": settings.sequential_films,
    }
    wishes = {
        "--wish-films": settings.wish_films,
        "--wish-epochs": settings.wish_epochs,
        "--wish-size": settings.wish_size,
    }
    words = ["hilum reproduce DATA", *(f"--on {place}" for place in settings.on)]
    for name, value in {**options, **(wishes if settings.wishes else {})}.items():
        if value is not None:
            words.append(f"{name} {value}")
    words += [f"--set {change}" for change in settings.changes]
    return " ".join([*words, *([] if settings.wishes else ["--no-wishes"])])


def _drawn(done: Reproduction, folder: Path) -> dict[str, str]:
    """Figures 2, 3, 4 and that of the wishes: SVG texts by name."""
    network: Any = new_network(done.comparison.recipe)
    layers = layer_table(network, done.comparison.recipe.preprocessing.size)
    weights = _first_kernel(done)
    with report.plot_style():
        made = {"figure-2": figures.dense(layers), "figure-4": figures.network(layers)}
        if weights is not None:
            made["figure-3"] = figures.kernel(*weights)
        if done.wishes is not None:
            made["wishes"] = figures.wishes(done.wishes)
        return {name: report.save(figure, folder, name) for name, figure in made.items()}


def _first_kernel(done: Reproduction) -> tuple[Any, Any, float] | None:
    """A film as the network sees it, and the kernel of its first layer that learnt most."""
    last = done.judged.run.last()
    if last is None:
        return None
    state = last[0]["learner"]["model"]
    kernels = state["conv1.weight"].double().numpy()[:, 0]
    chosen = int(np.abs(kernels).sum((1, 2)).argmax())
    cache = Cache.fill(done.manifest, done.comparison.recipe.preprocessing)
    row = int(np.flatnonzero(cache.rows >= 0)[0])
    film = cache.of(np.array([row]))[0]
    return film, kernels[chosen], float(state["conv1.bias"][chosen])


def _two_films(done: Reproduction, folder: Path) -> str:
    """Figure 1 as a picture of the page; ``figure-1.png``."""
    cache = Cache.fill(done.manifest, done.comparison.recipe.preprocessing)
    picture = png(figures.films(done.manifest, cache.rows >= 0))
    write_file(folder / "figure-1.png", picture)
    return report.image(picture, "two chest films").replace("<img", '<img style="max-width:100%"')


def _classified(done: Reproduction, folder: Path) -> str:
    """Figure 9: films with answer, output and label; ``figure-9.png``."""
    from hilum.evaluation import gallery
    from hilum.inference.model import load

    measured, manifest = done.judged.measured, done.manifest
    cache = Cache.fill(manifest, done.comparison.recipe.preprocessing)
    rows = {  # a run that is read again may have hidden its names, or not
        name: row
        for row, path in enumerate(manifest.path)
        for name in (path, hash_of(path, manifest.root))
    }

    def pixels(row: int) -> Any:
        return cache.of(np.array([rows[measured.scores.film[row]]]))[0]

    chosen = gallery.sample(measured)
    model = load(done.judged.run.folder)
    found = list(gallery.shown(model, measured, HALF.name, chosen, pixels, manifest.classes))
    labels = [f"{f.label} {f.probability:.2f}{'' if f.right else ' WRONG'}" for f in found]
    picture = mosaic([_enlarged(f.film) for f in found], columns=4, labels=labels)
    write_file(folder / "figure-9.png", png(picture))
    films = "".join(
        f'<figure class="film{"" if f.right else " wrong"}"><div>'
        f"{report.image(png(f.film), f.name)}</div><figcaption><b>{escape(f.answer)}</b> "
        f"({f.probability:.2f})<span>label: {escape(f.label)}</span></figcaption></figure>"
        for f in found
    )
    return (
        f'<div class="films">{films}</div><p>Figure 9. Films of the judged part drawn by chance, '
        "both classes alike: answer at one half, the network's output, label.</p>"
    )


def _enlarged(film: Any) -> Any:
    """Small films by whole pixels, to 200 or more a side, so that a line of text fits beneath."""
    factor = -(-200 // film.shape[0])
    return film.repeat(factor, 0).repeat(factor, 1)


def _lead(done: Reproduction) -> str:
    comparison, judged = done.comparison, done.judged
    ratio = (
        comparison.speed_up(comparison.fastest, comparison.baseline)
        if comparison.fastest != comparison.baseline
        else None
    )
    accuracy, recall = (judged.half.strict[key] for key in ("accuracy", "recall"))
    theirs = matrix.paper_metrics()
    facts = [
        (_shown(accuracy), f"accuracy; the paper {theirs['accuracy'].value:.3f}"),
        (_shown(recall), f"recall; the paper {theirs['recall'].value:.3f}"),
        (_shown(judged.half.strict["specificity"]),
         f"specificity; the paper {theirs['specificity'].value:.3f}"),
    ]  # fmt: skip
    if ratio is not None:
        said = "" if ratio["low"] is None else f"<i>{ratio['low']:.2f} to {ratio['high']:.2f}</i>"
        facts.append(
            (f"{ratio['ratio']:.2f} ×{said}",
             f"{escape(comparison.fastest)} over {escape(comparison.baseline)}; the paper "
             f"{paper.SPEED_UP}")
        )  # fmt: skip
    return (
        f'<p class="lead">Mochurad, Dereviannyi and Antoniv (2021) trained one network on a GPU '
        f"and on a CPU. Here it is trained again on {len(done.manifest):,} films of the "
        f"folder {escape(done.manifest.name)}, and judged on {escape(judged.part)}.</p>"
        f"{report.facts(facts)}<p>{NOT_A_DEVICE}</p>"
        '<p>What the paper really used, its slips and its claims: <a href="paper.html">'
        "paper.html</a>.</p>"
        f"{report.warnings([*known_first(comparison), *shortened.sentences(done)])}"
    )


def _shown(estimate: Any) -> str:
    if estimate.value is None:
        return "–"
    value = f"{estimate.value:.3f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value}<i>{estimate.low:.3f} to {estimate.high:.3f}</i>"


def _sections(
    done: Reproduction, made: dict[str, Table], drawn: dict[str, str], pictures: dict[str, str]
) -> list[Section]:
    main = {section.key: section for section in sections(done.comparison, made, drawn)}
    found = [
        main.pop("places"),
        Section("The films (figure 1)", _films(done, pictures), "films"),
        Section("The network (figures 2, 3, 4)", _network(done, drawn), "network"),
        main.pop("epochs"),
        main.pop("convergence"),
        main.pop("speed"),
    ]
    if done.sequential is not None:
        found.append(Section("The sequential run", _sequential(done), "sequential"))
    how = main.pop("method")
    del main["claims"]  # in paper.html, with those on accuracy
    found += main.values()
    found.append(matrix.section(done.judged, done.manifest.classes))
    found.append(Section("Classified films (figure 9)", pictures["figure-9"], "classified"))
    if done.wishes is not None:
        found.append(closing.section(done.wishes, made["wishes"], drawn["wishes"]))
    found.append(how)
    return found


def _films(done: Reproduction, pictures: dict[str, str]) -> str:
    rows = [
        [part, f"{negatives:,}", f"{positives:,}", f"{films:,}", f"{patients:,}"]
        for part, negatives, positives, films, patients in done.manifest.counts()
    ]
    rows += [
        ["the paper: train", "1,082", "3,110", "4,192", "not told"],
        ["the paper: validation", "267", "773", "1,040", "not told"],
        ["the paper: test", "234", "390", "624", "not told"],
    ]
    classes, notes = done.manifest.classes, done.manifest.notes
    told = [escape(str(notes[key])) for key in ("source", "licence") if notes.get(key)]
    licence = f" Films of this page: {'; '.join(told)}." if told else ""
    return (
        pictures["figure-1"]
        + f"<p>Figure 1. A film without pneumonia and one with it, drawn by chance.{licence}</p>"
        + report.table(["part", escape(classes[0]), escape(classes[1]), "films", "patients"], rows)
        + "".join(f"<p class='small'>{escape(line)}</p>" for line in done.manifest.remarks())
        + "<p>The paper's counts are reconstructed from its figures (paper.html).</p>"
    )


def _network(done: Reproduction, drawn: dict[str, str]) -> str:
    size = done.comparison.recipe.preprocessing.size
    body = report.figure(
        drawn["figure-2"],
        "Figure 2. A tightly coupled network: the dense layers of this one, a few neurons of each; "
        "above, how many there are, below, weights and biases.",
        "figure-2",
    )
    if "figure-3" in drawn:
        body += report.figure(
            drawn["figure-3"],
            "Figure 3. Pixels times a kernel, with numbers: an edge in a film, and a kernel of the "
            "trained network's first layer. As in all frameworks the kernel is not turned.",
            "figure-3",
            wide=True,
        )
    return body + report.figure(
        drawn["figure-4"],
        f"Figure 4. The network at {size} × {size}, from its own layer table: channels × side². "
        "The paper's, at 500 × 500, has 1,467,137 parameters.",
        "figure-4",
        wide=True,
    )


def _sequential(done: Reproduction) -> str:
    assert done.sequential is not None
    sequential = done.sequential
    trained = sequential.manifest.part.count("train")
    ratio = (
        sequential.speed_up("cpu:1", "reference", "step")
        if {"cpu:1", "reference"} <= sequential.measured.keys()
        else None
    )
    said = (
        f"One thread of torch is {ratio['ratio']:.1f} times as fast by step as the formulas in "
        "NumPy, film by film."
        if ratio is not None
        else "They could not be compared: " + "; ".join(
            f"{n}: {at.reason}" for n, at in sequential.places.items() if at.reason
        )
    )  # fmt: skip
    table = tables(sequential)["places"].html(kind="", without=("remark",))
    return (
        "<p>The paper calls its CPU run sequential; it used all threads. This one is: the formulas "
        f"of its section 3.2 in NumPy, on {trained:,} films for one epoch (of "
        f"{len(sequential.manifest):,} in all parts), beside one thread of torch on the same "
        f"films. {escape(said)} More: "
        '<a href="sequential/report.html">sequential/report.html</a>.</p>' + table
    )
