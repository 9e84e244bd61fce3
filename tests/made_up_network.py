"""A network with a seed: it loses, doubles and reorders datagrams, and it is the only clock.

`DatagramEndpoint`s are attached at addresses, and what one sends the others receive later, or
never, or twice. A run depends on the seed alone. What any endpoint must keep to, whatever it
is used for, is asserted here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from errno import EAGAIN, ECONNREFUSED
from heapq import heappop, heappush

from packetcore import Address, Carrier, DatagramEndpoint

LATENCY = 0.05
"""How long a datagram is under way at least, in seconds."""


@dataclass(frozen=True)
class Faults:
    """What the network does to datagrams, as chances from 0 to 1 but for `jitter`."""

    loss: float = 0.0
    duplication: float = 0.0
    jitter: float = 0.0
    """By how much longer than `LATENCY` one may take, in seconds: more than the time between
    two of them changes their order."""
    full: float = 0.0
    """That the sender's own system has no room for one."""
    early: float = 0.0
    """That a timer fires once too early, and once more when it is due."""


class Network:
    """Carries datagrams and calls at times, in the order of time."""

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.rng = random.Random(seed)
        self.faults = Faults() if faults is None else faults
        self.now = 1_000.0
        self.sent: Counter[Address] = Counter()
        """How many datagrams each address has sent."""
        self.copies: Counter[tuple[Address, Address, bytes]] = Counter()
        """How many copies of each datagram were delivered, by sender and receiver."""
        self._sockets: dict[Address, MadeUpSocket] = {}
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._planned = 0

    def attach(self, addr: Address, endpoint: DatagramEndpoint) -> None:
        """Give an endpoint a socket of its own."""
        assert addr not in self._sockets
        endpoint.host = self._sockets[addr] = MadeUpSocket(self, addr, endpoint)

    def detach(self, addr: Address) -> None:
        """Let nobody be there any more."""
        self._sockets.pop(addr, None)

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Call at a time, in seconds; one that has passed means soon."""
        self._planned += 1
        heappush(self._agenda, (max(when, self.now), self._planned, action))

    def run(self, most: int = 20_000) -> None:
        """Let time pass until nothing is left to happen."""
        for _ in range(most):
            if not self._agenda:
                return
            self.now, _, action = heappop(self._agenda)
            action()
        raise AssertionError(f"still busy after {most} events")

    def carry(self, source: Address, target: Address, data: bytes) -> None:
        """Take one datagram.

        Raises:
            BlockingIOError: there was no room for it.
        """
        rng, faults = self.rng, self.faults
        if rng.random() < faults.full:
            raise BlockingIOError(EAGAIN, "no room")
        self.sent[source] += 1
        if rng.random() < faults.loss:
            return
        for _ in range(2 if rng.random() < faults.duplication else 1):
            delay = LATENCY + faults.jitter * rng.random()
            self.at(self.now + delay, lambda: self._deliver(source, target, data))

    def _deliver(self, source: Address, target: Address, data: bytes) -> None:
        receiver, sender = self._sockets.get(target), self._sockets.get(source)
        if receiver is not None:
            self.copies[source, target, data] += 1
            receiver.endpoint.received(data, source, self.now)
        elif sender is not None:
            sender.endpoint.error(ConnectionRefusedError(ECONNREFUSED, "refused"), target, self.now)


class MadeUpSocket:
    """The `DatagramHost` of one endpoint on the network."""

    def __init__(self, network: Network, addr: Address, endpoint: DatagramEndpoint) -> None:
        self.network = network
        self.addr = addr
        self.endpoint = endpoint
        self._timer: float | None = None
        self._is_closed = False

    def write_to(self, data: bytes, addr: Address) -> None:
        assert not self._is_closed
        self.network.carry(self.addr, addr, data)

    def set_timer(self, at: float | None) -> None:
        assert at is None or not self._is_closed
        self._timer = at
        if at is not None:
            network = self.network
            network.at(at, lambda: self._fire(at))
            if network.rng.random() < network.faults.early:
                network.at(network.now + (at - network.now) * network.rng.random(), self._tick)

    def wake(self) -> None:
        self.network.at(self.network.now, lambda: self.endpoint.flush(self.network.now))

    def carrier(self) -> Carrier:
        return Carrier("udp", self.addr)

    def close(self) -> None:
        assert not self._is_closed
        assert self._timer is None
        self._is_closed = True
        self.network.detach(self.addr)

    def _fire(self, at: float) -> None:
        if self._timer == at:
            self._timer = None
            self._tick()

    def _tick(self) -> None:
        if not self._is_closed:
            self.endpoint.tick(self.network.now)
            assert self._timer is None or self._timer > self.network.now, "the next timer is later than now"
