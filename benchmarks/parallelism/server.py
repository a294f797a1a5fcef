"""A parameter server: it alone holds the weights; workers fetch them and bring gradients.

Asynchronous SGD (Dean et al. 2012, *Large scale distributed deep networks*): the server applies
each gradient when it comes, to weights that others may have changed since they were fetched. The
number of such changes is the gradient's staleness. An answer carries the weights and the number of
the batch to compute next, so every batch is computed and applied exactly once; -1 ends a worker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from group import Member
from task import Model, Task, Track
from torch import Tensor, distributed

END = -1
# From the weights in an answer and a batch's number to the gradient.
Compute = Callable[[Tensor, int], Tensor]


def asynchronous(member: Member, task: Task) -> dict[str, Any]:
    """Process 0 serves, the others compute gradients of whole batches."""
    model = Model(task)
    model.learn(task.batch_of(0), task.batch)  # a warm-up that is thrown away
    distributed.barrier()
    if member.rank == 0:
        return serve(member, task, model.flat.weights)

    def compute(weights: Tensor, update: int) -> Tensor:
        model.flat.weights.copy_(weights)
        model.learn(task.batch_of(update), task.batch)
        return model.flat.gradient

    return work(member, len(model.flat.weights), compute)


def waiting(member: Member, task: Task, think: float) -> dict[str, Any]:
    """The same with workers that sleep ``think`` seconds where they would compute.

    They need no core, so the server's own service is what is measured, and how long gradients wait
    for it, however many workers there are.
    """
    weights = Model(task).flat.weights
    distributed.barrier()
    if member.rank == 0:
        return serve(member, task, weights)
    gradient = torch.zeros_like(weights)

    def compute(weights: Tensor, update: int) -> Tensor:
        time.sleep(think)
        return gradient

    return work(member, len(weights), compute)


def serve(member: Member, task: Task, weights: Tensor) -> dict[str, Any]:
    """Apply ``task.updates`` gradients in order of arrival."""
    brought, answer = torch.empty(len(weights) + 1), torch.empty(len(weights) + 1)
    fetched = [0] * member.size  # by worker: updates that were in the weights it computes with
    applied: list[int] = []
    stale: list[int] = []
    handed_out = 0

    def give(worker: int) -> None:
        nonlocal handed_out
        answer[:-1] = weights
        answer[-1] = handed_out if handed_out < task.updates else END
        handed_out += 1
        fetched[worker] = len(applied)
        member.wire.send(answer, worker)

    for worker in range(1, member.size):
        give(worker)
    track = Track(task, weights, member.wire)
    while len(applied) < task.updates:
        worker = member.wire.receive(brought)
        weights.sub_(brought[:-1], alpha=task.rate)
        stale.append(len(applied) - fetched[worker])
        applied.append(int(brought[-1]))
        track.note(len(applied))
        give(worker)
    return track.result(staleness=stale, applied=applied)


def work(member: Member, count: int, compute: Compute) -> dict[str, Any]:
    """Fetch, compute, bring, until the server ends it; ``trips`` are seconds from a gradient's
    going out to the weights' coming back."""
    message = torch.empty(count + 1)
    trips: list[float] = []
    begun = time.process_time()
    member.wire.receive(message, 0)
    while (update := int(message[-1])) != END:
        message[:-1] = compute(message[:-1], update)
        gone = time.perf_counter()
        member.wire.send(message, 0)
        member.wire.receive(message, 0)
        trips.append(time.perf_counter() - gone)
    return {"sent": member.wire.sent, "trips": trips, "cpu": time.process_time() - begun}


def largest_rate(staleness: int) -> float:
    """Rate × curvature up to which descent with gradients so many updates old does not diverge.

    On a quadratic, w ← w − rate · curvature · (w of ``staleness`` updates ago): 2 without; from
    the roots of z^(s+1) − z^s + rate · curvature on the unit circle.
    """
    return 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))


def queue_times(service: float, think: float, workers: int) -> list[float]:
    """Mean round trip for 1 to ``workers`` by queueing theory, in the unit of ``service``.

    One server, exponential service, workers that think in between: exact mean-value analysis of
    the closed network (Reiser & Lavenberg 1980). Where service times do not vary, trips are
    shorter, but never under ``max(service, workers * service - think)``.
    """
    trips, queue = [], 0.0
    for count in range(1, workers + 1):
        trips.append(service * (1 + queue))
        queue = count * trips[-1] / (trips[-1] + think)
    return trips
