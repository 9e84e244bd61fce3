"""What `packetcore bench` is asked to do, and what comes of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Histogram(Protocol):
    """As much as is needed of `hdrh.histogram.HdrHistogram`."""

    def record_value(self, value: int, count: int = 1) -> bool: ...

    def get_value_at_percentile(self, percentile: float) -> int: ...

    def get_max_value(self) -> int: ...

    def get_mean_value(self) -> float: ...


class Decoding(Protocol):
    """A decoder of any framing."""

    def feed(self, data: bytes, /) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is to be loaded with."""

    host: str
    port: int
    frame: bytes
    """What is sent, again and again."""
    new_decoder: Callable[[], Decoding]
    """Of what comes."""
    connections: int
    in_flight: int
    """Packets on each connection that wait for a reply; with a rate it does not matter."""
    rate: float | None
    """Packets a second on all connections together, each at a time of its own; `None` sends one for each reply."""
    seconds: float
    count: int | None
    """Packets to send at most; `None` for no limit."""
    timeout: float
    """Seconds without any reply after which the server is given up."""
    tls: ssl.SSLContext | None = None
    udp: bool = False


@dataclass(slots=True)
class Measured:
    """What came of it until now."""

    histogram: Histogram
    """Latencies in nanoseconds: of a reply from when the packet was sent, and with a rate from when it was due."""
    seconds: float = 0.0
    """From the first packet to the last reply."""
    sent: int = 0
    answered: int = 0
    bytes_in: int = 0
    malformed: int = 0
    unexpected: int = 0
    """Packets that came though no reply was due."""
    lost: int = 0
    """Over UDP: packets without a reply in time."""
    left_out: int = 0
    """With a rate: packets that were due and for which there was no time any more."""
    ended: list[str] = field(default_factory=list)
    """Why connections ended before the end."""
    is_interrupted: bool = False

    @property
    def outstanding(self) -> int:
        return self.sent - self.answered - self.lost
