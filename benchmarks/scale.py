"""What connections cost as there are more of them, and how many devices one core carries.

One server for each transport, in a process of its own, holds 100 connections, then 300, and so on to 10,000. At each
number a client on another CPU sends paced packets of 64 bytes, each on the connection whose turn it is, and has them
echoed: none at all, one a second for each connection, and as many as RATES says, where that is more. What the
server's processor did meanwhile, the kernel's part included, is fitted by least squares:

    seconds a second = fixed + connections x of each + packets a second x of each

and so is its memory (USS), without the packets. From that follow the devices that one core carries where each sends
a packet so often and has it echoed; memory and the system's limits come first where that is a million. Each
connection's idle timer goes off every 15 seconds, four times as often as by default, so that it is in what a
connection costs. Keepalives are off. What it costs to open and close connections is not in there: see `churn.py`.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import NamedTuple

import numpy as np
from _common import Results, arguments, pin, save, show
from _echo_client import PATIENCE, PAYLOAD, cycle_for
from _echo_servers import installed
from _processes import TRANSPORTS, Child, Echo, Memory, answer, begin_child, load, memory, raise_file_limit
from connections import SPARE_FILES, echo, open_all
from rich.console import Console
from rich.progress import track

from packetcore import Config

COUNTS = (100, 300, 1_000, 3_000, 10_000)
RATES = (2_000, 8_000)
"""Packets a second in all."""
STEP = 1_000
"""Connections opened before all those that are open have another packet, lest they expire."""
IDLE_TIMEOUT = 15.0
"""The server's, in seconds."""
EVERY = (1, 10, 60)
"""Seconds between two packets of a device, for what a core carries."""


@dataclass(frozen=True)
class Point:
    """What was measured at once."""

    connections: int
    rate: float
    """Packets echoed a second."""
    busy: float
    """Seconds of the server's processor a second."""


@dataclass(frozen=True)
class Fit:
    """Seconds of the processor a second."""

    fixed: float
    connection: float
    packet: float

    def devices(self, every: float) -> float:
        """How many one core carries that send a packet after so many seconds."""
        return max(0.0, 1.0 - self.fixed) / (self.connection + self.packet / every)


def run(pipe: Pipe, transport: str, connections: int) -> None:
    """Serve in a child process."""
    begin_child()
    pin(0)
    raise_file_limit(connections + SPARE_FILES)

    def start() -> int:
        config = Config(max_sessions=None, max_sessions_per_host=None, idle_timeout=IDLE_TIMEOUT)
        port: int = load(transport).start_server(Echo(), config=config).address[1]
        return port

    answer(pipe, {"start": start, "memory": memory, "processor_time": time.process_time})


class Scaled(NamedTuple):
    """What was measured of one server."""

    points: list[Point]
    held: list[float]
    """Bytes of USS at each number of connections."""


def fit(points: Sequence[Point]) -> Fit:
    """By least squares. No part may be less than nothing: one that would be is left out."""
    columns = np.array([(1.0, point.connections, point.rate) for point in points])
    used = [0, 1, 2]
    while True:
        found, *_ = np.linalg.lstsq(columns[:, used], np.array([point.busy for point in points]), rcond=None)
        if (found >= 0).all():
            break
        del used[int(np.argmin(found * columns[:, used].mean(axis=0)))]
    parts = dict(zip(used, map(float, found), strict=True))
    return Fit(parts.get(0, 0.0), parts.get(1, 0.0), parts.get(2, 0.0))


def slope(x: Iterable[float], y: Iterable[float]) -> float:
    """Of the line that fits best, by least squares."""
    return float(np.polyfit(list(x), list(y), 1)[0])


def paced(child: Child, opened: list[socket.socket], rate: float, seconds: float, first: int) -> Point:
    """Send for so long, and wait for all that is to come back.

    Args:
        first: which connection begins.
    """
    frame = cycle_for("handler", 1)
    size, clock = len(frame), time.perf_counter
    sent = back = 0
    with ExitStack() as stack:
        poller = stack.enter_context(select.epoll())
        by_number = {sock.fileno(): sock for sock in opened}
        for number in by_number:
            poller.register(number, select.EPOLLIN)
        poller.poll(0)
        used, begin = child.ask("processor_time"), clock()
        while (now := clock() - begin) < seconds or back < sent * size:
            if now > seconds + PATIENCE:
                raise TimeoutError(f"{sent - back // size} packets did not come back within {PATIENCE} s")
            for _ in range(int(min(now, seconds) * rate) - sent):
                if opened[(first + sent) % len(opened)].send(frame) != size:
                    raise RuntimeError("a socket buffer is full: the server does not keep up")
                sent += 1
            for number, _ in poller.poll(0 if rate else seconds - now if now < seconds else 0):
                data = by_number[number].recv(64 * size)
                if not data:
                    raise RuntimeError(f"the server closed a connection of {len(opened)}")
                back += len(data)
        elapsed = clock() - begin
        used = child.ask("processor_time") - used
    return Point(len(opened), sent / elapsed, used / elapsed)


