"""Peers that do not keep up: how far the server grows, and how long another peer waits.

The server runs in a process of its own. Another process pushes bytes at it as fast
as they go; this one is a third peer, which echoes one small packet after another and times
each. It does so in turns with the push and without: p99 is of all turns of a kind. Cases:

    reads          what is pushed is passed on to a peer that reads: the load alone, for comparison
    slow consumer  to a peer that never reads: closed at max_outstanding, it comes again each time
    waits          the same, but the handler stops reading from who pushes while its peer is behind
    never reads    who pushes echoes, and never reads what comes back
    slow stream    pushed to a function over a stream that takes a millisecond for each packet
"""

from __future__ import annotations

import argparse
import random
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import psutil
from _common import Results, save, show, verdict
from _processes import TRANSPORTS, Child, Memory, answer, begin_child
from _slow_servers import ECHO, NOBODY, PUSH, SUBSCRIBE, run

from packetcore import Packet, encode

MEBI = 1 << 20
PAYLOAD = 60_000
"""Bytes of payload in each packet pushed."""
TURNS = 5
"""How often the push goes on and pauses."""
QUIET = 0.5
"""Seconds of a turn without a push, and the least that one with it takes where it goes on."""
STUCK = 1.0
"""Seconds for which a push is tried that the server will not take."""
PACE = 0.0005
"""Seconds between two timed packets: the third peer is no load itself."""
LOOK = 0.01
"""Seconds between two looks at the server's memory."""
PATIENCE = 30.0
"""Seconds without an answer after which a server is given up."""
MAX_OUTSTANDING = 16 * MEBI
"""What the configuration has by default."""
GROWTH_BAR = 64 * MEBI
P99_BAR = 5.0

MODES = {"reads": "relay", "slow consumer": "relay", "waits": "wait", "never reads": "relay", "slow stream": "stream"}
"""For each case how the server serves."""
TAKES_ALL = ("reads", "slow consumer", "slow stream")
"""Cases in which everything can be pushed."""


def frame(type: int, size: int) -> bytes:
    """A packet of random bytes on the wire."""
    return encode(Packet(type, random.Random(type).randbytes(size), type=type))


SUBSCRIPTION = frame(SUBSCRIBE, 10)


class Pusher:
    """Who pushes, and the peer that it is for."""

    def __init__(self, port: int, case: str) -> None:
        self._address = ("127.0.0.1", port)
        self._case = case
        self._sender = socket.create_connection(self._address, PATIENCE)
        self._frame = frame(ECHO if case == "never reads" else PUSH, PAYLOAD)
        self._offset = 0  # how much of a frame the last push left behind
        self._sinks: list[socket.socket] = []
        if case in ("reads", "slow consumer", "waits"):
            self._subscribe()

    def push(self, size: int) -> int:
        """Push bytes until they are gone, or until none go for a while. Returns how many did."""
        self._sender.settimeout(STUCK)
        pushed = 0
        with suppress(TimeoutError):
            while pushed < size:
                sent = self._sender.send(memoryview(self._frame)[self._offset :])
                self._offset = (self._offset + sent) % len(self._frame)
                pushed += sent
                if self._case == "slow consumer" and select.select([self._sender], [], [], 0)[0]:
                    _receive(self._sender, NOBODY)
                    self._subscribe()
        return pushed

    def _subscribe(self) -> None:
        """Connect the peer that all is for. One that does not read cannot see that it was closed."""
        while self._sinks:
            self._sinks.pop().close()
        sink = socket.create_connection(self._address, PATIENCE)
        self._sinks.append(sink)
        sink.sendall(SUBSCRIPTION)
        _receive(sink, SUBSCRIPTION)
        if self._case == "reads":
            threading.Thread(target=_read_all, args=(sink,), daemon=True).start()


def _receive(sock: socket.socket, expected: bytes) -> None:
    received = sock.recv(len(expected), socket.MSG_WAITALL)
    if received != expected:
        raise RuntimeError(f"{received.hex()} came, not {expected.hex()}")


def _read_all(sock: socket.socket) -> None:
    buffer = bytearray(MEBI)
    with suppress(OSError):
        while sock.recv_into(buffer):
            pass


def be_pusher(pipe: Pipe, port: int, case: str) -> None:
    """Push in a child process."""
    begin_child()
    pusher = Pusher(port, case)
    answer(pipe, {"push": pusher.push})


