"""Sections on what the answers are worth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hilum import report
from hilum.decision import Estimate
from hilum.evaluation.document.wording import NAMES, RATES, Drawing, shown
from hilum.evaluation.measure import PREVALENCES
from hilum.report import Section

if TYPE_CHECKING:
    from hilum.evaluation.evaluate import Evaluation


def points(evaluation: Evaluation) -> Section:
    """The confusion matrix at each operating point, as the paper's table 6."""
    target = next(iter(evaluation.models.values())).bundle.target
    negative, positive = (escape(name) for name in evaluation.manifest.classes)
    parts = []
    for name, measured in evaluation.measured.items():
        for at in measured.points.values():
            c, referred = at.counts, at.referred > 0
            heads = ["reference standard", f"{escape(target)} not suspected"]
            heads += [f"{escape(target)} suspected", *(["referred to a reader"] * referred)]
            table = [
                [negative, *_shares((c["tn"], c["fp"], c["referred_negative"]), referred)],
                [positive, *_shares((c["fn"], c["tp"], c["referred_positive"]), referred)],
            ]
            html = report.table(heads, table, kind="matrix")
            whose = f" · {escape(name)}" if len(evaluation.models) > 1 else ""
            default = " (default)" if at.point.name == evaluation.default_point(name) else ""
            parts.append(
                f"<div><h3>{escape(at.point.name)}{default}{whose}</h3>{html}"
                f'<p class="small">Positive at a probability of {at.point.threshold:.3f} or more. '
                f"Rule: {escape(at.point.rule or 'not told')}. Chosen on: "
                f"{escape(at.point.chosen_on or 'not told')}.{_promise(at)}</p></div>"
            )
    return Section(
        "Confusion matrix at each operating point", f'<div class="pair">{"".join(parts)}</div>',
        "points",
    )  # fmt: skip


def _shares(counts: Sequence[int], referred: bool) -> list[str]:
    used = counts if referred else counts[:2]
    total = max(1, sum(counts))
    return [f"{count:,}<span>{count / total:.1%}</span>" for count in used]


def _promise(at: Any) -> str:
    promise = at.point.promise or {}
    told = [
        f"{key} {promise[key]:.3f}, here {at.answered[key].value:.3f}"
        for key in ("recall", "specificity")
        if key in promise and at.answered[key].value is not None
    ]
    return f" Measured there: {'; '.join(told)}." if told else ""


def metrics_table(evaluation: Evaluation) -> Section:
    """Every metric with its interval: ranking, then each operating point."""
    names = list(evaluation.measured)
    several = len(names) > 1
    rows = [
        [NAMES[key], *(shown(m.ranking[key]) for m in evaluation.measured.values())]
        for key in ("auroc", "average_precision")
    ]
    body = report.table(
        ["Without a threshold", *(map(escape, names) if several else ["value"])], rows
    )
    shared = list(dict.fromkeys(p for m in evaluation.measured.values() for p in m.points))
    for point in shared:
        columns: list[tuple[str, dict[str, Estimate]]] = []
        for name, measured in evaluation.measured.items():
            if point not in measured.points:
                continue
            at, whose = measured.points[point], escape(name) if several else "value"
            if at.referred:
                columns.append((f"{whose}, answered films", at.answered))
                columns.append((f"{whose}, referred as errors", at.strict))
            else:
                columns.append((whose, at.answered))
        digits = {"false_alarms_per_100_healthy": 1}
        rows = [
            [NAMES[key], *(shown(values[key], digits=digits.get(key)) for _, values in columns)]
            for key in RATES
        ]
        heads = [f"At <b>{escape(point)}</b>", *(head for head, _ in columns)]
        body += report.table(heads, rows, kind="tall" if len(columns) > 2 else "")
    used = {
        e.method.split(" of ")[0].split(" over ")[0]
        for m in evaluation.measured.values()
        for e in (
            *m.ranking.values(),
            *(e for at in m.points.values() for e in at.answered.values()),
        )
        if e.low is not None
    }
    body += (
        f"<p class='small'>In grey: 95 % intervals ({escape('; '.join(sorted(used)))}; "
        "metrics.json names the method of each). A likelihood ratio tells by how much an answer "
        "multiplies the odds of illness.</p>"
    )
    return Section("Metrics with intervals", body, "figures")


