"""Two machines under torchrun, one of which comes late and loses its process in mid-epoch.

The machines are network namespaces of this one, joined by a virtual cable, each with a cache of
its own. Without the right to make them (root, and ``ip`` of Debian's iproute2) two agents of
torchrun's meet on loopback instead; exactly one of the two tests runs and the other says why not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilum.datasets import phantom
from hilum.datasets.index import index
from hilum.training.loop import batches, order
from hilum.training.run import Run
from hilum.training.train import train

from .conftest import recipe_of

EPOCHS, BATCH, SIZE = 4, 8, 32
LATE = 8.0  # seconds after which the second machine comes, more than the first needs to be there
# The command line under torchrun; it notes the films of each step, and rank 1 dies once.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from hilum.cli.app import main
from hilum.training.learner import TorchLearner
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
step, count = TorchLearner.step, [-1, 0]
def noting(self, batch, rate):
    count[:] = [self.epoch, count[1] + 1 if count[0] == self.epoch else 0]
    with (folder / f"steps-{rank}.jsonl").open("a") as notes:
        notes.write(json.dumps([*count, self.films.rows[batch].tolist(), os.getpid()]) + "\\n")
    if rank == "1" and count == [2, 3] and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, rate)
TorchLearner.step = noting
main(sys.argv[2:])
"""


class Node:
    """A machine, real enough: where its commands run, its address and its own cache."""

    def __init__(self, name: str, address: str, inside: list[str], folder: Path) -> None:
        self.address, self.inside = address, inside
        self.cache = folder / f"cache-{name}"
        self.said = folder / f"{name}.log"
        self.environment = {**os.environ, "HILUM_CACHE": str(self.cache)}

    def torchrun(self, first: str, port: int, *arguments: str) -> subprocess.Popen[str]:
        mine = int(self.cache.name == "cache-a")
        options = f"--nnodes 2 --nproc-per-node 1 --max-restarts 2 --rdzv-backend c10d \
            --rdzv-endpoint {first}:{port} \
            --rdzv-conf is_host={mine},keep_alive_max_attempt=24 --local-addr {self.address}"
        with self.said.open("w") as said:
            return subprocess.Popen(
                [*self.inside, sys.executable, "-m", "torch.distributed.run", *options.split(),
                 *arguments],
                env=self.environment,
                stdout=said, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip


def ip(*arguments: str) -> bool:
    command = shutil.which("ip") or "/usr/sbin/ip"
    try:
        return subprocess.run([command, *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=["namespaces", "loopback"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Node]]:
    tag = uuid.uuid4().hex[:6]
    names = [f"hilum-{tag}-{x}" for x in "ab"]
    possible = os.geteuid() == 0 and ip("netns", "add", names[0])
    try:
        if request.param == "loopback":
            if possible:
                pytest.skip("the same is tested between network namespaces")
            yield [Node(x, "127.0.0.1", [], tmp_path) for x in "ab"]
            return
        if not possible:
            pytest.skip("needs root and ip (iproute2) to make network namespaces")
        assert ip("netns", "add", names[1])
        cable = ["type", "veth", "peer", "name", "vb", "netns", names[1]]
        assert ip("link", "add", "va", "netns", names[0], *cable)
        for k, name in enumerate(names):
            assert ip("-n", name, "addr", "add", f"10.77.0.{k + 1}/24", "dev", f"v{'ab'[k]}")
            assert ip("-n", name, "link", "set", f"v{'ab'[k]}", "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        yield [
            Node(x, f"10.77.0.{k + 1}", ["ip", "netns", "exec", names[k]], tmp_path)
            for k, x in enumerate("ab")
        ]
    finally:
        for name in names:
            ip("netns", "del", name)


def notes(folder: Path, rank: int) -> list[list[Any]]:
    """(epoch, step, rows, process) of the steps of a rank, in order."""
    return [json.loads(line) for line in (folder / f"steps-{rank}.jsonl").open()]


@pytest.mark.slow
def test_two_machines_survive_a_late_start_and_a_kill_in_mid_epoch(
    nodes: list[Node], tmp_path: Path
) -> None:
    phantom.make(tmp_path / "films", films=60, size=(104, 120), seed=1)
    manifest = index(tmp_path / "films")
    manifest.write(tmp_path / "films.csv")
    recipe = recipe_of(
        "compact", SIZE, training={"epochs": EPOCHS, "batch": BATCH}, finish={"shifts": []}
    )
    (tmp_path / "own.toml").write_text(recipe.toml())
    (tmp_path / "script.py").write_text(SCRIPT)
    asked = [str(tmp_path / "script.py"), str(tmp_path), "train", str(tmp_path / "films.csv"),
             "--recipe", str(tmp_path / "own.toml"), "--on", "cpu:1",
             "--out", str(tmp_path / "run")]  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agents = []
    try:
        for node in nodes:
            agents.append(node.torchrun(nodes[0].address, port, *asked))
            time.sleep(LATE if node is nodes[0] else 0)
        assert not (tmp_path / "run").exists()  # the first one has waited
        ended = [agent.wait(timeout=600) for agent in agents]
    except subprocess.TimeoutExpired:
        ended = [agent.poll() for agent in agents]
    finally:
        for agent in agents:
            agent.terminate()  # and with it its process
    said = "\n".join(node.said.read_text()[-3000:] for node in nodes)
    assert ended == [0, 0], said

    # It died in the middle of an epoch, all came back, and that epoch was begun anew.
    run = Run(tmp_path / "run")
    assert run.finished and run.environment["processes"] == 2
    assert (tmp_path / "killed").exists()
    films = int((np.array(manifest.part) == "train").sum())
    steps = len(batches(np.arange(films), BATCH, "keep"))
    for rank in range(2):
        made = notes(tmp_path, rank)
        again = [k for k in range(1, len(made)) if made[k][3] != made[k - 1][3]]
        assert len(again) == 1
        assert made[again[0] - 1][0] == 2 and 1 <= made[again[0] - 1][1] < steps - 1
        assert made[again[0]][:2] == [2, 0]

    # The same films and, to the bit, the same weights as a run that nothing happened to.
    whole = train(manifest, recipe, on="cpu:2x1", out=tmp_path / "whole", workers=0)
    rows = sorted({row for _, _, batch, _ in notes(tmp_path, 0) for row in batch})
    assert len(rows) == films
    last = {(epoch, step): batch for epoch, step, batch, _ in notes(tmp_path, 0)}
    for epoch in range(EPOCHS):
        plan = batches(order(recipe.training.seed, epoch, films), BATCH, "keep")
        for step, batch in enumerate(plan):
            assert [rows[i] for i in batch] == last[epoch, step]
    one, other = run.last(), whole.last()
    assert one is not None and other is not None
    for name, value in one[0]["learner"]["model"].items():
        assert torch.equal(value, other[0]["learner"]["model"][name]), name

    # Each machine decoded each film once.
    for node in nodes:
        (pixels,) = node.cache.glob("films-1/*/pixels.u8")
        assert pixels.stat().st_size == len(manifest) * SIZE * SIZE
