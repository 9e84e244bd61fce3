"""TCP echo side by side: packetcore's handler and stream against `readuntil` by hand.

Each server runs in a process of its own, on another CPU than the raw client that drives
all of them: 50 connections with 32 packets of 64 bytes in flight on each, then with one.
The client knows nothing of packets: it sends encoded frames, and for every n bytes that
come back it checks them and sends the n that follow.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from statistics import median

from _common import arguments, interleave, pin, save, serving, show
from _echo_servers import LOOPS, SERVERS, run

from packetcore import Packet, encode

CONNECTIONS = 50
DEPTHS = (32, 1)
"""Packets in flight on each connection."""
PAYLOAD = 64
WARM_UP = 0.05
"""Seconds that a measurement does not count: connections fill, caches warm."""
PATIENCE = 10.0
"""Seconds without a byte after which a server is given up."""
BAR = 4.0
"""The handler against `readuntil` on the same kind of loop, 32 packets in flight."""


class Echoed:
    """One connection: what it sends is a cycle of frames, and so is what must come back."""

    def __init__(self, port: int, cycle: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self._cycle = cycle
        self._expected = cycle * 2
        self._at = 0  # where in the cycle the next byte to come back stands
        self._send(cycle)

    def turn(self, *, reply: bool) -> int:
        """Take what came back, check it, and send as much again. Returns how much came."""
        data = self.sock.recv(len(self._cycle))
        if not data or not self._expected.startswith(data, self._at):
            raise RuntimeError(f"the echo went wrong: {data[:40].hex()} at {self._at} of {self._cycle[:40].hex()}...")
        self._at = (self._at + len(data)) % len(self._cycle)
        if reply:
            self._send(data)
        return len(data)

    def _send(self, data: bytes) -> None:
        if self.sock.send(data) != len(data):
            raise RuntimeError("a socket buffer is too small for what is in flight")


def measure(port: int, depth: int, seconds: float) -> float:
    """Drive a server for some seconds. Returns packets echoed a second."""
    random_bytes = random.Random(depth).randbytes
    # The cycle holds as many frames as are in flight: what comes back is what to send next.
    cycle = b"".join(encode(Packet(index, random_bytes(PAYLOAD))) for index in range(depth))
    with selectors.DefaultSelector() as selector, ExitStack() as open_sockets:
        for _ in range(CONNECTIONS):
            connection = Echoed(port, cycle)
            open_sockets.enter_context(connection.sock)
            selector.register(connection.sock, selectors.EVENT_READ, connection)

        def drive(until: float, in_flight: int) -> int:
            """Echo until a time, or if bytes are in flight, until they are all back."""
            echoed = 0
            while in_flight > echoed if in_flight else time.perf_counter() < until:
                ready = selector.select(PATIENCE)
                if not ready:
                    raise TimeoutError(f"nothing came back for {PATIENCE} s")
                for key, _ in ready:
                    echoed += key.data.turn(reply=not in_flight)
            return echoed

        drive(time.perf_counter() + WARM_UP, 0)
        begin = time.perf_counter()
        echoed = drive(begin + seconds, 0)
        elapsed = time.perf_counter() - begin
        drive(0, CONNECTIONS * len(cycle))
    return echoed / len(cycle) * depth / elapsed


def main() -> None:
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one measurement (%(default)s)")
    options = parser.parse_args()
    loops = [loop for loop in LOOPS if find_spec(loop) is not None]
    cases: dict[str, Callable[[], float]] = {}
    with ExitStack() as servers:
        for loop in loops:
            for server in SERVERS:
                port, _ = servers.enter_context(serving(run, server, loop))
                for depth in DEPTHS:
                    cases[f"{server} {loop} {depth}"] = partial(measure, port, depth, options.seconds)
        pin(1)
        results = interleave(cases, options.rounds)
    for depth in DEPTHS:
        rows = []
        for loop in loops:
            for server in SERVERS:
                values, base = results[f"{server} {loop} {depth}"], results[f"readuntil {loop} {depth}"]
                rows.append(
                    (
                        f"{server} on {loop}",
                        f"{median(values):,.0f} ({max(values):,.0f})",
                        f"{median(values) / median(base):.2f} x ({max(values) / max(base):.2f} x)",
                        f"{BAR:.0f} x" if server == "handler" and depth == DEPTHS[0] else "",
                    )
                )
        show(
            f"echo, {CONNECTIONS} connections, {depth} packet{'s' * (depth > 1)} of {PAYLOAD} bytes in flight on each",
            ("server", "packets/s: median (best)", "against readuntil", "bar"),
            rows,
        )
    save(options.json, "echo", "packets per second", results)


if __name__ == "__main__":
    main()
