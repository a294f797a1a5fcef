"""The sections of a comparison's report, each one question."""

from __future__ import annotations

from html import escape

from hilum import report
from hilum.experiments import paper
from hilum.experiments.compare import claims, payback, spent
from hilum.experiments.compare.agreement import MARGINS, WORDS, Equivalence, spread
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.runs import in_words
from hilum.experiments.compare.speed import times
from hilum.experiments.compare.tables import Table, paper_tables, precision_of
from hilum.report import Section

VERDICTS = {
    "alike": "<b>alike</b>",
    "different": "<b>different</b>",
    "open": "open",
    "not tested": "not tested",
}


def sections(
    comparison: Comparison, made: dict[str, Table], drawn: dict[str, str]
) -> list[Section]:
    """The sections of the report, in the order in which readers look."""
    found = [
        claims.section(comparison),
        places(comparison, made),
        speed(comparison, made, drawn),
        convergence(comparison, made, drawn),
        spent.section(comparison, drawn),
        payback.section(comparison),
        one_by_one(made),
        method(comparison),
    ]
    return [section for section in found if section is not None]


def between(ratio: dict[str, float | None]) -> str:
    """The 95 % interval in words; empty where there is none."""
    low, high = ratio["low"], ratio["high"]
    return "" if low is None or high is None else f"{times(low)} to {times(high)}"


def places(comparison: Comparison, made: dict[str, Table]) -> Section:
    """Which places there were, on which machine."""
    first = next(iter(comparison.measured.values())).environment
    rows = [
        ["processor", escape(str(first["processor"])), escape(paper.MACHINE["processor"])],
        ["cores", f"{first['cores']} granted", paper.MACHINE["cores"]],
        ["memory", f"{first['memory_gib']} GiB", "not named"],
        ["GPU", _gpu(comparison), escape(paper.MACHINE["gpu"])],
        [
            "software",
            escape(f"hilum {first['hilum']}, torch {first['torch']}, Python {first['python']}"),
            escape(paper.MACHINE["software"]),
        ],
    ]
    body = (
        made["places"].html(kind="", without=("remark",))
        + "<p>A speed-up is the baseline's mean seconds an epoch over the place's, of the seeds "
        "that were run in both. Set-up runs "
        "from the start of the process to its first step, with films decoded and kernels built "
        "beforehand; memory is the largest resident set of one process while it trained.</p>"
        + _resumed(comparison)
        + "<h3>The machine</h3>"
        + report.table(["", "here", "the paper's"], rows, kind="text")
    )
    return Section("Places", body, "places")


def _resumed(comparison: Comparison) -> str:
    """Which runs came to their end in a later process than they began in."""
    runs = in_words({name: at.resumed for name, at in comparison.measured.items()})
    return runs and (
        f"<p>Interrupted and gone on with: {escape(runs)}. Their set-up is that of the first "
        "process; what the later ones took to get ready is in no figure.</p>"
    )


def _gpu(comparison: Comparison) -> str:
    names = {str(at.environment["gpu"]) for at in comparison.measured.values()
             if "gpu" in at.environment}  # fmt: skip
    return escape(", ".join(sorted(names))) if names else "none was measured"


def speed(comparison: Comparison, made: dict[str, Table], drawn: dict[str, str]) -> Section:
    """Ratios with their spread, and tables and figures of time."""
    rows = [
        [
            escape(r["place"]),
            escape(r["over"]),
            r["by"],
            f"<b>{times(r['ratio'])}</b>",
            between(r) or "–",
            f"{times(r['least'])} to {times(r['most'])}",
            f"{r['runs']}, {r['n']}",
        ]
        for r in comparison.ratios()
    ]
    heads = [
        "place",
        "over",
        "by",
        "times as fast",
        "95 % interval",
        "least to most",
        "runs, epochs",
    ]
    body = ""
    if "speed-up" in drawn:
        body += report.figure(
            drawn["speed-up"],
            "How many times as fast: the ratio of mean times (dot), its 95 % interval over the "
            "runs (thick; none for a single run, beyond the edges for few) and all ratios paired "
            "by seed and epoch (thin).",
            "fig-speed",
            wide=True,
        )
        body += report.table(heads, rows)
    body += _own_and_paper(comparison, made["table-5"], "paper-5")
    for number, key, words in (
        (7, "figure-7", "Mean time of a training step in each epoch"),
        (8, "figure-8", "Time of each epoch, training and validation"),
    ):
        body += report.figure(
            drawn[key], f"Figure {number}. {words}. The scale is logarithmic.", key, wide=True
        )
    return Section("How fast", body, "speed")


def _own_and_paper(comparison: Comparison, table: Table, key: str) -> str:
    """A table of ours, and the paper's of the same number to unfold."""
    body = f"<h3>{escape(table.title)}</h3>{table.html(kind='')}"
    if comparison.recipe.network.name == "paper2021":
        theirs = paper_tables()[key]
        body += (
            f"<details><summary>{escape(theirs.title)}</summary>{theirs.html(kind='')}</details>"
        )
    return body


