"""What an exchange of gradients takes: gloo's ring, over TCP as Linux speaks it.

Nothing here is fitted: the constants are those of gloo's and Linux's sources.

gloo (``allreduce.cc``, ``transport/tcp/pair.cc``): a message does not leave before its receiver
has said that it is ready, so each costs a round trip, not one way. A worker's part is sent in
segments of 1 MiB at most, two of them under way at a time; the third is asked for when the first is
there.

TCP: a long cable is not filled at once.

- ``cubic``, Linux's default: a connection that was idle for longer than its retransmission timeout
  begins anew with 10 segments (RFC 6928; RFC 2861, ``tcp_slow_start_after_idle``) and doubles them
  each round trip.
- ``bbr`` (Cardwell et al. 2016, https://doi.org/10.1145/3012426.3022184; ``tcp_bbr.c``) does not,
  but paces: it sends at 2.885 = 2 / ln 2 times the rate at which its largest burst was delivered.
- Neither has more under way than the send buffer holds (``tcp_wmem``: 4 MiB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SEGMENT, IN_FLIGHT = 1 << 20, 2  # bytes; segments under way (gloo's kMaxSegmentSize; its loop)
FIRST_WINDOW = 10  # TCP segments (TCP_INIT_CWND)
LEAST_TIMEOUT = 0.2  # seconds over the round trip (TCP_RTO_MIN)
SEND_BUFFER = 4 << 20  # bytes (tcp_wmem)
GAIN = 2885 / 1000  # bbr_high_gain


@dataclass(frozen=True)
class Network:
    """What one worker sees of it.

    Attributes
    ----------
    bytes_a_second : of one worker's link, in each direction
    latency : seconds from one worker to the next, one way, software included
    control : TCP's congestion control, ``cubic`` or ``bbr``
    packet : bytes of a TCP segment: Ethernet's 1,500 less headers
    """

    name: str
    bytes_a_second: float
    latency: float
    control: str = "cubic"
    packet: int = 1448


def exchange_seconds(
    workers: int, size: float, network: Network, *, burst: float = 0.0, idle: float = 0.0
) -> float:
    """A ring all-reduce of ``size`` bytes: 2 (n - 1) messages of size / n, one after another.

    Each worker sends 2 (n - 1) / n times the bytes, whatever the number of workers (Patarasuk and
    Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002).

    Parameters
    ----------
    burst : bytes of the largest message on these connections, where it is not this one's
    idle : seconds for which they have been silent
    """
    if workers == 1:
        return 0.0
    message = size / workers
    one = message_seconds(message, network, max(burst, message))
    return 2 * (workers - 1) * one + slow_start_seconds(message, network, idle)


def gather_seconds(workers: int, share: float, network: Network, *, idle: float = 0.0) -> float:
    """A ring all-gather of ``share`` bytes of each worker: n - 1 messages, one after another."""
    if workers == 1:
        return 0.0
    one = message_seconds(share, network, share)
    return (workers - 1) * one + slow_start_seconds(share, network, idle)


def message_seconds(size: float, network: Network, burst: float) -> float:
    """One message, asked for and sent, on a connection whose largest has ``burst`` bytes."""
    trips = math.ceil(size / (IN_FLIGHT * SEGMENT)) * 2 * network.latency
    return trips + size / sending_rate(network, burst)


def sending_rate(network: Network, burst: float) -> float:
    """Bytes a second at which messages leave, the largest of which has ``burst`` bytes.

    BBR takes a burst's rate of delivery, b / (r + b / p), over the round trip r as well; its pace
    p is GAIN times that, so p = (GAIN - 1) b / r.
    """
    trip = 2 * network.latency
    if not trip:
        return network.bytes_a_second
    most = min(network.bytes_a_second, SEND_BUFFER / trip)
    return min(most, (GAIN - 1) * burst / trip) if network.control == "bbr" else most


def slow_start_seconds(size: float, network: Network, idle: float) -> float:
    """Seconds for which a message waits until its connection's window has grown to it.

    k windows that double hold (2^k - 1) times the first, so ``size`` bytes, or what the cable holds
    where that is less, need log2(1 + size / first) of them; each but the first waits a round trip.
    """
    trip = 2 * network.latency
    if network.control != "cubic" or idle <= LEAST_TIMEOUT + trip:
        return 0.0
    held = min(size, sending_rate(network, size) * trip)
    windows = math.ceil(math.log2(1 + held / (FIRST_WINDOW * network.packet)))
    return max(0, windows - 1) * trip
