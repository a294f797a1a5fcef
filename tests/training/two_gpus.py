"""Two GPUs that are none, for every Python that finds this file as ``sitecustomize``.

What torch says of them is made up, a CPU computes what they would, and gloo carries what NCCL
would; all else of ``cuda:2`` is as it is there: its leader, its workers, their devices, their
learner and its eager steps. Which GPU a process took goes into the file that ``TAKEN`` names.
``LOST`` is the rank of a process that is killed in its third epoch, ``BROKEN`` of one that has a
defect there, ``STREAMED`` leaves no room for films on a GPU.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import cuda, distributed

from hilum.machine import Place
from hilum.training import group
from hilum.training.gpu import CudaLearner

GPUS, MEMORY = 2, 8 << 30

told: dict[str, Any] = {
    "is_available": True, "device_count": GPUS, "is_bf16_supported": True, "is_initialized": False,
    "mem_get_info": (MEMORY, MEMORY), "memory_reserved": 0, "memory_allocated": 0,
    "max_memory_allocated": 0, "empty_cache": None, "synchronize": None,
    "get_device_name": "a GPU that is none", "get_device_capability": (8, 0),
    "get_device_properties": SimpleNamespace(name="a GPU that is none", total_memory=MEMORY),
}  # fmt: skip
for name, answer in told.items():
    setattr(cuda, name, lambda *_, answer=answer, **__: answer)


def set_device(device: torch.device) -> None:
    with Path(os.environ["TAKEN"]).open("a") as stream:
        stream.write(f"{os.environ['RANK']} {device}\n")


def take_device(place: Place, taken: Any = group.take_device) -> torch.device:
    taken(place)
    return torch.device("cpu")


def meet(backend: str, meeting: Any = distributed.init_process_group, **given: Any) -> None:
    meeting({"nccl": "gloo"}[backend], **given)


def leave(leaving: Any = distributed.destroy_process_group) -> None:
    """In step with all others, as NCCL leaves; without them it waits."""
    try:
        distributed.barrier()
    except RuntimeError:
        time.sleep(600)
    leaving()


def begin(
    self: CudaLearner, films: Any, epoch: int, *plan: Any, beginning: Any = CudaLearner.begin
) -> None:
    if epoch == 2 and os.environ.get("RANK") == os.environ.get("LOST", "none"):
        os.kill(os.getpid(), signal.SIGKILL)
    if epoch == 2 and os.environ.get("RANK") == os.environ.get("BROKEN", "none"):
        raise KeyError("planted")
    beginning(self, films, epoch, *plan)


cuda.set_device = set_device  # type: ignore[assignment]
group.take_device = take_device
group.Group._exchanging = lambda self, network, batch: network  # type: ignore[method-assign]
distributed.init_process_group = meet
distributed.destroy_process_group = leave
CudaLearner.begin = begin  # type: ignore[method-assign]
CudaLearner._room = lambda self: 0 if "STREAMED" in os.environ else sys.maxsize  # type: ignore[method-assign]
Place.device = property(lambda self: "cpu")  # type: ignore[assignment,method-assign]
