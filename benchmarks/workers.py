"""What a second worker brings: `packetcore serve`, one process and two, turn and turn about in one run.

Twice: for `--echo` of 64 bytes, and for an application that works some microseconds for each packet
(`_positions.py`), which is what a second core is for.

One process makes the load, over connections with so many packets in flight on each. Beside an echo, on a machine of
two cores, it needs more than half of one, which the second worker then has not: by the wall two workers bring less
there than they could. So both are told: packets a second by the wall, and the processor time that a packet takes of
the workers and of the load. Workers with a core each would do, together, as many packets a second as there are workers
for each such time; `worth` compares that with one worker. The goal is for the echo's worth, and for the application by
the wall.

That a SIGHUP under load loses no reply is seen to by a test: tests/test_cli_workers.py.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
from _common import arguments, interleave, save, show, verdict
from _positions import POSITION

from packetcore import Packet, encode

HERE = Path(__file__).parent
APPLICATIONS = {"echo": ["--echo"], "positions": ["--app", "_positions:Positions"]}
JUDGED = {"echo": "capacity", "positions": "packets"}
"""What the goal is for, a field of `Measured`."""
GOAL = 1.6
"""Times what one worker does, that two have to do."""
WARM_UP = 0.5
"""Seconds."""
PATIENCE = 30.0
"""Seconds after which something is given up."""


class Load(NamedTuple):
    """What is asked of the workers."""

    connections: int
    in_flight: int
    """Packets on each."""


class Measured(NamedTuple):
    """What became of it."""

    packets: float
    """A second, by the wall."""
    workers: float
    """Seconds of processor time that a packet took, of all workers together."""
    load: float
    """The same, of this process."""
    busy: float
    """Processors that the workers kept busy."""
    number: int
    """Of workers."""

    @property
    def capacity(self) -> float:
        """Packets a second that the workers would do with a processor each."""
        return self.number / self.workers


@contextmanager
def serving(application: str, count: int) -> Iterator[tuple[int, list[psutil.Process]]]:
    """Run the command until the end of the block: its port, and its workers."""
    command = [sys.executable, "-m", "packetcore_cli", "serve", *APPLICATIONS[application], "--workers", str(count)]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise SystemExit(f"packetcore serve does not listen: {process.stderr.read()}")
            workers = psutil.Process(process.pid).children()
            assert len(workers) == count, workers
            yield int(line.rpartition(":")[2]), workers
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def used(workers: list[psutil.Process]) -> float:
    """Seconds of processor time, of the system and of themselves."""
    return float(sum(times.user + times.system for times in (worker.cpu_times() for worker in workers)))


def echoed(connections: dict[socket.socket, int], ready: selectors.BaseSelector, burst: bytes, seconds: float) -> int:
    """Keep bursts going for so long; gives how many came back whole."""
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for key, _ in ready.select(PATIENCE):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = sock.recv(1 << 16)
            if not data:
                raise RuntimeError("a worker has closed a connection")
            connections[sock] += len(data)
            if connections[sock] >= len(burst):
                connections[sock] -= len(burst)
                count += 1
                sock.sendall(burst)
    return count


def measure(application: str, count: int, load: Load, seconds: float) -> Measured:
    """Have so many workers answer."""
    burst = encode(Packet(1, POSITION)) * load.in_flight
    with serving(application, count) as (port, workers), selectors.DefaultSelector() as ready:
        connections: dict[socket.socket, int] = {}
        try:
            for _ in range(load.connections):
                sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
                connections[sock] = 0
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(sock, selectors.EVENT_READ)
                sock.sendall(burst)
            echoed(connections, ready, burst, WARM_UP)
            before, own, begun = used(workers), time.process_time(), time.monotonic()
            packets = echoed(connections, ready, burst, seconds) * load.in_flight
            wall, own, taken = time.monotonic() - begun, time.process_time() - own, used(workers) - before
        finally:
            for sock in connections:
                sock.close()
    return Measured(packets / wall, taken / packets, own / packets, taken / wall, count)


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement (%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--in-flight", type=int, default=32, help="packets on each connection (%(default)s)")
    parser.add_argument(
        "--applications", nargs="+", choices=APPLICATIONS, default=[*APPLICATIONS], metavar="NAME", help="(all)"
    )
    options = parser.parse_args()
    if min(options.rounds, options.connections, options.in_flight) < 1 or options.seconds <= 0:
        parser.error("--rounds, --connections and --in-flight are 1 or more, --seconds above 0")
    load = Load(options.connections, options.in_flight)
    counts = {"one worker": 1, "two workers": 2}
    cases = {
        f"{application}, {name}": partial(measure, application, count, load, options.seconds)
        for application in options.applications
        for name, count in counts.items()
    }
    results = interleave(cases, options.rounds, warm_up=False)
    flat = {
        f"{name}, {field}": [float(getattr(each, field)) for each in values]
        for name, values in results.items()
        for field in ("packets", "workers", "load", "busy", "capacity")
    }
    missed = []
    for application in options.applications:
        rows = []
        for name, field, scale, digits in (
            ("packets a second, by the wall", "packets", 1.0, 0),
            ("processors that workers keep busy", "busy", 1.0, 2),
            ("µs of workers for a packet", "workers", 1e6, 2),
            ("µs of the load for a packet", "load", 1e6, 2),
            ("worth, packets a second", "capacity", 1.0, 0),
        ):
            one, two = (median(flat[f"{application}, {each}, {field}"]) for each in counts)
            is_judged = field == JUDGED[application]
            if is_judged and two < GOAL * one:
                missed.append(f"{application}: two workers do less than {GOAL} times one")
            ratio = verdict(two / one, GOAL if is_judged else None)
            rows.append([name, *(f"{value * scale:,.{digits}f}" for value in (one, two)), ratio])
        title = f"{application}: {load.in_flight} in flight on each of {load.connections} connections"
        show(title, ("", *counts, "times"), rows)
    save(options.json, "workers", "packets and capacity: a second; workers and load: seconds a packet", flat)
    if missed:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
