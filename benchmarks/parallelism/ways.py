"""Ways to train with several processes that each hold the whole network.

Each is a function of a group's member and a task. "Whole batch" is ``task.batch`` films over all
processes; where an update is one process's own (Hogwild, the parameter server), it is of the whole
batch too: every update of every way has seen as many films, so that updates can be compared.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from group import Member
from numpy.typing import NDArray
from task import Model, Task, Track
from torch import Tensor, distributed, nn

BUCKET = 0.125  # MiB: the gradients of the dense layers go first, in a bucket of their own


def begin(member: Member, task: Task, model: Model, numbers: NDArray[np.int64]) -> Track:
    """One gradient that is thrown away, as a warm-up; then all begin together."""
    model.learn(numbers, task.batch)
    distributed.barrier()
    return Track(task, model.flat.weights, member.wire)


def alone(member: Member, task: Task) -> dict[str, Any]:
    """One process."""
    model = Model(task)
    track = begin(member, task, model, task.batch_of(0))
    for update in range(task.updates):
        model.learn(task.batch_of(update), task.batch)
        model.step()
        track.note(update + 1)
    return track.result()


def after(member: Member, task: Task) -> dict[str, Any]:
    """Synchronous SGD: the gradient is summed over the processes when it is complete."""
    model = Model(task)
    track = begin(member, task, model, member.share(task.batch_of(0)))
    for update in range(task.updates):
        model.learn(member.share(task.batch_of(update)), task.batch)
        member.wire.all_reduce(model.flat.gradient)
        model.step()
        track.note(update + 1)
    return track.result()


def overlapped(member: Member, task: Task) -> dict[str, Any]:
    """Synchronous SGD: gradients are summed in buckets while the way back goes on.

    torch's DistributedDataParallel; its hook does what it does by itself (Li et al. 2020, *PyTorch
    Distributed*), and counts. Here the sum is wanted, not the mean.
    """
    model = Model(task)

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch wants types or none
        work = member.wire.all_reduce(bucket.buffer(), wait=False)
        return work.get_future().then(lambda done: done.value()[0])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = nn.parallel.DistributedDataParallel(
            model.network, bucket_cap_mb=BUCKET, broadcast_buffers=False
        )
    wrapped.register_comm_hook(None, hook)
    model.network = wrapped
    # DDP orders its buckets anew after the first way back, which is the warm-up.
    track = begin(member, task, model, member.share(task.batch_of(0)))
    for update in range(task.updates):
        model.learn(member.share(task.batch_of(update)), task.batch)
        model.step()
        track.note(update + 1)
    return track.result()


def periodic(member: Member, task: Task, period: int, together: int) -> dict[str, Any]:
    """Post-local SGD (Lin et al. 2020): weights are averaged once in ``period`` updates.

    The first ``together`` updates are averaged each time. Each process steps by the mean gradient
    of its share; averaging every time is then synchronous SGD.
    """
    model = Model(task)
    track = begin(member, task, model, member.share(task.batch_of(0)))
    share = task.batch / member.size
    for update in range(task.updates):
        model.learn(member.share(task.batch_of(update)), share)
        model.step()
        done = update + 1
        if done <= together or done % period == 0 or done == task.updates:
            member.wire.all_reduce(model.flat.weights)
            model.flat.weights.div_(member.size)
        track.note(done)
    return track.result()


def neighbour(rank: int, update: int, size: int) -> int:
    """The other of a pair on a ring of an even number: to the right and to the left in turn."""
    return (rank + (1 if (rank + update) % 2 == 0 else -1)) % size


def meet(member: Member, weights: Tensor, update: int) -> None:
    """Put the mean of one's own and the neighbour's into ``weights``; the mean over all stays."""
    theirs = member.wire.exchange(weights, neighbour(member.rank, update, member.size))
    weights.add_(theirs).div_(2)  # a + b is b + a to the bit: the pair agrees


def gossip(member: Member, task: Task) -> dict[str, Any]:
    """Each process averages its weights with one neighbour on a ring after each update of its own.

    D-PSGD (Lian et al. 2017) with pairs. With two processes it would be synchronous SGD.
    """
    model = Model(task)
    track = begin(member, task, model, member.share(task.batch_of(0)))
    share = task.batch / member.size
    for update in range(task.updates):
        model.learn(member.share(task.batch_of(update)), share)
        model.step()
        meet(member, model.flat.weights, update)
        track.note(update + 1)
    return track.result()


def hogwild(member: Member, task: Task) -> dict[str, Any]:
    """Lock-free updates of one shared memory (Recht et al. 2011).

    The parameters of every process are the same memory: read while another writes, written without
    a lock. Process r takes batches r, r + P, ...; an update's staleness is how many updates of
    others came between the start of its gradient and its own writing.
    """
    count = sum(p.numel() for p in task.network().parameters())
    memory = torch.from_file(str(member.folder / "weights"), shared=True, size=count)
    done = torch.from_file(
        str(member.folder / "done"), shared=True, size=member.size, dtype=torch.int64
    )
    if member.rank == 0:
        memory.copy_(Model(task).flat.weights)
        done.zero_()
    distributed.barrier()
    model = Model(task, memory)
    track = begin(member, task, model, task.batch_of(0))
    stale = []
    for update in range(member.rank, task.updates, member.size):
        before = int(done.sum())
        model.learn(task.batch_of(update), task.batch)
        model.step()
        stale.append(int(done.sum()) - before)
        done[member.rank] += 1
        if member.rank == 0:
            track.note(int(done.sum()))
    distributed.barrier()
    if member.rank == 0:
        track.note(int(done.sum()))
    return track.result(staleness=stale, done=done.tolist())