def convergence(comparison: Comparison, made: dict[str, Table], drawn: dict[str, str]) -> Section:
    """Curves, equivalence tests and flipped decisions."""
    body = ""
    if any(comparison.equivalences.values()):
        rows = [
            [
                escape(name),
                WORDS[measure],
                f"{found.difference:+z.4f}",
                _interval(found),
                f"± {found.margin:g}",
                VERDICTS[found.verdict],
            ]
            for name, by_measure in comparison.equivalences.items()
            for measure, found in by_measure.items()
        ]
        body += (
            f"<p>Each place against {escape(comparison.baseline)}, paired by seed. Two places "
            "converge alike where the 90 % interval of their difference lies within a margin that "
            "was stated before (two one-sided tests at 5 %), and differ where it lies wholly "
            "outside; else the question stays open. That no difference was seen would not do: with "
            "few runs none is seen. One seed has no spread and cannot be tested, nor can seeds "
            "that all differ by the same. Accuracies and AUROCs that do not differ are alike where "
            "the losses do not either; else they may agree by chance, and are not tested.</p>"
            + report.figure(
                drawn["agreement"],
                "Differences from the baseline over paired seeds, with 90 % intervals.",
                "fig-agreement",
                wide=True,
            )
            + report.table(
                ["place", "measure", "difference", "90 % interval", "margin", "verdict"],
                rows,
                kind="text",
            )
            + _spread(comparison)
            + _flips(comparison)
        )
    for number, key, words, how in (
        (5, "figure-5", "The loss", "augmented, with class weights"),
        (6, "figure-6", "The accuracy", "augmented"),
    ):
        body += report.figure(
            drawn[key],
            f"Figure {number}. {words} over the epochs: training dashed, as the films were learnt "
            f"from ({how}); validation solid, with the span of the seeds. Places that are equal "
            "lie on each other.",
            key,
            wide=True,
        )
    body += _own_and_paper(comparison, made["table-3"], "paper-3")
    body += _own_and_paper(comparison, made["table-4"], "paper-4")
    return Section("Do they converge alike?", body, "convergence")


def _interval(found: Equivalence) -> str:
    return "–" if found.low is None else f"{found.low:+z.4f} to {found.high:+z.4f}"


def _spread(comparison: Comparison) -> str:
    found = spread(comparison.places[comparison.baseline].epochs)
    if not found:
        return "<p>One seed was run: what a change of seed does is not known here.</p>"
    words = ", ".join(f"{WORDS[name]} {value:.4f}" for name, value in found.items())
    return (
        f"<p>What a change of seed does at {escape(comparison.baseline)} (standard deviation over "
        f"{len(comparison.places[comparison.baseline].epochs)} seeds): {words}.</p>"
    )


def _flips(comparison: Comparison) -> str:
    films = comparison.validation_films

    def row(what: str, counts: list[int]) -> list[str]:
        if not counts:
            return [what, "–", "–", "–"]
        mean = sum(counts) / len(counts)
        return [
            what,
            f"{mean:.1f}",
            f"{min(counts)} to {max(counts)}",
            f"{100 * mean / max(1, films):.2f} %",
        ]

    rows = [
        row(f"{escape(name)} against {escape(comparison.baseline)}, same seed", counts)
        for name, counts in comparison.flips.items()
    ]
    rows.append(row(f"another seed, {escape(comparison.baseline)}", comparison.flips_by_seed))
    heads = [f"decided otherwise, of {films:,} validation films", "mean", "least to most", "share"]
    return (
        "<h3>Decisions flipped</h3><p>Films that the finished models decide otherwise at "
        "probability one half, beside what another seed alone flips.</p>"
        + report.table(heads, rows)
    )


def one_by_one(made: dict[str, Table]) -> Section:
    """Tables 1 and 2."""
    body = "".join(
        f"<h3>{escape(made[name].title)}</h3>{made[name].html()}" for name in ("table-1", "table-2")
    )
    return Section("Epoch by epoch", body, "epochs")


def method(comparison: Comparison) -> Section:
    """How it was measured."""
    at = next(iter(comparison.measured.values()))
    body = (
        "<p>Every run was a process of its own, one after another, the seeds taking turns over the "
        "places. All began from the same weights for a seed and saw the same films in the same "
        "order with the same augmentation. Films were decoded once, before any run, and lie in "
        "memory. An epoch's seconds hold training and validation; a step's milliseconds training "
        "alone. The training loss is weighted by class and augmented, so it does not compare with "
        "the validation loss.</p>"
        "<p>Speed-ups are ratios of mean times, with a 95 % interval over the runs (Student's t of "
        "the logarithms of their ratios). A neighbour on the machine can make any epoch slower: "
        "least and most are told for that reason.</p>"
        "<p>Validation losses and accuracies are at probability one half of the network's own "
        "output, as Keras counts them. The decisions that are compared are those of the exported "
        "graphs.</p>"
        f"<p>Recipe digest <code>{comparison.recipe.digest}</code>, films' digest "
        f"<code>{comparison.manifest.digest[:16]}</code>, {precision_of(at)} on "
        f"{escape(at.name)}. Again, in the folder "
        f"<code>{escape(comparison.folder.name)}</code>: "
        f"<code>{escape(again(comparison))}</code></p>"
    )
    return Section("How this was measured", body, "method")


def again(comparison: Comparison) -> str:
    """The command line that would do it again, in the comparison's folder."""
    on = " ".join(f"--on {name}" for name in comparison.places)
    stated = (m for m in comparison.margins.items() if m not in MARGINS.items())
    margins = "".join(f" --margin {name}={margin:g}" for name, margin in stated)
    return (
        f"hilum compare films.csv --recipe recipe.toml {on} --seeds {len(comparison.seeds)}"
        f" --baseline {comparison.asked or comparison.baseline}{margins}"
    )
