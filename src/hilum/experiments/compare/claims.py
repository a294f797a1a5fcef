"""What the paper claims of speed and convergence, each with what was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from hilum import report
from hilum.datasets.manifest import number_of
from hilum.experiments.compare.comparison import Comparison
from hilum.experiments.compare.payback import pays
from hilum.experiments.compare.speed import bounds, times
from hilum.experiments.compare.tables import seconds
from hilum.experiments.paper import SPEED_UP
from hilum.machine import Place
from hilum.report import Section

Row = tuple[str, str, str]


def section(comparison: Comparison) -> Section:
    """The claims as a table: what it says, the verdict, the figures."""
    rows = [cells(*row) for row in rows_of(comparison)]
    return Section(
        "The paper's claims, tested",
        report.table(["claim", "here", "measured"], rows, kind="text"),
        "claims",
    )


def cells(claim: str, verdict: str, said: str) -> list[str]:
    """A row of the table of claims in HTML."""
    return [escape(claim), f'<span style="white-space:nowrap">{verdict}</span>', said]


def rows_of(comparison: Comparison, sequential: Comparison | None = None) -> list[Row]:
    """(claim, verdict, what was measured) in HTML, but for the claim.

    ``sequential`` is a reproduction's other comparison, in which the reference computes its layers
    one by one.
    """
    return [
        _faster(comparison),
        _alike(comparison),
        _convolution(comparison, sequential),
        _no_threat(comparison),
        _pays(comparison),
    ]


def _faster(comparison: Comparison) -> Row:
    claim = f"The parallel training is {SPEED_UP} times as fast."
    said: list[str] = []
    least: dict[str, list[float]] = {}  # by what it is told against
    for over in comparison.baselines:
        for name in comparison.parallel:
            ratio = comparison.speed_up(name, over) if name != over else None
            if ratio is not None:
                said.append(f"{escape(name)} over {escape(over)}: {times(ratio['ratio'])} ×")
                least.setdefault(over, []).append((bounds(ratio) or (0.0,))[0])
    if not said:
        return claim, "not measured", "no parallel place beside another"
    best = max(next(iter(least.values())))  # the asked baseline comes first, if it decides anything
    verdict = "held" if best >= SPEED_UP else "faster, by less" if best > 1 else "not shown"
    if len(comparison.seeds) == 1:
        epochs = comparison.recipe.training.epochs
        decides = "its slowest epoch decides" if epochs > 1 else "and a single epoch no spread"
        said.append(f"a single run has no interval, {decides}")
    return claim, verdict, "; ".join(said)


def _alike(comparison: Comparison) -> Row:
    claim = "Losses and accuracies go the same way wherever one trains."
    verdicts: dict[str, list[str]] = {}
    for name, by_measure in comparison.equivalences.items():
        for found in by_measure.values():
            verdicts.setdefault(found.verdict, []).append(name)
    if not verdicts:
        return claim, "not measured", "one place only"
    total = sum(map(len, verdicts.values()))
    said = "; ".join(
        f"{len(names)} of {total} differences {word}"
        for key, word in (
            ("alike", "lie within their margins"),
            ("different", "lie outside"),
            ("open", "are open"),
            ("not tested", "were not tested (no spread)"),
        )
        if (names := verdicts.get(key))
    )
    doubts = {word for name in comparison.equivalences for word in comparison.doubts(name)}
    if "at chance" in doubts:
        said += "; but some models are not shown to be better than chance"
    if "one answer" in doubts:
        said += "; but some models answer every film alike"
    if doubts:
        return claim, "open", said
    if set(verdicts) == {"alike"}:
        return claim, "held", said
    if "different" in verdicts:
        where = ", ".join(dict.fromkeys(map(escape, verdicts["different"])))
        return claim, "refuted", f"{said}: {where}"
    return claim, "open", said


def _convolution(comparison: Comparison, sequential: Comparison | None) -> Row:
    claim = "Convolution takes the most time."
    shares = _shares(comparison, "convolution")
    if not shares:
        return claim, "not measured", "no breakdown was made"
    # A pass that does ReLU and pooling, too, says nothing of convolution alone: places where they
    # are apart decide, where there are any, if need be those of the sequential run.
    apart, merged = _parted(comparison, shares)
    deciding, by = comparison, apart
    said = _list(shares, "of a step")
    if merged and apart:
        said += f"; decided by {', '.join(map(escape, apart))}"
    if merged:
        block = " (all of a residual block)" if comparison.recipe.network.name == "compact" else ""
        said += (
            f"; hilum's kernels do ReLU and pooling{block} in the same pass, so what is "
            f"convolution alone is not known: {', '.join(map(escape, merged))}"
        )
    if not apart and sequential is not None:
        alone = _shares(sequential, "convolution")
        if by := _parted(sequential, alone)[0]:
            deciding = sequential
            shown = {name: alone[name] for name in by}
            said += f"; decided by the sequential run: {_list(shown, 'of a step')}"
    most = all(_largest(deciding, name) == "convolution" for name in by or merged)
    return claim, ("held" if by else "open") if most else "in part", said


def _parted(comparison: Comparison, names: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Those places whose convolution stands alone, and the others."""
    merged = [name for name in names if _merged(comparison, name)]
    return [name for name in names if name not in merged], merged


