"""``paper.html``: what the paper really used, how sure that is, its slips, its claims."""

from __future__ import annotations

from html import escape

import hilum
from hilum import report
from hilum.decision import Estimate
from hilum.experiments import paper
from hilum.experiments.compare import claims
from hilum.experiments.compare.claims import Row
from hilum.experiments.reproduce import shortened
from hilum.experiments.reproduce.matrix import paper_metrics
from hilum.experiments.reproduce.reproduce import Reproduction
from hilum.experiments.reproduce.wishes import Point
from hilum.networks.arithmetic import layer_table, paper_network
from hilum.report import Section


def page(done: Reproduction) -> str:
    """The whole page."""
    sections = [
        Section("What it used, and how sure that is", _used(), "used"),
        Section("Calculated from its own tables", _calculated(), "calculated"),
        Section("Its claims, tested here", _claims(done), "claims"),
        Section("Its slips", _slips(), "slips"),
    ]
    lead = (
        f'<p class="lead">{escape(paper.SOURCE)}.</p><p>What the paper says, what its figures '
        "show, and what was measured when it was done again "
        '(<a href="report.html">report.html</a>). “Sure” is our judgement, with its reason.</p>'
        + report.warnings(shortened.without_sequential(done))
    )
    foot = f"Made by hilum {hilum.__version__}. More on the method: docs/method.md."
    return report.page("The paper, read again", lead, sections, foot=foot)


def _used() -> str:
    rows = [
        [escape(r.what), escape(r.said), escape(r.was), escape(r.sure), escape(r.why)]
        for r in paper.RECONSTRUCTED
    ]
    return report.table(["", "the paper says", "it was", "how sure", "why"], rows, kind="text")


def possible_validation_films() -> list[int]:
    """Numbers of films, 200 to 1,300, that give all twenty printed validation accuracies."""
    printed = [e.val_accuracy for epochs in paper.CURVES.values() for e in epochs]
    return [
        n
        for n in range(200, 1301)
        if all(round(round(a * n) / n, 4) == round(a, 4) for a in printed)
    ]


def _calculated() -> str:
    gpu, cpu = ([e.seconds for e in epochs] for epochs in (paper.GPU, paper.CPU))
    pairs = [c / g for c, g in zip(cpu, gpu, strict=True)]
    steps = [round(sum(e.seconds_per_step for e in c) / len(c), 3) for c in (paper.CPU, paper.GPU)]
    lower = sum(
        (c.loss < g.loss) + (c.val_loss < g.val_loss)
        for c, g in zip(paper.CPU, paper.GPU, strict=True)
    )
    size = sum(layer.parameters for layer in layer_table(paper_network(), paper.SIZE))
    found = paper_metrics()
    rows = [
        ["validation films that fit all twenty accuracies", _joined(possible_validation_films())],
        ["parameters of the reconstructed network", f"{size:,}"],
        ["seconds an epoch, CPU over GPU", f"{sum(cpu) / sum(gpu):.2f}, by epoch {min(pairs):.2f} "
         f"to {max(pairs):.2f}"],
        ["seconds a step as printed, CPU over GPU", f"{steps[0]:g} / {steps[1]:g} = "
         f"{steps[0] / steps[1]:.2f}"],
        ["the CPU's epochs, first to last", f"{cpu[0]:.0f} s to {cpu[-1]:.0f} s"],
        ["losses lower on the CPU", f"{lower} of 20"],
        *([f"{name} of table 6", str(e)] for name, e in found.items()),
    ]  # fmt: skip
    return report.table(["", ""], rows, kind="text")


def _joined(numbers: list[int]) -> str:
    return ", ".join(f"{n:,}" for n in numbers)


def _slips() -> str:
    rows = [[escape(text) for text in slip] for slip in paper.SLIPS]
    return (
        "<p>Shown as slips, since a reader who recomputes will trip over them.</p>"
        + report.table(["where", "what stands there", "what it should be"], rows, kind="text")
    )