def difference_table(evaluation: Evaluation) -> Section | None:
    """Paired differences of two models; None for one."""
    d = evaluation.differences
    if d is None:
        return None
    first, second = (escape(name) for name in evaluation.models)
    rows = [[NAMES[k], shown(v, signed=True), _sure(v)]
            for k, v in (*d["ranking"].items(), *d["calibration"].items())]  # fmt: skip
    for point, values in d["points"].items():
        rows += [[f"{escape(point)}: {NAMES[k]}", shown(values[k], signed=True), _sure(values[k])]
                 for k in ("accuracy", "recall", "specificity", "precision", "f1")]  # fmt: skip
    delong = ""
    if d["delong"]:
        p = d["delong"]["p"]
        chance = "< 0.001" if p < 0.001 else f"= {p:.3f}"
        delong = (
            f" DeLong's test of the AUROC difference (films as independent): "
            f"{shown(d['delong']['auroc'], signed=True)}, p {chance}."
        )
    body = (
        f"<p>{second} less {first}, film by film on the {d['films']:,} films that both answered "
        "(referred films count as errors at the operating points); whole patients are drawn for "
        f"both at once.{delong}</p>"
        + report.table(["Difference", f"{second} − {first}", "interval without 0"], rows)
    )
    return Section("The two models compared", body, "differences")


def _sure(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    return "yes" if estimate.low > 0 or estimate.high < 0 else "no"


def prevalence(evaluation: Evaluation, drawing: Drawing) -> Section:
    """PPV and NPV where other shares of films are positive."""
    body = ""
    for name, measured in evaluation.measured.items():
        for at in measured.points.values():
            whose = f", {escape(name)}" if len(evaluation.models) > 1 else ""
            heads = [f"{escape(at.point.name)}{whose}", *(f"{p:.0%} ill" for p in PREVALENCES)]
            rows = [[key.upper(), *(shown(at.predictive[p][key]) for p in PREVALENCES)]
                    for key in ("ppv", "npv")]  # fmt: skip
            body += report.table(heads, rows)
    if "predictive-values" in drawing:
        body += report.figure(
            drawing["predictive-values"],
            "Predictive values at the default operating point over the share of ill patients, from "
            "recall and specificity by Bayes's rule. Bars: 95 % intervals.",
            "prevalence",
            wide=True,
        )
    return Section("Predictive values where illness is rarer", body, "prevalence")


def curves(evaluation: Evaluation, drawing: Drawing) -> Section | None:
    """ROC, precision-recall and the histograms of the probability."""
    if "roc" not in drawing:
        return None
    other = (
        " Hollow marks are published operating points <b>on other films</b>: for orientation, not "
        "for comparison." if evaluation.manifest.task == "pneumonia" else ""
    )  # fmt: skip
    body = (
        '<div class="pair">'
        + report.figure(drawing["roc"], f"ROC curve with the operating points.{other}", "roc")
        + report.figure(
            drawing["precision-recall"],
            "Precision over recall; precision depends on the share of ill patients.",
            "pr",
        )
        + "</div>"
        + report.figure(
            drawing["scores"],
            f"Films by predicted probability: {escape(evaluation.manifest.classes[1])} upwards, "
            f"{escape(evaluation.manifest.classes[0])} downwards. Dashed: the thresholds.",
            "scores",
            wide=True,
        )
    )
    return Section("Curves", body, "curves")


def calibration(evaluation: Evaluation, drawing: Drawing) -> Section | None:
    """Whether a probability means what it says."""
    if "reliability" not in drawing:
        return None
    names = list(evaluation.measured)
    rows = []
    for key in ("brier", "calibration_slope", "calibration_intercept", "ece"):
        rows.append(
            [NAMES[key], *(shown(m.calibration[key]) for m in evaluation.measured.values())]
        )
    bands = [m.ece_null for m in evaluation.measured.values()]
    rows.append(["ECE of exactly right probabilities on these films (95 % band)",
                 *("–" if b is None else f"{b[0]:.3f}–{b[1]:.3f}" for b in bands)])  # fmt: skip
    heads = ["", *(map(escape, names) if len(names) > 1 else ["value"])]
    told = {m.bundle.calibration.prevalence for m in evaluation.models.values()}
    words = " and ".join(f"{p:.0%}" for p in sorted(told))
    text = (
        report.table(heads, rows)
        + f"<p>Probabilities refer to a set with {words} ill patients; on "
        "a ward with another share they have to be adjusted.</p>"
    )
    picture = report.figure(
        drawing["reliability"],
        "Observed share of positive films over the predicted probability. The band shows where "
        "points of exactly right probabilities would fall on so many films of so many patients.",
        "reliability",
    )
    body = (
        f'<div class="pair"><div>{text}</div>{picture}</div>' if len(names) == 1 else text + picture
    )
    return Section("Calibration", body, "calibration")


def use(evaluation: Evaluation, drawing: Drawing) -> Section | None:
    """What is gained by referring unsure films, and by acting on answers at all."""
    if "abstention" not in drawing:
        return None
    body = (
        '<div class="pair">'
        + report.figure(
            drawing["abstention"],
            "What remains right among the films answered, when the films nearest to the default "
            "threshold go to a reader first.",
            "abstention",
        )
        + report.figure(
            drawing["decision-curve"],
            "Net benefit (Vickers and Elkin 2006) on these films: true positives less false ones, "
            "weighted by the odds at which one would act. A useful model lies above both lines.",
            "benefit",
        )
        + "</div>"
    )
    return Section("Abstention and usefulness", body, "use")
