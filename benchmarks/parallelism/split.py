"""Model parallelism: the dense layers, where the paper's network keeps 95 % of its weights, split.

    convolutions   whole in every process
    dense1         each process has some of its units (rows of the weights)
    dense2         the matching columns: each process makes a part of every sum
    dense3         whole in every process

as Megatron-LM (Shoeybi et al. 2019) splits a pair of layers. The convolutions either see the whole
batch in every process (``replicated``), or each its share, and the features are gathered before the
dense layers ("One weird trick", Krizhevsky 2014: data parallelism where the work is, model
parallelism where the weights are). The hybrid has several such groups, each with its share of the
batch; whoever holds the same weights then sums its gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from group import Member
from numpy.typing import NDArray
from task import Flat, Model, Task
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.nn import functional as F
from ways import begin
from wire import Wire

SHARDED = {"dense1.weight": 0, "dense1.bias": 0, "dense2.weight": 1}  # and along which axis


class _Sum(Function):
    """Forward: the sum over the group. Backward: nothing, all compute the same from there on."""

    @staticmethod
    def forward(context: Any, part: Tensor, wire: Wire, group: Any) -> Tensor:
        total = part.clone()
        wire.all_reduce(total, group)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


class _Copy(Function):
    """Forward: nothing. Backward: the sum over the group, of what each part gives back."""

    @staticmethod
    def forward(context: Any, features: Tensor, wire: Wire, group: Any) -> Tensor:
        context.wire, context.group = wire, group
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone()
        context.wire.all_reduce(total, context.group)
        return total, None, None


class _Gather(Function):
    """Forward: the films of all. Backward: for one's own films, the sum over the group."""

    @staticmethod
    def forward(context: Any, features: Tensor, wire: Wire, group: Any) -> Tensor:
        context.wire, context.group = wire, group
        return torch.cat(wire.all_gather(features.contiguous(), group))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        size = distributed.get_world_size(context.group)
        own = context.wire.reduce_scatter(gradients[0].chunk(size), context.group)
        return own, None, None


class Split(Model):
    """The share of one process of a network split over the ``shards`` of its group.

    Attributes
    ----------
    team, shard : which group this process is of, and which part of the dense layers it holds
    """

    def __init__(self, member: Member, task: Task, shards: int, replicated: bool) -> None:
        self.task, self.wire, self.replicated = task, member.wire, replicated
        self.whole = task.network()
        self.shards, self.teams = shards, member.size // shards
        self.team, self.shard = divmod(member.rank, shards)
        # Every process must take part in the making of every group.
        self.group: Any = None
        self.peers: Any = None
        for team in range(self.teams):
            made = distributed.new_group([team * shards + s for s in range(shards)])
            self.group = made if team == self.team else self.group
        for shard in range(shards):
            made = distributed.new_group([t * shards + shard for t in range(self.teams)])
            self.peers = made if shard == self.shard else self.peers
        for name, axis in SHARDED.items():
            layer, kind = name.split(".")
            module = getattr(self.whole, layer)
            part = getattr(module, kind).detach().chunk(shards, axis)[self.shard].clone()
            setattr(module, kind, nn.Parameter(part))
        self.flat = Flat(self.whole.parameters())
        convolutions = [p for n, p in self.whole.named_parameters() if n.startswith("conv")]
        self.convolutional = sum(p.numel() for p in convolutions)

    def shares(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Films of a whole batch that the convolutions here see, and those that the group has in
        the order of its logits."""
        team = numbers[self.team :: self.teams]
        if self.replicated:
            return team, team
        parts = [team[shard :: self.shards] for shard in range(self.shards)]
        return parts[self.shard], np.concatenate(parts)

    def learn(self, numbers: NDArray[np.int64], divisor: float) -> None:
        """The gradient of a whole batch, as far as this process holds its weights."""
        self.flat.gradient.zero_()
        own, order = self.shares(numbers)
        logits = self.forward(self.task.films()[0][own])
        self.task.loss(logits, order, divisor).backward()
        convolutions = self.flat.gradient[: self.convolutional]
        dense = self.flat.gradient[self.convolutional :]
        if not self.replicated:
            self.wire.all_reduce(convolutions)
        elif self.teams > 1:
            self.wire.all_reduce(convolutions, self.peers)
        if self.teams > 1:
            self.wire.all_reduce(dense, self.peers)

    def forward(self, films: Tensor) -> Tensor:
        """Logits (n, 1) of the films of the group, the same in all its processes."""
        net: Any = self.whole
        features = torch.flatten(net.features(films), 1)
        meet = _Copy if self.replicated else _Gather
        a = F.relu(net.dense1(meet.apply(features, self.wire, self.group)))
        part = F.linear(a, net.dense2.weight)
        a = F.relu(_Sum.apply(part, self.wire, self.group) + net.dense2.bias)
        logits: Tensor = net.dense3(a)
        return logits


def split(member: Member, task: Task, shards: int, replicated: bool) -> dict[str, Any]:
    """Train with groups of ``shards`` processes that hold one network together."""
    model = Split(member, task, shards, replicated)
    track = begin(member, task, model, task.batch_of(0))
    for update in range(task.updates):
        model.learn(task.batch_of(update), task.batch)
        model.step()
        track.note(update + 1)
    return track.result()


def merge(task: Task, parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The weights of a whole network from those of the processes of one group."""
    whole, pieces, at = [], [torch.from_numpy(p) for p in parts], 0
    for name, parameter in task.network().named_parameters():
        axis = SHARDED.get(name)
        shape = list(parameter.shape)
        if axis is not None:
            shape[axis] //= len(parts)
        count = int(np.prod(shape))
        found = [piece[at : at + count].view(shape) for piece in pieces]
        whole.append(found[0] if axis is None else torch.cat(found, axis))
        at += count
    return torch.cat([w.reshape(-1) for w in whole]).numpy()
