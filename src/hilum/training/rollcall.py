"""Who of a group is here, and who has fallen silent, kept in the store where its processes meet.

Each process tells the store that it is alive once a beat, from a thread of its own, and looks
whether the others still do. So a wait that is long for a good reason (one machine decodes its
films) ends only when someone has really gone, and when torch's exchange breaks, each process can
say whose silence broke it.

torchrun keeps one store for the whole job, with what the dead of earlier rounds have left in it.
A round therefore begins with a greeting: every process says hello under a name of its own, the
first one answers with the name of the new round, and everything after it is kept under that name.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from torch import distributed

from hilum import errors
from hilum.errors import HilumError, Refused, UsageError, WorkerLost

PATIENCE = "HILUM_PATIENCE"
SECONDS = 600.0
POLL = 0.05
UNDER_WAY = "hilum/round"  # where the store keeps the name of the round that began last
STORE_GONE = {
    "kind": "WorkerLost",
    "text": "the store where the processes meet is gone, with the machine or process that kept it "
    "(rank 0's). Start the training again there: it goes on from its last checkpoint.",
}
LEAVING = 10  # beats that a process is given to end by itself, once there is nothing to wait for
WHAT_TO_DO = f"Look at its machine ({PATIENCE} sets how many seconds it may be silent)"


def patience() -> float:
    """Seconds that a process waits for one that says nothing: ``$HILUM_PATIENCE``, or 600.

    Raises
    ------
    UsageError
    """
    text = os.environ.get(PATIENCE, str(SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"{PATIENCE} is not a number of seconds: {text}. Leave it out for 600.")
    return seconds


def rebuilt(kind: str, text: str) -> HilumError:
    """An error of ``hilum.errors`` from its name and message."""
    error = getattr(errors, kind, HilumError)(text)
    assert isinstance(error, HilumError)
    return error


class RollCall:
    """The processes of one round, as one of them sees them.

    Parameters
    ----------
    open_store : a new connection to the store: one for this process, one for its pulse, since a
        connection that waits lets nobody else through
    rank, size : this process's number, and how many there are
    seconds : how long one may be silent
    arrival : how long one may take to come; ``seconds`` where None
    at_silence : called from the pulse's thread when one has been silent for longer than that, has
        left word of why it stopped, or has taken the store with it, and this process has not ended
        by itself ten beats later; for an exchange that cannot be broken off from within

    Attributes
    ----------
    advice : what to do after a loss, for the end of a message
    hosts : the machine of each rank

    Raises
    ------
    WorkerLost
        Not all have come in time.
    Refused
        The others are at work already.
    """

    def __init__(
        self,
        open_store: Callable[[], distributed.Store],
        rank: int,
        size: int,
        seconds: float,
        at_silence: Callable[[HilumError], None] | None = None,
        arrival: float | None = None,
    ) -> None:
        self.rank, self.size, self.seconds = rank, size, seconds
        self.arrival = seconds if arrival is None else arrival
        self.advice = WHAT_TO_DO
        self._at_silence = at_silence
        # A thousand processes that read a thousand pulses each second would keep a store busy.
        self.beat = max(min(1.0, seconds / 10), size / 64)
        self.store, self._line = open_store(), open_store()
        self.round = self._welcome() if rank == 0 else self._introduce()
        self.hosts = [platform.node()] * size
        self._seen = [time.monotonic()] * size
        self._word: dict[str, str] | None = None
        self._stop = threading.Event()
        self._line.set(f"{self.round}/pulse/{rank}", "0")
        self._pulse = threading.Thread(target=self._keep, daemon=True)
        self._pulse.start()
        self.hosts = self.meet("host", platform.node())

    def under(self) -> distributed.Store:
        """The store as torch's engine uses it, apart from what other rounds have left."""
        self.store.set_timeout(timedelta(seconds=self.seconds))
        return distributed.PrefixStore(f"{self.round}/torch", self.store)

    def meet(self, name: str, value: Any) -> list[Any]:
        """What every process brings to a meeting of that name, by rank; waits for all of them.

        However long it takes, as long as those who are missing are alive.

        Raises
        ------
        WorkerLost
            One of those who are missing has fallen silent.
        HilumError
            What one of them has stopped for.
        """
        self.store.set(f"{self.round}/{name}/{self.rank}", json.dumps(value))
        names = [f"{self.round}/{name}/{rank}" for rank in range(self.size)]
        while not self.store.check(names):
            if self._word is not None:
                raise rebuilt(**self._word)
            if silent := self.silent(self.seconds):
                raise self.lost(silent)
            time.sleep(POLL)
        return [json.loads(self.store.get(name)) for name in names]

    def remember(self, name: str, value: str) -> None:
        """Keep something for the rounds that follow in this store, after a restart."""
        self.store.set(f"hilum/kept/{name}", value)

    def recall(self, name: str) -> str | None:
        """What an earlier round has kept."""
        key = f"hilum/kept/{name}"
        return self.store.get(key).decode() if self.store.check([key]) else None

    def tell(self, error: BaseException) -> None:
        """Leave word of why this process stops, for those who will miss it."""
        kind, text = type(error).__name__, str(error)
        if not isinstance(error, HilumError):
            kind = WorkerLost.__name__
            text = f"{self.named([self.rank])} has stopped: {type(error).__name__}. See its output."
        try:
            self.store.set(f"{self.round}/word", json.dumps({"kind": kind, "text": text}))
            time.sleep(2 * POLL)  # the word arrives before the connections break
        except RuntimeError:
            return  # the store has gone too, so nobody could read it

    def explain(self, error: Exception) -> HilumError:
        """Why torch's exchange broke: a process's own word, a silence, or torch's own words."""
        until = time.monotonic() + 4 * self.beat
        try:
            while time.monotonic() < until:
                if self._word is not None:
                    return rebuilt(**self._word)
                if self.silent(2.5 * self.beat):
                    # On a busy machine others may be a little late: those silent longest are meant.
                    longest = max(time.monotonic() - seen for seen in self._seen)
                    return self.lost(self.silent(max(2.5 * self.beat, longest / 2)))
                time.sleep(POLL)
        except KeyboardInterrupt:  # torchrun ends all processes of a machine that has lost one
            return WorkerLost(f"another process of the group was lost. {self.advice}.")
        said, _, cause = str(error).partition("Last error:")  # which NCCL writes before the cause
        why = (cause.strip() or said.strip() or repr(error)).splitlines()[0][:200].rstrip(".")
        if not cause.strip():
            why += ". One of them is stuck, or a network between them is down"
        return WorkerLost(
            f"the processes lost touch, though each of them still answers: {why}. {self.advice}."
        )

    def silent(self, seconds: float) -> list[int]:
        """The ranks that have not been heard of for so long."""
        now = time.monotonic()
        return [k for k, seen in enumerate(self._seen) if k != self.rank and now - seen > seconds]

    def named(self, ranks: Sequence[int]) -> str:
        """``rank 1 of 2 (on node-b)``."""
        hosts = ", ".join(sorted({self.hosts[rank] for rank in ranks}))
        many = "s" if len(ranks) > 1 else ""
        return f"rank{many} {', '.join(map(str, ranks))} of {self.size} (on {hosts})"

    def lost(self, silent: Sequence[int]) -> WorkerLost:
        """The error for those who say nothing any more."""
        quiet = min(time.monotonic() - self._seen[rank] for rank in silent)
        return WorkerLost(
            f"a training process says nothing any more: {self.named(silent)}, for {quiet:.0f} s. "
            f"{self.advice}."
        )

    def close(self) -> None:
        """Let the pulse end; from now on the others hear nothing of this process."""
        self._stop.set()
        self._pulse.join(2 * self.beat)

    # --- the greeting ---------------------------------------------------------------------------

    def _welcome(self) -> str:
        """Rank 0's part: the name of this round, when everybody has answered to it."""
        name = f"hilum/{uuid.uuid4().hex}"
        missing = set(range(1, self.size))
        for _ in self._while_waiting(lambda: missing):
            for rank in sorted(missing):
                if self.store.check([f"{name}/here/{rank}"]):
                    missing.discard(rank)
                elif self.store.check([f"hilum/hello/{rank}"]):
                    hello = self.store.get(f"hilum/hello/{rank}").decode()  # of a dead one, maybe
                    self.store.set(f"hilum/welcome/{hello}", name)
            if not missing:
                break
        self.store.set(UNDER_WAY, name)
        self.store.set(f"{name}/go", "")
        return name

    def _introduce(self) -> str:
        """The part of all others."""
        me = uuid.uuid4().hex
        self.store.set(f"hilum/hello/{self.rank}", me)
        heard: set[tuple[str, bytes]] = set()
        for _ in self._while_waiting(lambda: {0}):
            if self.store.check([f"hilum/welcome/{me}"]):
                break
            heard |= self._at_work()
            if len(heard) > 2:  # a pulse that moves; a dead round's stands still
                raise Refused(
                    f"the training is under way without this process: rank {self.rank} of "
                    f"{self.size} comes too late, or a second time. Leave it out, or end the "
                    "others and start all of them again: a run goes on from its last checkpoint."
                )
        name = self.store.get(f"hilum/welcome/{me}").decode()
        self.store.set(f"{name}/here/{self.rank}", "")

        def missing() -> set[int]:
            others = set(range(1, self.size)) - {self.rank}
            return {k for k in others if not self.store.check([f"{name}/here/{k}"])} or {0}

        for _ in self._while_waiting(missing):
            if self.store.check([f"{name}/go"]):
                break
        return name

    def _at_work(self) -> set[tuple[str, bytes]]:
        """The last round that began, with the last beat of its rank 0; empty before the first."""
        if not self.store.check([UNDER_WAY]):
            return set()
        name = self.store.get(UNDER_WAY).decode()
        pulse = f"{name}/pulse/0"
        return {(name, self.store.get(pulse))} if self.store.check([pulse]) else set()

    def _while_waiting(self, missing: Callable[[], set[int]]) -> Iterator[None]:
        until = time.monotonic() + self.arrival
        while time.monotonic() < until:
            yield
            time.sleep(POLL)
        ranks = ", ".join(map(str, sorted(missing())))
        raise WorkerLost(
            f"the group is not complete: rank {ranks} of {self.size} has not come within "
            f"{self.arrival:.0f} s. Start hilum there too, or give it more time ({PATIENCE})."
        )

    # --- the pulse ------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Tell of this process and look after the others, once a beat."""
        names = [f"{self.round}/pulse/{rank}" for rank in range(self.size)]
        before: list[bytes | None] = [None] * self.size
        beats = 0
        while not self._stop.wait(self.beat):
            beats += 1
            try:
                self._line.set(names[self.rank], str(beats))
                for rank, name in enumerate(names):
                    pulse = self._line.get(name) if self._line.check([name]) else None
                    if pulse != before[rank]:
                        before[rank], self._seen[rank] = pulse, time.monotonic()
                if self._word is None and self._line.check([f"{self.round}/word"]):
                    self._word = json.loads(self._line.get(f"{self.round}/word"))
            except RuntimeError:
                self._word = self._word or STORE_GONE
            if self._word is not None:
                # At an orderly end the store goes, too, while some are still on their way out.
                if self._at_silence is not None and not self._stop.wait(LEAVING * self.beat):
                    self._at_silence(rebuilt(**self._word))
                return
            silent = self.silent(self.seconds + 2 * self.beat)
            if silent and self._at_silence is not None:
                self._at_silence(self.lost(silent))