def _claims(done: Reproduction) -> str:
    rows = [
        *claims.rows_of(done.comparison, done.sequential),
        _voluminous(),
        _dense(),
        _accuracy(done),
        _size(done),
        _patients(done),
        _network(done),
        (
            "Asynchronous SGD needs more iterations; a master that all talk to delays.",
            "not measured",
            "not by this command: benchmarks/parallelism does it (docs/parallelism.md); training "
            "itself shares gradients synchronously, without a master",
        ),
    ]
    cells = [claims.cells(*row) for row in rows]
    return report.table(["the paper's claim", "here", "measured"], cells, kind="text")


def _voluminous() -> Row:
    table = layer_table(paper_network(), paper.SIZE)
    work = sum(layer.multiply_adds for layer in table)
    convolution = sum(x.multiply_adds for x in table if x.kind.startswith("conv"))
    return (
        "Convolution is the most voluminous operation at 500 × 500.",
        "held",
        f"{100 * convolution / work:.1f} % of {work / 1e9:.2f} billion multiply-adds a film on the "
        "way forward (arithmetic)",
    )


def _dense() -> Row:
    inputs = paper.SIZE**2
    small, large = ((inputs + 1) * units for units in (128, 1000))
    return (
        "A dense network on pixels would need tens or even hundreds of millions of neurons.",
        "in part",
        f"of weights, not of neurons: one dense layer on {inputs:,} pixels has "
        f"{small / 1e6:.0f} million weights with 128 units, {large / 1e6:.0f} million with 1,000 "
        "(arithmetic)",
    )


def _accuracy(done: Reproduction) -> Row:
    half = done.judged.half.strict
    accuracy, recall = half["accuracy"], half["recall"]
    margin = done.comparison.margins["val_accuracy"]
    return (
        "Accuracy .93 and recall .99.",
        _as_good(accuracy, recall, margin),
        f"accuracy {accuracy}, recall {recall}, specificity {half['specificity']} on "
        f"{escape(done.judged.part)} (other films than the paper's test part, unless it is the "
        f"published one). Held where both intervals begin no more than {margin:g} below the "
        "paper's value, the margin of accuracies; not here where one ends below it",
    )


def _as_good(accuracy: Estimate, recall: Estimate, margin: float) -> str:
    """Whether both are the paper's or better, by their intervals: a wide one shows neither."""
    theirs, good, worse = paper_metrics(), 0, False
    pairs = ((accuracy, theirs["accuracy"].value), (recall, theirs["recall"].value))
    for ours, value in pairs:
        if ours.low is None or ours.high is None or value is None:
            continue
        good += ours.low >= value - margin
        worse = worse or ours.high < value
    if good == len(pairs):
        return "held"
    return "not here" if worse else "open"


def _size(done: Reproduction) -> Row:
    claim = "Reducing the photo loses information."
    return _ends(done, claim, "size", lambda p: f"{p.setting.size} pixels")


def _patients(done: Reproduction) -> Row:
    claim = "Increasing the dataset would reduce the error."
    return _ends(done, claim, "patients", lambda p: f"{p.patients:,} patients")


def _network(done: Reproduction) -> Row:
    claim = "A more complex model would reduce the error."
    return _ends(done, claim, "network", lambda p: f"{p.setting.parameters:,} parameters")


def _ends(done: Reproduction, claim: str, row: str, name: object) -> Row:
    """The ends of a row of the wishes; held where their intervals do not meet, in that order."""
    if done.wishes is None:
        return claim, "not measured", "the wishes were left out"
    points = [p for p in done.wishes.of(row) if p.accuracy]
    if len(points) < 2:
        return claim, "not measured", "fewer than two of its trainings have a result"
    first, last = points[0], points[-1]
    said = "; ".join(
        f"{name(p)}: accuracy {p.accuracy}, AUROC {p.auroc}"  # type: ignore[operator]
        + (f" ({p.remark})" if p.remark else "")
        for p in points
    )
    return (
        claim,
        _verdict(first, last),
        f"{said}. One seed each; held where the intervals of the first and the last accuracy do "
        "not meet",
    )


def _verdict(first: Point, last: Point) -> str:
    a, b = first.accuracy, last.accuracy
    if first.one_answer or last.one_answer:
        return "open"
    if a is None or b is None or None in (a.low, a.high, b.low, b.high):
        return "open"
    if b.low > a.high:  # type: ignore[operator]
        return "held"
    return "refuted" if b.high < a.low else "open"  # type: ignore[operator]
