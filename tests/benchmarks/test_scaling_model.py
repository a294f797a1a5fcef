from __future__ import annotations

import csv
import importlib
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scaling_model")


@pytest.fixture
def page(model: Any) -> Any:
    return importlib.import_module("scaling_page")


@pytest.fixture
def work(model: Any) -> Any:
    return model.Work(fixed=0.1, film=0.05, backward=0.6, early=5e6, late=1e6, start=10.0)


def test_a_ring_sends_twice_the_bytes_at_most(model: Any) -> None:
    quick = model.Network("quick", 1e6, 0.0)
    assert model.exchange_seconds(1, 1e6, quick) == 0
    assert model.exchange_seconds(2, 1e6, quick) == pytest.approx(1.0)
    assert model.exchange_seconds(4, 1e6, quick) == pytest.approx(1.5)
    assert model.exchange_seconds(10_000, 1e6, quick) == pytest.approx(2.0, rel=1e-3)
    # What grows with the workers are 2 (n - 1) messages, each asked for and sent.
    slow = model.Network("slow", math.inf, 0.01)
    assert model.exchange_seconds(5, 1.0, slow) == pytest.approx(8 * 0.02)


def test_a_long_message_is_asked_for_again_and_again(model: Any) -> None:
    """gloo has two segments of 1 MiB under way: five of them take three round trips."""
    slow = model.Network("slow", math.inf, 1e-3)
    push = 5 * 2**20 / (4 * 2**20 / 2e-3)  # a send buffer of 4 MiB each round trip
    assert model.exchange_seconds(2, 10 * 2**20, slow) == pytest.approx(2 * (3 * 2e-3 + push))


@pytest.mark.parametrize(
    ("packets", "trips"), [(9, 0), (10, 0), (11, 1), (30, 1), (31, 2), (70, 2), (71, 3)]
)
def test_slow_start_doubles_ten_segments_each_round_trip(
    model: Any, packets: int, trips: int
) -> None:
    """10, 20, 40 ... segments; windows are counted by hand here."""
    ring = importlib.import_module("ring")
    long = ring.Network("long", math.inf, 0.05)
    size = packets * long.packet
    assert ring.slow_start_seconds(size, long, idle=1.0) == pytest.approx(trips * 0.1)
    assert ring.slow_start_seconds(size, long, idle=0.29) == 0  # the window is still there
    assert ring.slow_start_seconds(size, replace(long, control="bbr"), idle=1.0) == 0
    # A cable that holds ten segments needs no larger window.
    short = replace(long, bytes_a_second=10 * long.packet / 0.1)
    assert ring.slow_start_seconds(size, short, idle=1.0) == 0


def test_bbr_paces_by_what_its_largest_burst_was_delivered_at(model: Any) -> None:
    ring = importlib.import_module("ring")
    long = ring.Network("long", math.inf, 0.05, "bbr")
    pace = ring.sending_rate(long, 1e6)
    assert pace == pytest.approx(2.885 * 1e6 / (0.1 + 1e6 / pace))
    assert ring.sending_rate(long, 1e9) == 4 * 2**20 / 0.1  # the send buffer
    assert ring.sending_rate(replace(long, bytes_a_second=1e6), 1e6) == 1e6  # the cable


def test_early_gradients_hide_behind_the_way_back(model: Any, work: Any) -> None:
    computed = work.fixed + 16 * work.film
    assert model.step_seconds(1, 16, work, model.NETWORKS[0]) == pytest.approx(computed)
    only_early = replace(work, late=0.0)
    hidden = model.Network("", 5e6 / (0.6 * computed), 0.0)  # just as long as the way back
    assert model.step_seconds(2, 16, only_early, hidden) == pytest.approx(computed)
    half = replace(hidden, bytes_a_second=hidden.bytes_a_second / 2)
    assert model.step_seconds(2, 16, only_early, half) == pytest.approx(computed * 1.6)
    late = model.step_seconds(2, 16, work, hidden) - computed
    assert late == pytest.approx(1e6 / hidden.bytes_a_second)
    # Both at once: their round trips are one another's, their bytes are not.
    far = model.Network("", 1e7, 0.5, "bbr")
    alone = model.exchange_seconds(2, 5e6, far)
    both = model.step_seconds(2, 16, work, far) - 0.4 * computed
    assert both == pytest.approx(alone + 1e6 / model.sending_rate(far, 2.5e6))


def test_few_films_send_factors(model: Any, work: Any) -> None:
    """8 films a worker of 40 kB each, sent to n - 1 others, hidden behind the way back or not."""
    computed = work.fixed + 8 * work.film
    slow = model.Network("", 1e5, 0.0)
    few = replace(work, late=0.0, factors=4e4)
    behind = 8 * 4e4 / slow.bytes_a_second
    for workers in (2, 4, 8):
        expected = max(computed, 0.4 * computed + (workers - 1) * behind)
        assert model.step_seconds(workers, 8, few, slow) == pytest.approx(expected)
    many = replace(few, factors=0.0)
    for workers in (16, 32):  # more films than that have more factors than the layer has weights
        gathered, summed = (model.step_seconds(workers, 8, w, slow) for w in (few, many))
        assert gathered == pytest.approx(summed)


def test_an_epoch_counts_its_steps_and_the_fullest_worker(model: Any, work: Any) -> None:
    network = model.NETWORKS[1]
    step = model.step_seconds(3, 6, work, network)  # 16 films: 6, 5 and 5
    assert model.epoch_seconds(3, 33, 16, work, network) == pytest.approx(3 * step)
    assert model.epoch_seconds(3, 33, 16, work, network, start=True) == pytest.approx(3 * step + 10)


def test_nothing_is_won_beyond_the_batch(model: Any, work: Any) -> None:
    network = model.NETWORKS[2]
    found = [model.efficiency(n, 64, work, network) for n in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert found[0] == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(found))
    epochs = [model.epoch_seconds(n, 6400, 64, work, network) for n in (64, 128)]
    assert epochs[1] > epochs[0]


def test_the_record_is_what_the_model_says(model: Any, page: Any) -> None:
    settings = json.loads((page.OUT / "settings.json").read_text("utf-8"))
    rows = model.predictions(model.Work(**settings["work"]))
    with (page.OUT / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        kept = list(csv.DictReader(stream))
    assert [{k: str(v) for k, v in row.items()} for row in rows] == kept
    measured = json.loads((page.OUT / "checked.json").read_text("utf-8"))
    assert importlib.import_module("scaling_check").beside(measured) == measured
    kind = importlib.import_module("many_workers").KIND
    steps = json.loads((page.RECORDS / "benchmarks" / kind / "scaling.json").read_text("utf-8"))
    assert model.work_of(steps, measured) == model.Work(**settings["work"])
    text = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    for table in page.tables(measured, rows).values():
        assert table in text
    # The sentence below the table: the late part on the cable that holds back for 100 ms.
    ring, base = importlib.import_module("ring"), measured["cable"]
    far = ring.Network("", base["bytes_a_second"], base["round_trip"] / 2 + 0.1, "bbr")
    late, burst = measured["gradient_bytes"] - measured["early_bytes"], 8 * measured["film_bytes"]
    push = 1e3 * late / ring.sending_rate(far, burst)
    whole = 1e3 * ring.exchange_seconds(2, late, far, burst=burst)
    assert f"two round trips and {push:.0f} ms at" in text
    assert f"{whole:.0f} ms for the late part" in text
    assert whole - push == pytest.approx(2e3 * 2 * far.latency)
