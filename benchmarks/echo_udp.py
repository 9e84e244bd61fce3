"""UDP echo side by side: packetcore's handler against the same loop echoing raw datagrams.

Each server runs in a process of its own, on another CPU than the client that drives all of
them: 50 sockets with 3 datagrams in flight on each, a packet of 64 bytes in every one. The
client compares each reply with what it sent and sends it again. What has not come back in
time counts as lost and is sent anew.

Where the client is the slower of the two, both servers look alike. So the table tells how
busy a server was, and what a datagram cost it in processor time, the kernel's part included.
"""

from __future__ import annotations

import argparse
import random
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from statistics import median

from _common import arguments, interleave, pin, save, serving, show
from _udp_servers import SERVERS, run

from packetcore import Packet, encode

SOCKETS = 50
PAYLOAD = 64
IN_FLIGHT = 3
"""Datagrams on each socket. Linux charges about 1 KiB for one, so that those of all just fit
the receive buffer that a server has by default, and none are lost."""
WARM_UP = 0.05
"""Seconds that a measurement does not count."""
LOSS_TIMEOUT = 0.2
"""Seconds after which a datagram that has not come back counts as lost."""
SATURATED = 0.9
"""The part of the time for which a server must run for its rate to say how fast it is."""
BAR = 1.5
"""How many times as fast `raw` may be on asyncio and gevent."""


@dataclass(frozen=True)
class Measured:
    """One measurement of one server."""

    rate: float
    """Datagrams echoed a second."""
    cost: float
    """Microseconds of the server's processor time for each."""
    busy: float
    """The part of the time for which the server ran, 0 to 1."""
    lost: int
    """Datagrams that did not come back in time."""