def _merged(comparison: Comparison, name: str) -> bool:
    """Whether the time of convolution is that of ReLU and pooling as well."""
    kernels = comparison.places[name].environment.get("kernels", "no")
    apart = comparison.part_share(name, "pooling") and not name.startswith("cuda")
    return not kernels.startswith("no") and not apart


def _largest(comparison: Comparison, name: str) -> str:
    found: dict[str, float] = comparison.places[name].breakdown["parts"]
    return max(found, key=lambda part: found[part])


def _no_threat(comparison: Comparison) -> Row:
    claim = "Moving data and synchronising are no threat to the speed."
    moving = [
        name
        for name in comparison.parallel
        if Place.parse(name).kind != "cpu" or Place.parse(name).processes > 1
    ]
    if not moving:
        return claim, "not measured", "no place here moves data or synchronises"
    measured = _shares(comparison, "transfer", "exchange")
    shares = {name: measured[name] for name in moving if name in measured}
    if not shares:
        return claim, "not measured", "no breakdown was made"
    least, most, said = 0.0, 0.0, []
    for name, share in shares.items():
        low, high = _moving_between(comparison, name) or (share, share)
        least, most = max(least, low), max(most, high)
        between = f" ({100 * low:.1f} to {100 * high:.1f})" if low < high else ""
        said.append(f"{escape(name)}: {100 * share:.1f} %{between}")
    verdict = "held" if most < 0.1 else "in part" if least >= 0.1 else "open"
    what = "of a step is transfer and exchange of gradients"
    return claim, verdict, f"{'; '.join(said)} {what} (held: less than a tenth)"


def _moving_between(comparison: Comparison, name: str) -> tuple[float, float] | None:
    """The 95 % interval of the share of transfer and exchange; None where it has none."""
    found = comparison.places[name].breakdown
    ends, parts = found.get("exchange"), found["parts"]
    if not ends:
        return None
    rest = sum(parts.values()) - parts["exchange"]
    low, high = ((parts["transfer"] + max(0.0, end)) / (rest + max(0.0, end)) for end in ends)
    return low, high


def _pays(comparison: Comparison) -> Row:
    claim = "Setting up a parallel place takes extra time, and pays."
    rows = [row for row in comparison.break_even() if row["place"] in comparison.parallel]
    if not rows:
        return claim, "not measured", "no parallel place beside the baseline"
    said = [
        f"{escape(row['place'])}: {seconds(row['setup_more'], '+')} s, "
        f"{'pays' if row['known'] else 'when it pays is'} {pays(row)}"
        for row in rows
    ]
    enough = comparison.recipe.training.epochs
    held = all(
        row["setup_more"] > 0
        and row["epochs"] is not None
        and row["epochs"] <= enough
        and row["known"]
        for row in rows
    )
    said[-1] += f" (held: extra time, paid within {number_of(enough, 'epochs')})"
    return claim, "held" if held else "in part", "; ".join(said)


def _shares(comparison: Comparison, *parts: str) -> dict[str, float]:
    found = {name: comparison.part_share(name, *parts) for name in comparison.measured}
    return {name: share for name, share in found.items() if share is not None}


def _list(shares: dict[str, float], what: str) -> str:
    said = "; ".join(f"{escape(name)}: {100 * share:.1f} %" for name, share in shares.items())
    return f"{said} {what}"
