"""Data-parallel training by torch's own engine: gloo between CPU processes, NCCL between GPUs.

Each process holds the whole network and takes its share of every global batch, and gradients are
summed (``hilum.training.exchange``). So the batch, the order, the augmentation and (but for
networks with batch statistics, which each process takes from its own share, or with dropout, whose
masks it draws for its own) the result are those of one process. A run of ``cpu:PxT`` or ``cuda:K``
starts its workers itself, each as ``python -m hilum.training.worker RUN``; under torchrun the
processes are there already.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

import hilum
from hilum import machine
from hilum.errors import HilumError, PlaceUnavailable, Refused
from hilum.machine import Place
from hilum.progress import tell
from hilum.training import optimiser
from hilum.training.exchange import ByMessages, Exchange, InMemory, in_memory
from hilum.training.factors import ByFactors, few
from hilum.training.meeting import STORE, choose_interface, meeting_place
from hilum.training.rollcall import RollCall, patience, rebuilt

#: What NCCL's own watchers leave to the roll call. A defect that one of them has told in torchrun's
#: store would end the rounds after a restart, eight minutes into each; a lost GPU's would abort its
#: process before hilum has said a line.
WATCHERS = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "0", "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0"}
ARRIVAL = 60.0  # seconds that a process has at least to start: on a busy machine torch loads long


class Group:
    """The processes that train together, as one of them sees it.

    Attributes
    ----------
    rank : this process's number; 0 alone writes and reports
    size : how many there are
    device : the device of this process
    by_factors : from :meth:`wrap`, what has dense layers of which each process moves its rows
    """

    def __init__(
        self, rank: int, size: int, device: torch.device, roll: RollCall | None = None
    ) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._roll = roll
        self._told = 0
        self._exchange: Exchange | None = None
        self.by_factors: ByFactors | None = None

    @property
    def roll(self) -> RollCall:
        """Who of the processes is here."""
        assert self._roll is not None, "a group that was never joined"
        return self._roll

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What ``make`` gives on rank 0, on every rank; what it raises there, everywhere.

        The others wait as long as it takes and rank 0 lives.
        """
        box: list[Any] = [None, None, None]
        if self.rank == 0:
            try:
                box[0] = make()
            except HilumError as error:
                box[1:] = [type(error).__name__, str(error)]
        self._told += 1
        self.roll.meet(f"told {self._told}", None)  # a collective would lose its patience
        distributed.broadcast_object_list(box, src=0, device=self.device)
        if box[1] is not None:
            raise rebuilt(box[1], box[2])
        return box[0]

    def share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The films of a global batch that this process takes."""
        return batch[self.rank :: self.size]

    def wrap(self, network: nn.Module, batch: int) -> nn.Module:
        """The network whose gradients are, behind the way back and :meth:`collect`, the mean of the
        processes'.

        On CPUs those of a dense layer go as factors where a global batch is of so few films that
        this is less, and everything goes through memory where the processes share one. There these
        layers' weights lie too, and each process is to move its rows of them.
        """
        if self.device.type == "cpu":
            network = self._exchanging(network, batch)
        with warnings.catch_warnings():
            # Its new name exists from torch 2.13 on; buffers are ours to agree on.
            warnings.simplefilter("ignore", FutureWarning)
            shared = nn.parallel.DistributedDataParallel(
                network, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        if isinstance(way := self._exchange, InMemory):
            shared.register_comm_hook(way, lambda to, bucket: to.average(bucket.buffer()))
        return shared

    def _exchanging(self, network: nn.Module, batch: int) -> nn.Module:
        """The network with what goes another way than torch's messages between CPUs."""
        weights, films = few(network, batch), -(-batch // self.size)
        gathered = [p.numel() for name, p in network.named_parameters() if name not in weights]
        gathered += [films * sum(weight.shape) for weight in weights.values()]
        held = [weight.numel() for weight in weights.values()] * (1 + optimiser.MOMENTS)
        self._exchange = in_memory(self, gathered, held, patience()) or ByMessages(self.size)
        if weights:
            self.by_factors = ByFactors(network, list(weights.values()), films, self._exchange)
            network, names = self.by_factors, [f"network.{name}" for name in weights]
            nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                network, names
            )
        return network

    def arrive(self) -> None:
        """The way back is over here: others need not wait for what this process does now."""
        if self._exchange is not None:
            self._exchange.arrive()

    def collect(self) -> None:
        """Wait for what the way back has left under way, if anything."""
        if self._exchange is not None:
            self._exchange.collect()
        if self.by_factors is not None:
            self.by_factors.collect()

    def meet(self) -> None:
        """Wait until all have moved what they move of the weights."""
        if self.by_factors is not None:
            self.by_factors.meet()

    def close(self) -> None:
        """Leave the exchange of gradients."""
        if self._exchange is not None:
            self._exchange.close()

    @contextmanager
    def alone(self, shared: Any) -> Iterator[None]:
        """Steps of what :meth:`wrap` gave that exchange no gradients, to see what they cost."""
        factored = nullcontext() if self.by_factors is None else self.by_factors.alone()
        with shared.no_sync(), factored:
            yield

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over the processes, element by element."""
        both = torch.from_numpy(values).to(self.device)
        distributed.all_reduce(both)
        return both.cpu().numpy()

    def gathered(self, values: NDArray[np.float64], places: NDArray[np.int64], n: int) -> Any:
        """(n,) values by film; each film is one process's, so none is counted twice."""
        mine = np.zeros(n)
        mine[places] = values
        return self.total(mine)

    def agree(self, network: nn.Module) -> None:
        """Make running statistics the mean of the processes', and equal what may have drifted."""
        for value in network.buffers():
            if value.is_floating_point():
                distributed.all_reduce(value)
                value /= self.size
        # Equal gradients move weights apart by rounding: where each process makes its own sums of
        # factors, and between two models of GPU or processor.
        weights = [weight.detach() for weight in network.parameters()]
        first = torch.cat([weight.flatten() for weight in weights])
        distributed.broadcast(first, 0)
        for weight, values in zip(weights, first.split([w.numel() for w in weights]), strict=True):
            weight.copy_(values.view(weight.shape))