class Peer:
    """One socket of the client, and the datagrams that go to and fro on it."""

    def __init__(self, port: int, frames: list[bytes]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(("127.0.0.1", port))
        self._receive, self._send = self.sock.recv, self.sock.send
        self._size = max(map(len, frames)) + 1
        self._replies = dict.fromkeys(frames, 0)
        self._seen: dict[bytes, int] = {}

    def start(self) -> None:
        """Send every datagram."""
        self._seen = self._replies.copy()
        for frame in self._replies:
            self._send(frame)

    def turn(self) -> None:
        """Take one reply, and send it again."""
        data = self._receive(self._size)
        self._replies[data] += 1
        self._send(data)

    def take(self) -> None:
        """Take one reply."""
        self._replies[self._receive(self._size)] += 1

    def resend(self) -> int:
        """Send what has not come back since the last look. Returns how many that were."""
        lost = [frame for frame, replies in self._replies.items() if self._seen[frame] == replies]
        for frame in lost:
            self._send(frame)
        self._seen = self._replies.copy()
        return len(lost)


class Client:
    """The sockets that drive one server, the same ones in every round."""

    def __init__(self, port: int, pipe: Pipe, in_flight: int) -> None:
        self._pipe = pipe
        self._in_flight = SOCKETS * in_flight
        self._selector = selectors.DefaultSelector()
        self._peers: list[Peer] = []
        random_bytes = random.Random(0).randbytes
        for number in range(SOCKETS):
            # No two datagrams are alike, so that none can pass for another's reply.
            ids = range(number * in_flight, (number + 1) * in_flight)
            peer = Peer(port, [encode(Packet(id, random_bytes(PAYLOAD))) for id in ids])
            self._selector.register(peer.sock, selectors.EVENT_READ, peer.turn)
            self._peers.append(peer)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for peer in self._peers:
            peer.sock.close()

    def measure(self, seconds: float) -> Measured:
        """Drive the server for some seconds."""
        for peer in self._peers:
            peer.start()
        _, lost_before = self._drive(time.perf_counter() + WARM_UP)
        used, begin = self._processor_time(), time.perf_counter()
        echoed, lost = self._drive(begin + seconds)
        used, elapsed = self._processor_time() - used, time.perf_counter() - begin
        missing = self._collect()
        if not echoed:
            raise RuntimeError(f"the server echoed nothing in {elapsed:.1f} s")
        return Measured(echoed / elapsed, used / echoed * 1e6, used / elapsed, lost_before + lost + missing)

    def _drive(self, until: float) -> tuple[int, int]:
        """Keep the datagrams going until a time. Returns how many came back and were lost."""
        select, clock = self._selector.select, time.perf_counter
        echoed = lost = 0
        now = clock()
        look_at = now + LOSS_TIMEOUT
        while now < until:
            ready = select(min(until, look_at) - now)
            for key, _ in ready:
                key.data()
            echoed += len(ready)
            now = clock()
            if now >= look_at:
                lost += sum(peer.resend() for peer in self._peers)
                look_at = now + LOSS_TIMEOUT
        return echoed, lost

    def _collect(self) -> int:
        """Take what is still in flight, and send nothing more. Returns how many are missing."""
        missing = self._in_flight
        while missing > 0 and (ready := self._selector.select(LOSS_TIMEOUT)):
            for key, _ in ready:
                key.data.__self__.take()
            missing -= len(ready)
        return max(missing, 0)

    def _processor_time(self) -> float:
        self._pipe.send(None)
        if not self._pipe.poll(10):
            raise TimeoutError("the server does not answer")
        used: float = self._pipe.recv()
        return used


def in_flight(text: str) -> int:
    """An option's whole number, 1 to 100: more than that only fills a receive buffer."""
    if not 1 <= (number := int(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{number} is out of range 1 to 100")
    return number


def main() -> None:
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one measurement (%(default)s)")
    parser.add_argument("--transport", action="append", choices=SERVERS, help="only this one; may be repeated")
    parser.add_argument("--in-flight", type=in_flight, default=IN_FLIGHT, help="datagrams on a socket (%(default)s)")
    options = parser.parse_args()
    loops = [
        loop
        for loop in dict.fromkeys(options.transport or SERVERS)
        if loop == "blocking" or find_spec(loop) is not None
    ]
    cases: dict[str, Callable[[], Measured]] = {}
    with ExitStack() as stack:
        for loop in loops:
            for server in SERVERS[loop]:
                port, pipe = stack.enter_context(serving(run, server, loop))
                client = stack.enter_context(Client(port, pipe, options.in_flight))
                cases[f"{server} {loop}"] = partial(client.measure, options.seconds)
        pin(1)
        measured = interleave(cases, options.rounds)
    rates = {case: [one.rate for one in values] for case, values in measured.items()}
    costs = {case: [one.cost for one in values] for case, values in measured.items()}
    rows = []
    for loop in loops:
        for server in SERVERS[loop]:
            case, base = f"{server} {loop}", f"packetcore {loop}"
            is_raw = server != "packetcore"
            rows.append(
                (
                    f"{server}, {loop}",
                    f"{median(rates[case]) / 1000:.1f} ({max(rates[case]) / 1000:.1f})",
                    f"{median(rates[case]) / median(rates[base]):.2f}" if is_raw else "",
                    f"{median(costs[case]):.1f}",
                    f"{median(costs[base]) / median(costs[case]):.2f}" if is_raw else "",
                    f"{median(one.busy for one in measured[case]):.0%}",
                    f"{sum(one.lost for one in measured[case])}",
                )
            )
    show(
        f"UDP echo, {SOCKETS} sockets, {options.in_flight} packets of {PAYLOAD} bytes in flight on each: thousands of "
        "datagrams a second, median (best), and how many times as many raw echoes (the bar on asyncio and gevent is "
        f"{BAR}); the server's microseconds for one, and how many times as many packetcore takes",
        ("server", "1000/s (best)", "raw/ours", "µs", "CPU", "busy", "lost"),
        rows,
    )
    if any(median(one.busy for one in values) < SATURATED for values in measured.values()):
        print(f"A server less busy than {SATURATED:.0%} waited for the client: compare the CPU column, not the rates.")
    results = rates | {f"{case}, server's cost": values for case, values in costs.items()}
    save(options.json, "echo_udp", "datagrams per second; server's cost: microseconds per datagram", results)


if __name__ == "__main__":
    main()