@dataclass
class Watched:
    """What was seen of one server."""

    times: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    """Seconds that each timed packet took, without a push and with one."""
    peak: int = 0
    """The most bytes that the server had in RAM."""

    def p99(self, pushing: bool) -> float:
        """In seconds."""
        return sorted(self.times[pushing])[len(self.times[pushing]) * 99 // 100]


class Watch:
    """The third peer."""

    def __init__(self, port: int, pid: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._frame = frame(ECHO, 64)
        self._process = psutil.Process(pid)
        self.seen = Watched()

    def watch(self, seconds: float, pushing: bool, is_over: partial[bool] | None = None) -> None:
        """Echo for some seconds, and then for as long as something goes on."""
        times = self.seen.times[pushing]
        end = time.perf_counter() + seconds
        look_at = 0.0
        while (now := time.perf_counter()) < end or (is_over is not None and not is_over()):
            if now >= look_at:
                self.seen.peak = max(self.seen.peak, self._process.memory_info().rss)
                look_at = now + LOOK
            begin = time.perf_counter()
            self._sock.sendall(self._frame)
            _receive(self._sock, self._frame)
            times.append(time.perf_counter() - begin)
            time.sleep(PACE)


@dataclass(frozen=True)
class Measured:
    """One case on one transport."""

    pushed: int
    """Bytes that the server took, and passed on where it was to."""
    slow_consumers: int
    """Sessions closed for not reading."""
    growth: int
    """Bytes that the server grew by at its peak."""
    quiet: float
    """Seconds: p99 without the push."""
    pushing: float
    """Seconds: p99 with it."""


def measure(transport: str, case: str, size: int, max_outstanding: int) -> Measured:
    """Push `size` bytes in turns, and watch."""
    with Child(run, transport, MODES[case], max_outstanding) as server:
        port = server.ask("port")
        watch = Watch(port, server.pid)
        watch.watch(QUIET, pushing=False)
        watch.seen = Watched()
        before: Memory = server.ask("memory")
        with Child(be_pusher, port, case) as pusher, ThreadPoolExecutor(1) as thread:
            pushed = 0
            for _ in range(TURNS):
                watch.watch(QUIET, pushing=False)
                push = thread.submit(pusher.ask, "push", size // TURNS)
                watch.watch(QUIET if case not in TAKES_ALL else 0, True, partial(push.done))
                pushed += push.result()
        if case in ("reads", "slow consumer"):
            pushed = server.ask("passed_on")
        slow_consumers = server.ask("slow_consumers")
    seen = watch.seen
    return Measured(pushed, slow_consumers, seen.peak - before.rss, seen.p99(False), seen.p99(True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="only this one; may be repeated")
    parser.add_argument("--case", action="append", choices=MODES, help="only this one; may be repeated")
    parser.add_argument("--megabytes", type=int, default=400, help="how much is pushed (%(default)s)")
    parser.add_argument(
        "--max-outstanding", type=int, default=MAX_OUTSTANDING, metavar="BYTES", help="the server's (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE as well")
    options = parser.parse_args()
    rows, missed = [], []
    results: Results = {}
    for transport in options.transport or TRANSPORTS:
        if transport != "blocking" and find_spec(transport) is None:
            continue
        for case in options.case or MODES:
            one = measure(transport, case, options.megabytes * 10**6, options.max_outstanding)
            name = f"{case}, {transport}"
            results |= {f"{name}, growth": [one.growth / MEBI], f"{name}, p99": [one.pushing / one.quiet]}
            if one.growth > GROWTH_BAR or one.pushing > P99_BAR * one.quiet:
                missed.append(name)
            rows.append(
                (
                    name,
                    f"{one.pushed / 1e6:.0f}",
                    f"{one.slow_consumers}",
                    verdict(one.growth / MEBI, GROWTH_BAR / MEBI, at_most=True),
                    f"{one.quiet * 1000:.2f}",
                    f"{one.pushing * 1000:.2f}",
                    verdict(one.pushing / one.quiet, P99_BAR, at_most=True),
                )
            )
    show(
        "Peers that do not keep up: megabytes pushed, sessions closed with SLOW_CONSUMER, the server's growth in MiB; "
        "another peer's p99 in milliseconds without the push, with it, and how many times as long that is",
        ("case", "MB", "closed", "MiB", "p99", "pushing", "ratio"),
        rows,
    )
    save(options.json, "slow_peer", "growth: MiB; p99: ratio", results)
    if missed:
        raise SystemExit(f"beyond a bar: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
