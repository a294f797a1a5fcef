"""The page, the tables and the figure of the model of many workers."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sides
from scaling_model import (
    BATCH,
    DATASETS,
    EPOCHS,
    LARGEST_BATCH,
    NETWORKS,
    PRICE_CORE_HOUR,
    WORKERS,
    Work,
)

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "records"
OUT = RECORDS / "scaling"


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def tables(measured: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, str]:
    """Markdown by name of its place in docs/scaling.md."""
    checked = ["| network | predicted, ms | measured, ms | least–most | error |",
               "|---|---:|---:|---:|---:|"]  # fmt: skip
    for row in measured["networks"]:
        checked.append(
            f"| {row['network']} | {row['predicted_ms']} | {row['ms']} | "
            f"{row['least']}–{row['most']} | {row['error']:+.1%} |"
        )
    checked += [
        "",
        f"{measured['processor']}, {measured['cores']} cores, load average "
        f"{measured['load_average']}; TCP by {measured['congestion_control']}; "
        f"{measured['rounds']} rounds of 2 steps, in turn with the "
        f"step that the model was given ({measured['half_batch_ms']:.0f} ms, "
        f"{measured['backward_share']:.0%} of it the way back).",
    ]
    own = 2  # processes of the run itself
    checked += sides.busy(measured["load_average"] - own, measured["cores"])
    found = {"checked": "\n".join(checked)}
    names = [network.name for network in NETWORKS]
    for way in ("strong", "weak"):
        lines = [f"| workers | batch | {' | '.join(names)} |", "|---:|---:|" + "---:|" * len(names)]
        nih = [r for r in rows if r["dataset"].startswith("NIH") and r["scaling"] == way]
        for workers in WORKERS:
            cells = [r for r in nih if r["workers"] == workers]
            mark = " *" if cells[0]["beyond_largest_batch"] else ""
            lines.append(
                f"| {workers:,} | {cells[0]['batch']:,}{mark} | "
                + " | ".join(
                    f"{duration(r['epoch_seconds'])}, {r['efficiency']:.0%}" for r in cells
                )
                + " |"
            )
        found[way] = "\n".join(lines)
    lines = ["| films | workers | network | ten epochs | core hours | cost |",
             "|---|---:|---|---:|---:|---:|"]  # fmt: skip
    chosen = ("10 Gbit/s Ethernet", "100 Gbit/s Ethernet")
    for title in DATASETS:
        for workers in (1, 16, 128, 512):
            for name in chosen if workers > 1 else chosen[:1]:
                (row,) = (
                    r for r in rows
                    if (r["dataset"], r["workers"], r["network"], r["scaling"])
                    == (title, workers, name, "weak")
                )  # fmt: skip
                seconds = EPOCHS * row["epoch_seconds"]
                lines.append(
                    f"| {title} | {workers} | {name if workers > 1 else '–'} | {duration(seconds)} "
                    f"| {seconds * workers / 3600:,.0f} | ${row['dollars']:,.2f} |"
                )
    found["cost"] = "\n".join(lines)
    return found


def figure(measured: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Efficiency against workers, both ways of growing, and prediction against measurement."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = page.subplots(1, 3)
    for axis, way, title in ((left, "strong", "batch of 512 shared out"),
                             (middle, "weak", "16 films a worker")):  # fmt: skip
        for network, mark in zip(NETWORKS, "osv^", strict=True):
            own = [r for r in rows if r["dataset"].startswith("NIH") and r["scaling"] == way
                   and r["network"] == network.name]  # fmt: skip
            axis.plot([r["workers"] for r in own], [r["efficiency"] for r in own],
                      marker=mark, markersize=4, label=network.name)  # fmt: skip
        if way == "weak":
            axis.axvline(LARGEST_BATCH / BATCH, color="grey", linestyle=":")
            axis.text(LARGEST_BATCH / BATCH, 0.03, "batch 8,192 ", ha="right", color="grey")
        axis.set(xscale="log", xlabel="workers", title=title, ylim=(0, 1.05))
        axis.set_xticks(WORKERS[::2], [f"{w:,}" for w in WORKERS[::2]])
        axis.minorticks_off()
    left.set_ylabel("efficiency")
    left.legend(fontsize=7, loc="lower left")
    for row in measured["networks"]:
        low, high = row["ms"] - row["least"], row["most"] - row["ms"]
        right.errorbar(row["predicted_ms"], row["ms"], yerr=[[low], [high]], fmt="o", capsize=3,
                       label=row["network"])  # fmt: skip
    most = 1.1 * max(max(r["most"], r["predicted_ms"]) for r in measured["networks"])
    right.plot([0, most], [0, most], color="grey", linestyle=":")
    right.set(xlim=(0, most), ylim=(0, most), xlabel="predicted, ms a step",
              ylabel="measured", title="two processes")  # fmt: skip
    right.legend(fontsize=7)
    return page


def record(measured: dict[str, Any], work: Work, rows: list[dict[str, Any]]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    settings = {"work": asdict(work), "networks": [asdict(network) for network in NETWORKS],
                "largest_batch": LARGEST_BATCH, "dollars_a_core_hour": PRICE_CORE_HOUR,
                "epochs": EPOCHS}  # fmt: skip
    for name, content in (("checked", measured), ("settings", settings)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (OUT / f"{name}.json").write_text(text + "\n", "utf-8")
    page = figure(measured, rows)
    page.savefig(OUT / "scaling.png", dpi=110)
    page.savefig(OUT / "scaling.svg", metadata={"Date": None})
    sides.put(ROOT / "docs" / "scaling.md", tables(measured, rows))
