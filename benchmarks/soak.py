"""A server for minutes among peers of every kind: nothing may leak, and no byte may be wrong.

Threads of this process are the peers: each has one conversation after another, of a kind and
with contents that a seed chooses, while the server, in a process of its own, is restarted on
the same port now and then. Every echo is compared byte for byte. A connection may break only
while the server is being restarted. At the end no session and no descriptor may be left, the
memory must be what it was after a fifth of the time, and nothing may have been logged.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
import time
from collections import Counter
from statistics import median

from _processes import TRANSPORTS, Child
from _soak_peers import BEHAVIOURS, Peer, Wrong, datagrams, echo
from _soak_server import Census, run

MEBI = 1 << 20
PEERS = 24
"""Threads, and so conversations at a time; some have several connections."""
RESTARTS = (3.0, 9.0)
"""Seconds between two restarts, chosen anew each time."""
SAMPLE = 0.25
"""Seconds between two looks at the memory."""
REPORT = 5.0
"""Seconds between two lines."""
GROWTH_BAR = 8 * MEBI
"""Bytes that memory may differ by between the second fifth of the time and the last: what
peers happen to be doing at the time moves it by as much."""
SETTLE = 20.0
"""Seconds for what is left at the end to time out."""
MOST_FAILURES = 20
"""After so many there is nothing more to learn."""


class Soak:
    """The peers, and what became of their conversations."""

    def __init__(self, server: Child, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._tcp, self._udp = server.ask("ports")
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._restarting = False
        self.restarts = 0
        self.done = Counter[str]()
        """Conversations that went well, by kind."""
        self.broken = 0
        """Those that a restart cut short."""
        self.failures: list[str] = []
        self._rss: list[tuple[float, int]] = []

    def run(self, seconds: float) -> None:
        """Soak for so long."""
        peers = [threading.Thread(target=self._be_peer, args=(number,), daemon=True) for number in range(PEERS)]
        chance = random.Random(self._seed)
        begin = time.monotonic()
        restart_at = begin + chance.uniform(*RESTARTS)
        report_at = begin + REPORT
        for peer in peers:
            peer.start()
        try:
            while (now := time.monotonic()) < begin + seconds and len(self.failures) < MOST_FAILURES:
                self._rss.append(((now - begin) / seconds, self._server.ask("rss")))
                if now >= restart_at:
                    self._restart(chance.choice((0.0, 0.1, 0.5)))
                    restart_at = time.monotonic() + chance.uniform(*RESTARTS)
                if now >= report_at:
                    self._report(now - begin)
                    report_at = now + REPORT
                self._over.wait(SAMPLE)
        finally:
            self._over.set()
            for peer in peers:
                peer.join()

    def growth(self) -> int:
        """Bytes by which the last fifth's memory is above the second fifth's, by their medians."""
        second = [rss for part, rss in self._rss if 0.2 <= part < 0.4]
        last = [rss for part, rss in self._rss if part >= 0.8]
        return int(median(last) - median(second)) if second and last else 0

    def _restart(self, grace: float) -> None:
        with self._lock:
            self._restarting = True
            self.restarts += 1
        self._server.ask("restart", grace)
        with self._lock:
            self._restarting = False

    def _be_peer(self, number: int) -> None:
        chance = random.Random(self._seed * 1000 + number)
        kinds, weights = list(BEHAVIOURS), list(BEHAVIOURS.values())
        while not self._over.is_set():
            behave = chance.choices(kinds, weights)[0]
            peer = Peer(self._tcp, self._udp, random.Random(chance.randrange(1 << 32)))
            with self._lock:
                restarts, was_restarting = self.restarts, self._restarting
            try:
                behave(peer)
            except (OSError, Wrong) as error:
                with self._lock:
                    if isinstance(error, OSError) and (was_restarting or restarts != self.restarts):
                        self.broken += 1
                    else:
                        self.failures.append(f"{behave.__name__}: {type(error).__name__}: {error}")
                self._over.wait(0.05)
            else:
                with self._lock:
                    self.done[behave.__name__] += 1

    def _report(self, elapsed: float) -> None:
        rss = self._rss[-1][1] / MEBI
        print(
            f"{elapsed:6.0f} s  {self.done.total():7,} conversations  {self.restarts:3} restarts  "
            f"{self.broken:5} cut short  {rss:6.1f} MiB  {len(self.failures)} failures",
            flush=True,
        )


def settled(server: Child, start: Census) -> Census:
    """What the server holds once it holds no more than at the start, or when time is up."""
    until = time.monotonic() + SETTLE
    while True:
        census: Census = server.ask("census")
        is_clean = not census.sessions and not census.objects and census.descriptors <= start.descriptors
        if is_clean or time.monotonic() > until:
            return census
        time.sleep(0.2)


def soak(transport: str, seconds: float, seed: int) -> list[str]:
    """Soak one adapter. Returns what went wrong."""
    print(f"{transport}: {seconds:.0f} s, seed {seed}, {PEERS} peers", flush=True)
    with Child(run, transport) as server:
        # What a loop opens once, at its first connection or restart, is no leak.
        tcp, udp = server.ask("ports")
        for behave in (echo, datagrams):
            behave(Peer(tcp, udp, random.Random(seed)))
        server.ask("restart", 0.0)
        start: Census = server.ask("census")
        soak = Soak(server, seed)
        soak.run(seconds)
        end = settled(server, start)
    wrong = soak.failures + [f"logged: {message}" for message in end.errors]
    if end.sessions or end.objects:
        wrong.append(f"{end.sessions} sessions are registered and {end.objects} in memory")
    if end.descriptors > start.descriptors:
        wrong.append(f"{end.descriptors} descriptors are open, {start.descriptors} were")
    if soak.growth() > GROWTH_BAR:
        wrong.append(f"memory grew by {soak.growth() / MEBI:.1f} MiB")
    kinds = ", ".join(f"{count:,} {name}" for name, count in soak.done.most_common())
    print(
        f"{transport}: {soak.done.total():,} conversations ({kinds}), {soak.restarts} restarts, {soak.broken} cut "
        f"short; {end.sessions} sessions and {end.descriptors - start.descriptors:+} descriptors left; memory "
        f"{soak.growth() / MEBI:+.1f} MiB; {len(wrong)} wrong",
        flush=True,
    )
    for line in wrong[:MOST_FAILURES]:
        print(f"  {line}", flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="only this one; may be repeated")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each transport (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="what happens; by default another each time")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(3), "big") if options.seed is None else options.seed
    wrong = [
        line for transport in options.transport or TRANSPORTS for line in soak(transport, options.minutes * 60, seed)
    ]
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
