"""What the paper's literature section says, each beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from measure import LINK, TARGET

Parts = dict[str, dict[str, Any]]
Runs = list[dict[str, Any]]  # of one way, by seed


def runs(parts: Parts, way: str) -> Runs:
    return [part["ways"][way] for name, part in parts.items() if name.startswith("learn-")]


def updates(found: Runs) -> str:
    """``170, 180, > 300``: updates to the target, seed by seed."""
    last = found[0]["updates"][-1]
    return ", ".join(
        str(run["to_target"]["updates"]) if run["to_target"] else f"> {last}" for run in found
    )


def final(found: Runs) -> str:
    return f"{statistics.mean(run['final_loss'] for run in found):.2f}"


def alike(parts: Parts) -> str:
    one, two = runs(parts, "one"), runs(parts, "overlapped")
    early = max(
        abs(a - b)
        for x, y in zip(one, two, strict=True)
        for a, b in zip(x["loss"][:5], y["loss"][:5], strict=True)
    )
    return (
        f"Held-out losses of the first {one[0]['updates'][4]} updates differ by at most "
        f"{early:.1g}; updates to {TARGET}: {updates(one)} alone, {updates(two)} with two. "
        "Later, rounding alone takes them apart."
    )


def cost(parts: Parts) -> str:
    here = parts["step"]["ways"]
    text = (
        f"An update of the paper's network: {here['one']['ms']:.0f} ms alone, "
        f"{here['after']['ms']:.0f} with two processes that exchange after, "
        f"{here['overlapped']['ms']:.0f} overlapped."
    )
    slow = parts.get("link", {}).get("ways")
    if slow:
        text += (
            f" Over {LINK}: {slow['after']['ms']:.0f} and {slow['overlapped']['ms']:.0f}, "
            f"{slow['trick']['ms']:.0f} with the dense layers split."
        )
    return text


def iterations(parts: Parts) -> str:
    return (
        f"At one rate, updates to {TARGET}: {updates(runs(parts, 'one'))} alone, "
        f"{updates(runs(parts, 'server'))} with a server and two workers, "
        f"{updates(runs(parts, 'hogwild'))} in shared memory."
    )


def many(parts: Parts) -> str:
    stale = [part["workers"] for name, part in parts.items() if name.startswith("stale-")]
    if not stale:
        return ""
    last = runs(parts, "one")[0]["updates"][-1]
    losses = ", ".join(f"{w}: {final([run[w] for run in stale])}" for w in stale[0])
    return (
        f"Loss after {last} updates: {final(runs(parts, 'one'))} alone, "
        f"{final(runs(parts, 'server'))} with two workers; more workers, {losses}. A smaller rate "
        "would bear staler gradients, and be slower."
    )


def master(parts: Parts) -> str:
    found = parts["delay"]["workers"]
    few, most = found["1"], found[max(found, key=int)]
    return (
        f"A trip takes {few['trip_ms']:.0f} ms with one worker, {most['trip_ms']:.0f} with "
        f"{max(found, key=int)}; updates a second: {few['updates_a_second']:.0f} and "
        f"{most['updates_a_second']:.0f}."
    )


def hybrid(parts: Parts) -> str:
    sent = {name: max(row["sent"]) / 1e6 for name, row in parts["step"]["ways"].items()}
    return (
        f"MB that a process sends an update: {sent['after']:.2f} data parallel, "
        f"{sent['trick']:.2f} with the dense layers split over two; with four processes "
        f"{sent['after 4']:.2f} and {sent['hybrid']:.2f}."
    )


def seldom(parts: Parts) -> str:
    return (
        f"Updates to {TARGET}: {updates(runs(parts, 'after'))} in step, "
        f"{updates(runs(parts, 'periodic'))} averaged once in eight, "
        f"{updates(runs(parts, 'gossip'))} with gossip (four processes)."
    )


# What is said, what measures it, and the parts that this needs.
CLAIMS: list[tuple[str, Callable[[Parts], str], tuple[str, ...]]] = [
    ("Synchronous SGD keeps the updates of one process", alike, ("learn-0",)),
    ("Exchange between processes is expensive", cost, ("step",)),
    ("Asynchronous SGD requires more iterations for the same accuracy", iterations, ("learn-0",)),
    ("For many processes this increases the learning time", many, ("learn-0", "stale-0")),
    ("A master that all groups talk to creates a delay", master, ("delay",)),
    ("Hybrids: model parallel groups, data parallel between them", hybrid, ("step",)),
    ("Periodic averaging and gossip spare synchronisation", seldom, ("learn-0",)),
]


def rows(parts: Parts) -> Iterator[Sequence[str]]:
    for said, measured, needed in CLAIMS:
        there = all(name in parts for name in needed)
        yield said, measured(parts) if there else "Not measured yet."