def by_torchrun() -> bool:
    """Whether torchrun (or a like launcher) has started this process as one of several."""
    return STORE not in os.environ and machine.launched()


def take_device(place: Place) -> torch.device:
    """The device of this process of a group; a GPU becomes the one that torch means by default.

    Raises
    ------
    PlaceUnavailable
        There are fewer GPUs than processes here.
    """
    if place.kind != "cuda":
        return torch.device(place.device)
    # Launchers number the processes machine by machine.
    among = int(os.environ["RANK"]) % int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    number, have = int(os.environ.get("LOCAL_RANK", among)), torch.cuda.device_count()
    if number >= have:
        raise PlaceUnavailable(
            f"no GPU for process {number + 1} of this machine: {have} are seen. Start one process "
            "for each GPU (torchrun --nproc-per-node), with LOCAL_RANK=0 where each sees its own "
            "alone, or use --on cpu."
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined(place: Place) -> Iterator[Group]:
    """Join the group that the environment names: that of ``lead``, or torchrun's.

    Raises
    ------
    Refused
        The store where the processes meet cannot be reached or served, the others have begun
        without this one, or the processes differ in their versions of torch or hilum, or in the
        kind of processor.
    WorkerLost
        Another process did not come, died or fell silent.
    HilumError
        What another process has stopped for.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = take_device(place)
    cuda = place.kind == "cuda"
    seconds = patience()
    arrival = max(seconds, ARRIVAL)
    server, open_store = meeting_place(rank, arrival)
    # A collective of NCCL's cannot be broken off from Python: its process has to end.
    leave = _leave if cuda else None
    ended = False
    roll = RollCall(open_store, rank, size, seconds, at_silence=leave, arrival=arrival)
    try:
        # Other backends (gloo here, NCCL there) would wait for each other for ever.
        mine = {"torch": torch.__version__, "hilum": hilum.__version__, "processor": place.kind}
        same(roll, "versions", mine)
        choose_interface(roll, place.kind)
        if cuda:
            for name, value in WATCHERS.items():
                os.environ.setdefault(name, value)
        distributed.init_process_group(
            "nccl" if cuda else "gloo",
            store=roll.under(),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=seconds * (2 if cuda else 1)),
        )
        with closing(Group(rank, size, device, roll)) as together:
            yield together
        ended = True
    except HilumError as error:
        roll.tell(error)
        raise
    except Exception as error:
        if not _exchange_broke(error):
            roll.tell(error)
            raise
        raise roll.explain(error) from error
    finally:
        # NCCL leaves a group in step with all others, and would wait for them behind an error. The
        # end of the process ends it too.
        if distributed.is_initialized() and (ended or not cuda):
            distributed.destroy_process_group()
        roll.close()
        del server


def same(roll: RollCall, name: str, mine: dict[str, str]) -> None:
    """Refuse a group whose members differ in what they bring to a meeting of that name.

    Waits for all of them, as :meth:`RollCall.meet` does.

    Parameters
    ----------
    mine : what this process has, by the words for it

    Raises
    ------
    Refused, WorkerLost
    """
    everyone = roll.meet(name, mine)
    for rank, theirs in enumerate(everyone):
        for what, found in theirs.items():
            if found != everyone[0].get(what):
                raise Refused(
                    f"the processes differ in {what}: {roll.named([rank])} has {found}, rank 0 "
                    f"{everyone[0].get(what)}. Give every machine the same."
                )


def _exchange_broke(error: Exception) -> bool:
    """Whether torch says that another process is out of reach, rather than that we erred."""
    if isinstance(error, distributed.DistError):
        return True
    words = ("gloo", "nccl", "connection", "timed out", "peer", "broken pipe", "pair closure")
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in words)


def _leave(error: HilumError) -> None:
    """End this process at once, with a line for people and for the leader."""
    if STORE in os.environ:
        tell(error=type(error).__name__, text=str(error))
    else:
        sys.stderr.write(f"hilum: {error}\n")
        sys.stderr.flush()
    os._exit(error.exit_code)
