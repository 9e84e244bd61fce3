"""A server that is killed under load: what its clients hear, and how soon they are back.

Clients of one adapter, which come back by themselves, keep packets going to and fro with a
server in a process of its own. That process is killed with no chance to say goodbye, and after
a while another one listens on the same port. Every client must hear of the end, with a reason,
and must be served again at the latest when the longest wait of its backoff is over.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from statistics import median
from typing import Any

import psutil
from _common import show
from _processes import TRANSPORTS, Child, Echo, answer, begin_child, load, raise_file_limit

from packetcore import Backoff, CloseReason, Config, Driver, Handler, Packet, Session

BACKOFF = Backoff(initial=0.1, maximum=2.0)
IN_FLIGHT = 4
"""Packets on each connection."""
PAYLOAD = bytes(200)
DOWN = 1.0
"""Seconds for which nobody listens, unless told otherwise."""
SLACK = 2.0
"""Seconds beyond the backoff's longest wait for connecting all, on a machine with other work."""
PATIENCE = 30.0
"""Seconds after which clients are given up."""
LOOP_FILES = 1
"""Descriptors that a loop may open for itself at its first connection, as libuv does."""
SPARE_FILES = 100
"""Descriptors that a process needs for other things."""


def run(pipe: Pipe, transport: str, port: int, clients: int) -> None:
    """Serve in a child process."""
    begin_child()
    raise_file_limit(clients + SPARE_FILES)
    server = load(transport).start_server(Echo(), port=port, config=Config(max_sessions_per_host=None))
    answer(pipe, {"port": lambda: server.address[1]})


class Load(Handler):
    """Keeps packets going on one client's connections, and notes when those come and go."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.connected_at: list[float] = []
        self.served_at: list[float] = []
        """When each connection had its first reply."""
        self.lost_at: list[float] = []
        self.reasons: list[CloseReason] = []
        self.replies = 0
        self.is_over = False
        """Set it to let the connection fall silent."""

    def connected(self, session: Session) -> None:
        self.connected_at.append(time.monotonic())
        for number in range(IN_FLIGHT):
            session.send(Packet(number, PAYLOAD))

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.replies += 1
        if not self.is_over:
            session.send(packet)
        if len(self.served_at) < len(self.connected_at):
            self._note(self.served_at)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        # A connection that the server took and did not serve has an end and no reply.
        del self.connected_at[len(self.served_at) :]
        if len(self.lost_at) < len(self.served_at):
            self.reasons.append(reason)
            self._note(self.lost_at)

    def _note(self, times: list[float]) -> None:
        with self._changed:
            times.append(time.monotonic())
            self._changed.notify_all()


@dataclass(frozen=True)
class Outage:
    """One of them, as all clients saw it."""

    heard: list[float]
    """Seconds from the kill until each knew."""
    back: list[float]
    """Seconds from the new server's first moment until each was served."""
    reasons: Counter[CloseReason]
    """What each was told."""


class Clients:
    """All clients of one adapter."""

    def __init__(self, driver: Driver, port: int, count: int) -> None:
        self._changed = threading.Condition()
        self.loads = [Load(self._changed) for _ in range(count)]
        self._driver = driver
        self._clients: list[Any] = [driver.connect("127.0.0.1", port, load, reconnect=BACKOFF) for load in self.loads]

    def wait(self, name: str, count: int) -> list[float]:
        """Wait until something has happened `count` times to every client; give when it last did."""
        lists: list[list[float]] = [getattr(load, name) for load in self.loads]
        with self._changed:
            if not self._changed.wait_for(lambda: all(len(times) >= count for times in lists), PATIENCE):
                missing = sum(len(times) < count for times in lists)
                raise TimeoutError(f"{missing} clients of {len(lists)} have no {name} number {count} in {PATIENCE} s")
            return [times[count - 1] for times in lists]

    def close(self) -> None:
        """Have none come back."""
        for each in self.loads:
            each.is_over = True
        for client in self._clients:
            self._driver.call(client.close)


def measure(transport: str, count: int, outages: int, down: float) -> tuple[list[Outage], int, int]:
    """Kill a server so many times.

    Returns:
        What happened, how many replies the clients had, and how many descriptors they left.
    """
    driver = load(transport)
    seen: list[Outage] = []
    try:
        server = Child(run, transport, 0, count)
        try:
            port = server.ask("port")
            descriptors = psutil.Process().num_fds()
            clients = Clients(driver, port, count)
            clients.wait("served_at", 1)
            for number in range(1, outages + 1):
                time.sleep(down)  # under load
                killed_at = time.monotonic()
                server.kill()
                lost = clients.wait("lost_at", number)
                server.__exit__()
                time.sleep(max(0.0, killed_at + down - time.monotonic()))
                server = Child(run, transport, port, count)
                server.ask("port")
                listening_at = time.monotonic()
                served = clients.wait("served_at", number + 1)
                seen.append(
                    Outage(
                        [at - killed_at for at in lost],
                        [at - listening_at for at in served],
                        Counter(load.reasons[number - 1] for load in clients.loads),
                    )
                )
            clients.close()
            left = _settled(descriptors)
        finally:
            server.__exit__()
    finally:
        driver.stop()
    return seen, sum(load.replies for load in clients.loads), left


def _settled(descriptors: int) -> int:
    """How many descriptors there are beyond so many, once that is none or time is up."""
    until = time.monotonic() + 5
    while (left := psutil.Process().num_fds() - descriptors) > LOOP_FILES and time.monotonic() < until:
        time.sleep(0.1)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="only this one; may be repeated")
    parser.add_argument("--clients", type=int, default=200, help="how many clients (%(default)s)")
    parser.add_argument("--outages", type=int, default=3, help="how often the server is killed (%(default)s)")
    parser.add_argument("--down", type=float, default=DOWN, help="seconds without a server (%(default)s)")
    options = parser.parse_args()
    raise_file_limit(options.clients + SPARE_FILES)
    bound = BACKOFF.maximum + SLACK
    rows, wrong = [], []
    for transport in options.transport or TRANSPORTS:
        outages, replies, left = measure(transport, options.clients, options.outages, options.down)
        if left > LOOP_FILES:
            wrong.append(f"{transport}: the clients left {left} descriptors")
        for number, outage in enumerate(outages, 1):
            if max(outage.back) > bound:
                wrong.append(f"{transport}: a client was back after {max(outage.back):.1f} s")
            rows.append(
                (
                    f"{transport}, {number}",
                    ", ".join(f"{reason.name} {count}" for reason, count in outage.reasons.most_common()),
                    f"{median(outage.heard) * 1000:.0f} ({max(outage.heard) * 1000:.0f})",
                    f"{median(outage.back):.2f} ({max(outage.back):.2f})",
                    f"{bound:.1f}",
                    f"{replies:,}" if number == 1 else "",
                )
            )
    show(
        f"{options.clients} clients of a server that is killed and down for {options.down} s: what they were told; "
        "milliseconds from the kill until they were, median (most); seconds from the new server's start until they "
        f"were served, and the bound: a longest wait of {BACKOFF.maximum} s and {SLACK} s to connect all",
        ("outage", "reasons", "heard, ms", "back, s", "bound", "replies in all"),
        rows,
    )
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
