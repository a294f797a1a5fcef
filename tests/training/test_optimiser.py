from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from hilum.training import optimiser
from hilum.training.recipe import Optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),  # a bias before a norm has no gradient but rounding
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(3 * 16, 4),
        nn.Linear(4, 1),
    )


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(step))
    return model(x).square().mean()


def torchs(model: nn.Module, s: Optimiser) -> torch.optim.Optimizer:
    """The same by torch's own class."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": wide, "weight_decay": s.weight_decay},
              {"params": narrow, "weight_decay": 0.0}]  # fmt: skip
    if s.name == "sgd":
        return torch.optim.SGD(groups, lr=s.lr, momentum=s.momentum, nesterov=s.momentum > 0)
    kind: Any = torch.optim.Adam if s.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=s.lr, betas=(s.momentum, s.beta2), eps=s.epsilon)


@pytest.mark.parametrize(
    "settings",
    [
        Optimiser("adam", lr=0.01, weight_decay=0.1),
        Optimiser("adamw", lr=0.01, weight_decay=0.1, momentum=0.8, beta2=0.95),
        Optimiser("sgd", lr=0.05, weight_decay=0.1),
        Optimiser("sgd", lr=0.05, momentum=0.0),
    ],
    ids=lambda s: f"{s.name} {s.momentum}",
)
def test_it_does_what_torchs_class_does(settings: Optimiser) -> None:
    ours, theirs = network(), network()
    mine, reference = optimiser.make(ours, settings), torchs(theirs, settings)
    for step in range(6):
        share = 1 - 0.1 * step
        for group in reference.param_groups:
            group["lr"] = settings.lr * share
        for model in (ours, theirs):
            model.zero_grad()
            loss_of(model, step).backward()
        reference.step()
        for one in mine:
            one.step(share)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_its_memory_comes_back(name: Any) -> None:
    settings = Optimiser(name, lr=0.01)
    one, two = network(), network()
    first, second = optimiser.make(one, settings), optimiser.make(two, settings)

    def go(model: nn.Module, steps: range, own: list[optimiser.Optimiser]) -> None:
        for step in steps:
            model.zero_grad()
            loss_of(model, step).backward()
            for each in own:
                each.step(1.0)

    go(one, range(3), first)
    go(two, range(9, 11), second)
    two.load_state_dict(one.state_dict())
    for mine, theirs in zip(second, first, strict=True):
        optimiser.restore(mine, theirs.state())
    go(one, range(3, 5), first)
    go(two, range(3, 5), second)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_compiler_is_not_loaded() -> None:
    code = (
        "import sys, torch; from hilum.training import optimiser, train\n"
        "from hilum.training.recipe import Optimiser\n"
        "m = torch.nn.Linear(2, 1); o = optimiser.make(m, Optimiser('adam'))\n"
        "m(torch.ones(1, 2)).sum().backward(); [x.step(1.0) for x in o]\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_a_gradient_may_lie_in_another_order_than_its_weights(name: str) -> None:
    def moved(memory_format: torch.memory_format) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(0)
        layer = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=torch.channels_last)
        layer.weight.data.copy_(torch.randn(8, 4, 3, 3, generator=drawn))
        for one in optimiser.make(layer, Optimiser(name, lr=0.01, momentum=0.9)):
            gradient = torch.randn(8, 4, 3, 3, generator=drawn)
            layer.weight.grad = gradient.contiguous(memory_format=memory_format)
            one.step(1.0)
        return layer.weight.detach()

    assert torch.equal(moved(torch.contiguous_format), moved(torch.channels_last))
