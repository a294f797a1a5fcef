"""``report.html``: the sections of an evaluation, in the order in which readers look."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import hilum
from hilum import report
from hilum.evaluation import figures
from hilum.evaluation.document import answers, background, films
from hilum.evaluation.document.wording import Drawing, holds_for, shown
from hilum.storage import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hilum.datasets.cache import Cache
    from hilum.evaluation.evaluate import Evaluation

NOT_A_DEVICE = (
    "<b>Not a medical device.</b> These figures describe a model on one set of films. They are for "
    "research and teaching, not for decisions about patients."
)


def write_report(evaluation: Evaluation, caches: dict[str, Cache]) -> None:
    """Write ``figures/`` and ``report.html`` into the evaluation's folder."""
    folder = evaluation.folder / "figures"
    folder.mkdir(exist_ok=True)
    with report.plot_style():
        drawing = Drawing(
            {name: report.save(draw(), folder, name) for name, draw in _figures(evaluation).items()}
        )
    made = [
        films.flow(evaluation),
        films.population(evaluation),
        answers.points(evaluation),
        answers.metrics_table(evaluation),
        answers.difference_table(evaluation),
        answers.prevalence(evaluation, drawing),
        answers.curves(evaluation, drawing),
        answers.calibration(evaluation, drawing),
        answers.use(evaluation, drawing),
        films.by_group(evaluation, drawing),
        films.shortcut_controls(evaluation),
        *(films.films(evaluation, name, caches[name], folder) for name in evaluation.models),
        background.models(evaluation),
        background.method(evaluation),
        background.checklist(evaluation),
    ]
    text = report.page(
        _title(evaluation),
        _lead(evaluation),
        [section for section in made if section is not None],
        foot=(
            f"Made by hilum {hilum.__version__}. This file is complete in itself: it fetches "
            "nothing, and <b>it embeds films</b>, so pass it on only as far as you may pass on the "
            "films."
        ),
    )
    write_file(evaluation.folder / "report.html", text)


def _figures(evaluation: Evaluation) -> dict[str, Callable[[], Figure]]:
    """What can be drawn on these films, by file name; one class only leaves little."""
    measured, classes = evaluation.measured, evaluation.manifest.classes
    target = next(iter(evaluation.models.values())).bundle.target
    points = {name: evaluation.default_point(name) for name in measured}
    made: dict[str, Callable[[], Figure]] = {}
    for k, (name, one) in enumerate(measured.items()):
        for at in one.points.values():
            end = at.point.name if k == 0 else f"{at.point.name}-{k + 1}"
            title = at.point.name if len(measured) == 1 else f"{at.point.name}, {name}"
            made[f"confusion-{end}"] = partial(figures.confusion, at, classes, target, title)
    if all(m.ranking["auroc"].value is not None for m in measured.values()):
        published = evaluation.manifest.task == "pneumonia"
        made["roc"] = partial(figures.roc, measured, published=published)
        made["precision-recall"] = partial(figures.precision_recall, measured)
        made["reliability"] = partial(figures.reliability, measured)
        made["scores"] = partial(figures.scores, measured, classes)
        made["predictive-values"] = partial(figures.predictive, measured, points, target)
        made["decision-curve"] = partial(figures.decision_curve, measured)
        made["abstention"] = partial(figures.abstention, measured, points)
    for k, (name, groups) in enumerate(evaluation.groups.items()):
        if groups:
            overall = {
                **measured[name].points[points[name]].strict,
                "auroc": measured[name].ranking["auroc"],
            }
            end = "subgroups" if k == 0 else f"subgroups-{k + 1}"
            made[end] = partial(figures.forest, groups, overall)
    return made


def _title(evaluation: Evaluation) -> str:
    names = " and ".join(evaluation.models)
    return f"{names} on {evaluation.manifest.name}"


def _lead(evaluation: Evaluation) -> str:
    manifest, flow = evaluation.manifest, evaluation.flow
    name, one = next(iter(evaluation.measured.items()))
    at = one.points[evaluation.default_point(name)]
    part = "all films" if evaluation.part == "all" else f"the {evaluation.part} part"
    patients = len(set(one.scores.patient))
    whose = "" if len(evaluation.models) == 1 else f" · {escape(name)}"
    facts = [
        (shown(one.ranking["auroc"], plain=True), f"AUROC{whose}"),
        *(
            (shown(at.strict[key], plain=True), f"{key} at {escape(at.point.name)}{whose}")
            for key in ("accuracy", "recall", "specificity")
        ),
    ]
    return (
        f'<p class="lead">How well {escape(" and ".join(evaluation.models))} '
        f"{'tells' if len(evaluation.models) == 1 else 'tell'} {escape(manifest.classes[1])} from "
        f"{escape(manifest.classes[0])}: {flow['judged']:,} films of {patients:,} patients, "
        f"{part} of {escape(manifest.name)}.</p>"
        f"{report.facts(facts)}"
        f"<p>{holds_for(evaluation)}</p><p>{NOT_A_DEVICE}</p>"
        f"{report.warnings(evaluation.warnings)}"
    )
