"""What a connection costs in memory: packetcore's handler against the bare runtime.

Each server runs in a process of its own and holds the same number of TCP connections, each of
which has echoed twice: once when it came and once when all were there. A case's figure is
what the server's process grew by, divided by the connections; a thousand more come first and
stay, to fill what start-up left free. USS counts pages that only this process has and is the
figure to compare; RSS is what most tools show.

The bare servers have no timers, no limits and no codec: see `_bare_servers.py`. On gevent the
bar is held against watchers without greenlets, the strictest there is.
"""

from __future__ import annotations

import argparse
import gc
import socket
import time
import tracemalloc
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from _bare_servers import BARE
from _common import Results, save, show, verdict
from _processes import TRANSPORTS, Child, Echo, Memory, answer, begin_child, load, memory, raise_file_limit

from packetcore import Config, Packet, encode

WARM_UP = 1000
"""Connections made before the first look, and held: they fill the memory that start-up freed."""
BATCH = 200
"""Connections begun before any of them is served: fewer than any server's backlog."""
SPARE_FILES = 100
"""Descriptors that a process needs for other things."""
PATIENCE = 30.0
"""Seconds without an answer after which a server is given up."""
BAR = 4096
"""Bytes of USS for each connection beyond the bare runtime's."""
GOALS = {"asyncio": 2560}
"""Bytes of USS that a connection may take in all, by transport."""
OURS = "packetcore"


def run(pipe: Pipe, transport: str, server: str, connections: int, trace: bool) -> None:
    """Serve in a child process."""
    begin_child()
    raise_file_limit(WARM_UP + connections + SPARE_FILES)
    held = Counter[str]()

    def start() -> int:
        if server != OURS:
            return BARE[transport][server]()
        config = Config(max_sessions=None, max_sessions_per_host=None)
        port: int = load(transport).start_server(Echo(), config=config).address[1]
        return port

    def begin() -> Memory:
        if trace:
            gc.collect()
            held.update(_traced())
        return memory()

    def lines() -> list[tuple[str, int]]:
        gc.collect()
        return (_traced() - held).most_common(40)

    if trace:
        tracemalloc.start()
    answer(
        pipe,
        {"start": start, "begin": begin, "memory": memory, "lines": lines, "processor_time": time.process_time},
    )


def _traced() -> Counter[str]:
    """Bytes that are allocated now, by the line that did."""
    snapshot = tracemalloc.take_snapshot()
    return Counter(
        {
            f"{'/'.join(Path(line.traceback[0].filename).parts[-2:])}:{line.traceback[0].lineno}": line.size
            for line in snapshot.statistics("lineno")
        }
    )


@dataclass(frozen=True)
class Measured:
    """One server that held all connections."""

    rss: float
    """Bytes that its process grew by for each."""
    uss: float
    """The same of what belongs to it alone."""
    seconds: float
    """How long it took to connect and echo on all of them."""
    lines: list[tuple[str, int]]
    """Which lines of Python hold how many bytes, where that was asked for."""


def open_all(port: int, connections: int, stack: ExitStack) -> list[socket.socket]:
    """Open connections, with an echo on each."""
    opened: list[socket.socket] = []
    while len(opened) < connections:
        batch = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            for _ in range(min(BATCH, connections - len(opened)))
        ]
        echo(batch)
        opened += batch
    return opened


def echo(connections: list[socket.socket]) -> None:
    """One round trip on each, of a frame that no other has."""
    frames = [encode(Packet(index % 65536, index.to_bytes(8, "big") * 8)) for index in range(len(connections))]
    for connection, frame in zip(connections, frames, strict=True):
        connection.sendall(frame)
    for index, (connection, frame) in enumerate(zip(connections, frames, strict=True)):
        received = b""
        while len(received) < len(frame) and (data := connection.recv(4096)):
            received += data
        if received != frame:
            raise RuntimeError(f"connection {index} echoed {received.hex()} for {frame.hex()}")


def measure(transport: str, server: str, connections: int, *, trace: bool = False) -> Measured:
    """Hold all connections on one server, and look at what it grew by."""
    with Child(run, transport, server, connections, trace) as child, ExitStack() as stack:
        port = child.ask("start")
        first = open_all(port, WARM_UP, stack)
        before: Memory = child.ask("begin")
        begin = time.perf_counter()
        opened = open_all(port, connections, stack)
        seconds = time.perf_counter() - begin
        echo(first + opened)
        after: Memory = child.ask("memory")
        lines = child.ask("lines") if trace else []
    return Measured((after.rss - before.rss) / connections, (after.uss - before.uss) / connections, seconds, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--connections", type=int, default=2000, help="how many each server holds (%(default)s)")
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="only this one; may be repeated")
    parser.add_argument("--trace", action="store_true", help="show which lines of packetcore hold how many bytes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE as well")
    options = parser.parse_args()
    count: int = options.connections
    raise_file_limit(WARM_UP + count + SPARE_FILES)
    rows, missed = [], []
    results: Results = {}
    for transport in options.transport or TRANSPORTS:
        if transport != "blocking" and find_spec(transport) is None:
            continue
        measured = {server: measure(transport, server, count) for server in (*BARE[transport], OURS)}
        results |= {f"{server} {transport}": [one.uss] for server, one in measured.items()}
        ours, leanest = measured[OURS], measured[next(iter(BARE[transport]))]
        goal = GOALS.get(transport)
        if ours.uss - leanest.uss > BAR:
            missed.append(transport)
        rows += [
            (
                f"{server}, {transport}",
                f"{one.rss:,.0f}",
                f"{one.uss:,.0f}",
                "" if server == OURS else f"{ours.uss - one.uss:+,.0f}",
                verdict((ours.uss - one.uss) / BAR, 1.0, at_most=True) if one is leanest else "",
                verdict(one.uss / goal, 1.0, at_most=True) if server == OURS and goal is not None else "",
                f"{one.seconds:.1f}",
            )
            for server, one in measured.items()
        ]
        if options.trace:
            lines = measure(transport, OURS, count, trace=True).lines
            each = [(line, f"{size / count:,.1f}") for line, size in lines if size >= 4 * count]
            show(f"{transport}: bytes for each connection by the line that allocated them", ("line", "bytes"), each)
    show(
        f"{count:,} TCP connections held and served: bytes of the server's memory for each, and how many packetcore "
        f"takes beyond the bare runtime, as a part of {BAR:,}, and in all, as a part of "
        + ", ".join(f"{goal:,} on {transport}" for transport, goal in GOALS.items()),
        ("server", "RSS", "USS", "packetcore", "beyond", "in all", "seconds to open"),
        rows,
    )
    save(options.json, "connections", "bytes of USS per connection", results)
    if missed:
        raise SystemExit(f"more than {BAR} bytes a connection beyond the bare runtime: {', '.join(missed)}")


if __name__ == "__main__":
    main()
