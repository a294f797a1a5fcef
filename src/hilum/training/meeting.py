"""Where the processes of a group meet: the store's address, and the network that reaches it."""

from __future__ import annotations

import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from torch import distributed

from hilum import machine
from hilum.errors import Refused
from hilum.training.rollcall import PATIENCE, RollCall

STORE = "HILUM_STORE"
#: What tells torch's engines which network to speak over, and how NCCL is told a whole name.
INTERFACES = {"cpu": ("GLOO_SOCKET_IFNAME", ""), "cuda": ("NCCL_SOCKET_IFNAME", "=")}
SIOCGIFADDR = 0x8915  # linux/sockios.h


def member(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment of a process that this one starts, as one of a group on this machine whose
    store listens at ``port``."""
    group = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    group[STORE] = f"127.0.0.1:{port}"
    return machine.own_environment() | group


def meeting_place(
    rank: int, seconds: float
) -> tuple[distributed.Store | None, Callable[[], distributed.Store]]:
    """The store where the processes of a group find each other.

    Returns
    -------
    the store's server, where this process has to keep it, and what opens a connection to it

    Raises
    ------
    Refused
        The port is taken, or nothing answers there within ``seconds``.
    """
    served = STORE in os.environ or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if STORE in os.environ:
        host, _, port = os.environ[STORE].partition(":")
    else:
        host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            named = f"MASTER_ADDR is {host!r}, MASTER_PORT {port!r}"
            raise Refused(
                f"the launcher names no place to meet: {named}. Start hilum under torchrun, or "
                "set them to the first machine and a free port of it, 1 to 65535."
            )
        try:
            socket.getaddrinfo(host, int(port))
        except OSError as error:
            raise Refused(
                f"the place where the processes should meet has no address: {host} "
                f"({error.strerror or error}). Set MASTER_ADDR to the first machine's name or "
                "address (torchrun --master-addr)."
            ) from error
    server = None
    if rank == 0 and not served:
        wait = timedelta(seconds=seconds)
        try:
            server = distributed.TCPStore(
                host, int(port), is_master=True, wait_for_workers=False, timeout=wait
            )
        except RuntimeError as error:
            why = "it is in use" if "in use" in str(error) else str(error).splitlines()[0]
            raise Refused(
                f"the port where the processes should meet cannot be served: {host}:{port} "
                f"({why}). Choose another (torchrun --master-port, or MASTER_PORT)."
            ) from error
    _reach(host, int(port), seconds)

    def open_store() -> distributed.Store:
        return _opened(host, int(port), seconds)

    return server, open_store


def _reach(host: str, port: int, seconds: float) -> None:
    """Wait until somebody listens there: torch's own attempts fill pages before they end."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=min(5.0, seconds)).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise _unreachable(host, port, error.strerror or str(error)) from error
        time.sleep(0.1)


def _opened(host: str, port: int, seconds: float) -> distributed.Store:
    """A connection to the store there; in a thread, since torch waits without end for a server that
    accepts and says nothing."""
    found: queue.SimpleQueue[distributed.Store | RuntimeError] = queue.SimpleQueue()

    def connect() -> None:
        wait = timedelta(seconds=seconds)
        try:
            found.put(distributed.TCPStore(host, port, wait_for_workers=False, timeout=wait))
        except RuntimeError as error:
            found.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        store = found.get(timeout=seconds)
    except queue.Empty:
        why = f"what listens there has not answered for {seconds:g} s"
        raise _unreachable(host, port, why) from None
    if isinstance(store, RuntimeError):
        raise _unreachable(host, port, str(store).splitlines()[0]) from store
    return store


def _unreachable(host: str, port: int, why: str) -> Refused:
    return Refused(
        f"the place where the processes meet cannot be reached: {host}:{port} ({why}). Start the "
        "first machine (again, if it has waited too long), open the port, or give it more time "
        f"({PATIENCE})."
    )


def choose_interface(roll: RollCall, kind: str) -> None:
    """Let torch's engine speak over the network that reaches the other machines.

    Left alone gloo takes the interface of the machine's own name, which many systems map to
    loopback, where no other machine can reach it, and NCCL the first that is neither that nor
    docker's: a bridge or a tunnel, maybe. Every process tells all addresses of its machine, the
    one towards the meeting place first.

    Parameters
    ----------
    kind : of place: ``cpu`` or ``cuda``
    """
    variable, whole = INTERFACES[kind]
    mine = _interfaces()
    first = _address_towards(os.environ.get("MASTER_ADDR", ""))
    told = sorted(mine, key=lambda address: address != first)
    for theirs in roll.meet("addresses", " ".join(told)):
        for address in theirs.split():
            # An address that is mine as well belongs to this machine, or to a bridge inside.
            if address not in mine and (found := _address_towards(address)) in mine:
                os.environ.setdefault(variable, f"{whole}{mine[found]}")
                return


def _address_towards(host: str) -> str:
    """This machine's IPv4 address on the way to a host; empty where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _interfaces() -> dict[str, str]:
    """The network interface of each IPv4 address of this machine, loopback left out (Linux)."""
    if sys.platform != "linux":
        return {}
    import fcntl

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:  # an interface without an address
                continue
            address = socket.inet_ntoa(answer[20:24])
            if not address.startswith("127."):
                found[address] = name
    return found
