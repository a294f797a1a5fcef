"""Processes and machines for the scaling benchmarks: trainees, and slowed networks.

Two "machines" are network namespaces joined by a cable: a veth pair, whose rate the kernel's
token bucket may limit, or two TUN devices with a relay between them that holds every packet back
for a while (the kernel's own netem is not everywhere). Linux, root and iproute2 are needed for
those; loopback needs nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

WORKER = Path(__file__).parent / "peers" / "scaling_worker.py"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
MTU = 60_000  # of the held-back cable: few packets, so that the relay costs little


class Trainees(AbstractContextManager["Trainees"]):
    """The processes of one training, one or several; they work when asked.

    Parameters
    ----------
    place : of hilum's, for example ``cpu:2x1``
    inside : for each process, the command that puts it into its machine
    address : where the processes meet
    apart : two processes that know nothing of each other
    """

    def __init__(
        self,
        recipe: str,
        place: str,
        films: Path,
        *,
        inside: Sequence[Sequence[str]] = (),
        address: str = "127.0.0.1",
        apart: int = 0,
    ) -> None:
        count = apart or (int(place.split(":")[1].split("x")[0]) if "x" in place else 1)
        self.name = f"{apart} × {place}, apart" if apart else place
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        self.processes: list[subprocess.Popen[str]] = []
        self._files = ExitStack()
        # Not pipes: nobody reads what the processes complain of while they work.
        self._errors = [
            self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
            for _ in range(count)
        ]
        try:
            for rank, errors in enumerate(self._errors):
                own = {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": address,
                       "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}  # fmt: skip
                command = [sys.executable, str(WORKER), recipe, place, str(films)]
                self.processes.append(
                    subprocess.Popen(
                        [*(inside[rank] if inside else ()), *command],
                        env={**os.environ, **(own if count > 1 and not apart else {})},
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                    )
                )
            self.hello = self._answers()[0]
        except BaseException:
            self._end(kill=True)
            raise

    def ask(self, **what: Any) -> list[dict[str, Any]]:
        """What each of the processes answers; all of them work at once."""
        for process in self.processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended, which its silence will tell
                process.stdin.write(json.dumps(what) + "\n")
                process.stdin.flush()
        return self._answers()

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._end(kill=failure is not None)

    def _answers(self) -> list[dict[str, Any]]:
        found = []
        for process, errors in zip(self.processes, self._errors, strict=True):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise SystemExit(f"{self.name} has ended:\n{errors.read()}")
            found.append(json.loads(line))
        return found

    def _end(self, kill: bool) -> None:
        for process in self.processes if kill else ():
            process.kill()
        for process in self.processes:
            process.communicate()  # closes its input, which ends it
        self._files.close()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def two_machines(
    megabits: float = 0, milliseconds: float = 0
) -> Iterator[tuple[list[list[str]], str]]:
    """Two namespaces and a cable between them.

    Parameters
    ----------
    megabits : a second and direction, by the kernel's token bucket; 0 for no limit
    milliseconds : that each packet is held back

    Yields
    ------
    the commands that put a process into each machine, and the first one's address
    """
    names = [f"hilum-bench-{os.getpid()}-{x}" for x in "ab"]
    relay = None
    try:
        for name in names:
            ip("netns", "add", name)
        if milliseconds:
            devices = [_tun(name, f"v{x}") for name, x in zip(names, "ab", strict=True)]
            relay = os.fork()
            if relay == 0:
                try:
                    _relay(devices, milliseconds / 1e3)
                except OSError:
                    traceback.print_exc()
                finally:
                    os._exit(1)  # never back into the caller's own work
            for device in devices:
                os.close(device)
        else:
            ip("link", "add", "va", "netns", names[0], "type", "veth", "peer", "name", "vb",
               "netns", names[1])  # fmt: skip
        for k, name in enumerate(names):
            device = f"v{'ab'[k]}"
            ip("-n", name, "addr", "add", f"10.78.0.{k + 1}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
            if megabits:
                limit = f"tbf rate {megabits}mbit burst 128kb latency 400ms"
                tc = ["tc", "-n", name, "qdisc", "add", "dev", device, "root", *limit.split()]
                subprocess.run(tc, check=True, capture_output=True)
        yield [["ip", "netns", "exec", name] for name in names], "10.78.0.1"
    finally:
        if relay:
            os.kill(relay, 9)
            os.waitpid(relay, 0)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _tun(namespace: str, name: str) -> int:
    """A TUN device, made here and moved into a namespace; whoever holds it is the cable."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    made = f"{name}-{os.getpid()}"
    request = struct.pack("16sH22x", made.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(device, TUNSETIFF, request)
    ip("link", "set", made, "netns", namespace, "name", name, "mtu", str(MTU))
    return device


def _relay(devices: list[int], delay: float) -> None:
    """Carry packets from one device to the other, each so many seconds late; until killed."""
    waiting: list[deque[tuple[float, bytes]]] = [deque(), deque()]
    ready = selectors.DefaultSelector()
    for k, device in enumerate(devices):
        ready.register(device, selectors.EVENT_READ, k)
    while True:
        due = [queue[0][0] for queue in waiting if queue]
        pause = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in ready.select(pause):
            try:
                packet = os.read(devices[key.data], MTU + 100)
            except BlockingIOError:
                continue
            waiting[key.data].append((time.monotonic() + delay, packet))
        now = time.monotonic()
        for k, queue in enumerate(waiting):
            while queue and queue[0][0] <= now:
                try:
                    os.write(devices[1 - k], queue[0][1])
                except BlockingIOError:
                    break
                except OSError:
                    pass  # not up yet: lost, as on a real cable
                queue.popleft()