def measure(child: Child, transport: str, counts: Sequence[int], rounds: int, seconds: float) -> Scaled:
    """All numbers of connections on one server."""
    points, held = [], []
    with ExitStack() as stack:
        port = child.ask("start")
        opened: list[socket.socket] = []
        for count in track(counts, transport, console=Console(stderr=True), transient=True):
            while len(opened) < count:
                opened += open_all(port, min(STEP, count - len(opened)), stack)
                echo(opened)
            takes: Memory = child.ask("memory")
            held.append(float(takes.uss))
            rates = sorted({0.0, *(float(rate) for rate in (count, *RATES) if rate <= max(RATES))})
            first = 0
            for _ in range(rounds):
                for rate in rates:
                    points.append(paced(child, opened, rate, seconds, first))
                    first += int(rate * seconds)
    return Scaled(points, held)


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (%(default)s)")
    parser.add_argument("--connections", type=int, default=max(COUNTS), help="the most of them (%(default)s)")
    parser.add_argument("--only", action="append", choices=TRANSPORTS, help="only this transport; may be repeated")
    options = parser.parse_args()
    counts = [count for count in COUNTS if count <= options.connections]
    if len(counts) < 2:
        parser.error(f"--connections must be {COUNTS[1]} at least")
    raise_file_limit(max(counts) + SPARE_FILES)
    rows, values = [], []
    results: Results = {}
    transports = [transport for transport in installed() if transport in (options.only or TRANSPORTS)]
    with ExitStack() as stack:
        children = {transport: stack.enter_context(Child(run, transport, max(counts))) for transport in transports}
        for child in children.values():
            child.ask("memory")  # it runs, on its own CPU; one begun after `pin` could not leave ours
        pin(1)
        measured = {
            transport: measure(child, transport, counts, options.rounds, options.seconds)
            for transport, child in children.items()
        }
    for transport, (points, held) in measured.items():
        line, bytes_each = fit(points), slope(counts, held)
        at_most = max(points, key=lambda point: (point.connections, point.rate))
        devices = {every: line.devices(every) for every in EVERY}
        rows.append(
            (
                transport,
                f"{line.fixed * 1000:.2f}",
                f"{line.connection * 1e6:.3f}",
                f"{line.packet * 1e6:.1f}",
                f"{bytes_each:,.0f}",
                *(f"{devices[every]:,.0f}" for every in EVERY),
            )
        )
        rates = sorted({round(point.rate, -2) for point in points if point.connections == at_most.connections})
        for count in counts:
            here = [point for point in points if point.connections == count]
            values.append((f"{transport}, {count:,}", *_by_rate(here)))
        results |= {
            f"{transport} fixed": [line.fixed],
            f"{transport} connection": [line.connection],
            f"{transport} packet": [line.packet],
            f"{transport} bytes": [bytes_each],
            **{f"{transport} devices, {every} s": [count] for every, count in devices.items()},
        }
        results |= {
            f"{transport} {count} connections, {rate:.0f}/s": [
                point.busy for point in points if point.connections == count and round(point.rate, -2) == rate
            ]
            for count in counts
            for rate in rates
            if any(point.connections == count and round(point.rate, -2) == rate for point in points)
        }
    show(
        "the server's processor in per cent of one, by connections: with no packets, and with packets a second in all",
        ("transport, connections", "0/s", *(f"{rate:,}/s" for rate in RATES)),
        values,
    )
    show(
        f"what {counts[0]:,} to {counts[-1]:,} connections cost: thousandths of the server's processor in any case, "
        f"millionths of it for a connection, and microseconds for a packet of {PAYLOAD} bytes that is echoed; bytes "
        "for a connection; the devices that one core carries where each sends a packet every so many seconds",
        ("transport", "fixed", "each", "packet, µs", "bytes", *(f"{every} s" for every in EVERY)),
        rows,
    )
    save(options.json, "scale", "seconds of the processor per second; bytes; devices", results)


def _by_rate(points: Sequence[Point]) -> Iterable[str]:
    near = partial(_near, points)
    return (near(rate) for rate in (0, *RATES))


def _near(points: Sequence[Point], rate: float) -> str:
    found = [point.busy for point in points if abs(point.rate - rate) <= max(10.0, rate / 20)]
    return f"{100 * float(np.median(found)):.2f}" if found else ""


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
