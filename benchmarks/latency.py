"""How long a packet takes under a load that a server can carry: packetcore's handler beside a raw echo.

Each server runs in a process of its own, on another CPU than the client. First the most that the raw one
can do is found, by 50 connections with one packet in flight on each. Then the same 50 send packets at half that
rate, or at the most that this client carries without being late itself, to the raw server and to packetcore's
alike, in turns, each packet at a time that was fixed beforehand. Its
latency is counted from when it was due, not from when it was sent: whatever delays the one delays those after it,
and none of that is left out ("coordinated omission").

The client never sleeps while it measures and its garbage collector is off; "late" says how late the client itself
sent one packet in a hundred at least, which is in all the figures. p99 means that 99 of 100 packets took no longer.
Figures are medians of the rounds, with the least in brackets, which says what the machine allows when it is not
disturbed; the ratios are ratios of medians, and max is the longest of all rounds.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from _common import Results, arguments, interleave, pin, save, show, verdict
from _echo_client import PATIENCE, PAYLOAD, cycle_for, measure
from _echo_servers import installed, run
from _processes import TRANSPORTS, Child
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

CONNECTIONS = 50
LOAD = 0.5
"""The part of the raw server's greatest rate at which packets are sent."""
MOST = 30_000
"""Packets a second that the client sends at most: a third of what it could."""
PROBES = 3
"""How often that rate is measured; the median counts."""
PROBE = 0.3
"""Seconds of such a measurement."""
WARM_UP = 0.1
"""Seconds of a round that do not count."""
GOAL = 1.3
"""How many times as long as raw's p99 and p99.9 may be."""
SERVERS = ("raw", "handler")
NANOSECOND = 1e-9
LONGEST = 60 * 10**9
"""Nanoseconds that a histogram has room for."""
DIGITS = 3
"""To how many digits it keeps a figure, whatever its size."""
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}


@dataclass(frozen=True)
class Measured:
    """One round of one server, in microseconds."""

    latency: dict[str, float]
    """By the names of `PERCENTILES`, and "max"."""
    late: float
    """p99 of how late the client sent."""


class Paced:
    """Connections on which frames are sent when they are due.

    Args:
        opened: the connections, non-blocking.
        rate: frames a second on all of them together.
    """

    def __init__(self, opened: list[socket.socket], rate: float) -> None:
        self._frame = cycle_for("handler", 1)
        self._opened = opened
        self._gap = 1.0 / rate
        self._due: dict[int, deque[float]] = {sock.fileno(): deque() for sock in opened}
        self._partial: dict[int, int] = dict.fromkeys(self._due, 0)

    def drive(self, seconds: float) -> tuple[array[float], array[float]]:
        """Send for so long, and wait for all that is to come back.

        Returns:
            In seconds, how long each took after it was due, and how late each was sent.
        """
        clock, frame, size = time.perf_counter, self._frame, len(self._frame)
        took, late = array("d"), array("d")
        by_number = {sock.fileno(): sock for sock in self._opened}
        with select.epoll() as poller:
            for number in by_number:
                poller.register(number, select.EPOLLIN)
            poll, turn, count = poller.poll, 0, len(self._opened)
            due = clock() + self._gap
            until, give_up = due + seconds, due + seconds + PATIENCE
            waiting = 0
            while due < until or waiting:
                now = clock()
                if due <= now and due < until:
                    sock = self._opened[turn % count]
                    turn += 1
                    if sock.send(frame) != size:
                        raise RuntimeError("a socket buffer is full: the server does not keep up")
                    self._due[sock.fileno()].append(due)
                    late.append(now - due)
                    waiting += 1
                    due += self._gap
                elif now > give_up:
                    raise TimeoutError(f"{waiting} packets did not come back within {PATIENCE} s")
                for number, _ in poll(0):
                    data = by_number[number].recv(64 * size)
                    at = clock()
                    if not data:
                        raise RuntimeError("the server closed a connection")
                    came, self._partial[number] = divmod(self._partial[number] + len(data), size)
                    for _ in range(came):
                        took.append(at - self._due[number].popleft())
                    waiting -= came
        return took, late


def summary(seconds: array[float]) -> dict[str, float]:
    """Percentiles, and the greatest, in microseconds."""
    histogram = HdrHistogram(1, LONGEST, DIGITS)
    for each in seconds:
        histogram.record_value(max(1, round(each / NANOSECOND)))
    found = {name: histogram.get_value_at_percentile(which) / 1000 for name, which in PERCENTILES.items()}
    return {**found, "max": histogram.get_max_value() / 1000}


def paced(port: int, rate: float, seconds: float) -> Measured:
    """One round of one server."""
    with ExitStack() as stack:
        opened = []
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            opened.append(sock)
        load = Paced(opened, rate)
        gc.collect()
        gc.disable()
        try:
            load.drive(WARM_UP)
            took, late = load.drive(seconds)
        finally:
            gc.enable()
    return Measured(summary(took), summary(late)["p99"])


def main() -> None:
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (%(default)s)")
    parser.add_argument("--only", action="append", choices=TRANSPORTS, help="only this transport; may be repeated")
    options = parser.parse_args()
    transports = [transport for transport in installed() if transport in (options.only or TRANSPORTS)]
    rates: dict[str, float] = {}
    cases: dict[str, Callable[[], Measured]] = {}
    with ExitStack() as stack:
        children = {
            (transport, server): stack.enter_context(Child(run, transport, server, None))
            for transport in transports
            for server in SERVERS
        }
        ports = {which: child.ask("start") for which, child in children.items()}
        pin(1)  # only now: a child would have it from us, and could not leave that CPU
        for transport in transports:
            for server in SERVERS:
                child, port = children[transport, server], ports[transport, server]
                if server == "raw":
                    probes = [
                        measure(child, port, server, 1, PROBE, connections=CONNECTIONS).rate for _ in range(PROBES)
                    ]
                    rates[transport] = min(MOST, median(probes) * LOAD)
                cases[f"{transport} {server}"] = partial(paced, port, rates[transport], options.seconds)
        results = interleave(cases, options.rounds)
    rows = []
    least = {
        name: {which: min(one.latency[which] for one in values) for which in PERCENTILES}
        for name, values in results.items()
    }
    middle = {
        name: {which: median(one.latency[which] for one in values) for which in PERCENTILES}
        for name, values in results.items()
    }
    for transport in transports:
        for server in SERVERS:
            name = f"{transport} {server}"
            values, raw = results[name], middle[f"{transport} raw"]
            ratios = [
                "" if server == "raw" else verdict(middle[name][which] / raw[which], GOAL, at_most=True)
                for which in ("p99", "p99.9")
            ]
            rows.append(
                (
                    name,
                    f"{rates[transport] / 1000:.1f}",
                    *(f"{middle[name][which]:,.0f} ({least[name][which]:,.0f})" for which in PERCENTILES),
                    f"{max(one.latency['max'] for one in values):,.0f}",
                    *ratios,
                    f"{median(one.late for one in values):,.0f}",
                )
            )
    show(
        f"packets of {PAYLOAD} bytes on {CONNECTIONS} connections at {LOAD:.0%} of the rate that raw can do, {MOST:,} "
        "a second at most (in thousands): microseconds from when each was due until it was back (in the best round), "
        "p99 and p99.9 as multiples of raw's, and p99 of how late the client sent",
        ("server", "1000/s", "p50", "p99", "p99.9", "max", "p99 / raw", "p99.9 / raw", "late"),
        rows,
    )
    if any(median(one.late for one in values) > middle[name]["p99"] / 10 for name, values in results.items()):
        print("The client itself was late by more than a tenth of a p99: something else ran on its processor.")
    figures: Results = {f"{transport} load": [rate] for transport, rate in rates.items()}
    for name, values in results.items():
        figures |= {f"{name} {which}": [one.latency[which] for one in values] for which in (*PERCENTILES, "max")}
        figures[f"{name} late"] = [one.late for one in values]
    save(options.json, "latency", "microseconds; load: packets per second", figures)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
