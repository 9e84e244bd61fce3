"""The client of `echo.py`: sockets that send encoded frames and check what comes back.

It knows nothing of packets: each connection has a cycle of frames in flight, and for every n
bytes that come back it compares them and sends the n that follow. It sleeps while nothing
comes: a server that is slower than the client pays for waking it, as it would pay a network card.
"""

from __future__ import annotations

import math
import random
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from _processes import Child

from packetcore import Packet, encode

PAYLOAD = 64
"""Bytes of payload in each packet, random ones: two of five frames hold an escape."""
WARM_UP = 0.05
"""Seconds that a measurement does not count: connections fill, caches warm."""
PATIENCE = 10.0
"""Seconds without a byte after which a server is given up."""


@dataclass(frozen=True)
class Measured:
    """One measurement of one server."""

    rate: float
    """Packets echoed a second."""
    cost: float
    """Microseconds of the server's processor time for each, the kernel's part included."""
    busy: float
    """The part of the time for which the server ran, 0 to 1."""


class Echoed:
    """One connection: what it sends is a cycle of frames, and so is what must come back."""

    def __init__(self, sock: socket.socket, cycle: bytes) -> None:
        sock.setblocking(False)
        self._receive, self._write = sock.recv, sock.send
        self._cycle = cycle
        self._size = len(cycle)
        self._expected = cycle * 2
        self._at = 0  # where in the cycle the next byte to come back stands
        self._send(cycle)

    def turn(self) -> int:
        """Take what came back, check it, and send as much again. Returns how much came."""
        data = self._take()
        self._send(data)
        return len(data)

    def end(self) -> int:
        """Take what came back, check it, and send no more. Returns how much came."""
        return len(self._take())

    def _take(self) -> bytes:
        data = self._receive(self._size)
        if not data or not self._expected.startswith(data, self._at):
            raise RuntimeError(f"the echo went wrong: {data[:40].hex()} at {self._at} of {self._cycle[:40].hex()}...")
        self._at = (self._at + len(data)) % self._size
        return data

    def _send(self, data: bytes) -> None:
        if self._write(data) != len(data):
            raise RuntimeError("a socket buffer is too small for what is in flight")


class EchoedTLS(Echoed):
    """The same over TLS, whose socket may hold what the system has given it already."""

    def __init__(self, sock: ssl.SSLSocket, cycle: bytes) -> None:
        self._pending = sock.pending
        super().__init__(sock, cycle)

    def turn(self) -> int:
        return self._each(super().turn)

    def end(self) -> int:
        return self._each(super().end)

    def _each(self, turn: Callable[[], int]) -> int:
        try:
            echoed = turn()
            while self._pending():
                echoed += turn()
        except ssl.SSLWantReadError:  # only a part of a record has come, or none of ours
            return 0
        return echoed


def cycle_for(server: str, depth: int) -> bytes:
    """As many frames as are in flight, so that what comes back is what to send next."""
    random_bytes = random.Random(depth).randbytes
    packets = [Packet(index, random_bytes(PAYLOAD)) for index in range(depth)]
    if server == "Int32StringReceiver":
        return b"".join(struct.pack(">I", PAYLOAD) + packet.payload for packet in packets)
    return b"".join(map(encode, packets))


def measure(
    child: Child,
    port: int,
    server: str,
    depth: int,
    seconds: float,
    context: ssl.SSLContext | None = None,
    *,
    connections: int,
) -> Measured:
    """Drive a server for some seconds.

    Args:
        child: its process.
        server: its name, which tells how it frames packets.
        depth: packets in flight on each connection.
        context: to speak TLS with.
        connections: on how many.
    """
    cycle = cycle_for(server, depth)
    with ExitStack() as stack:
        if sys.platform == "linux":
            poller = stack.enter_context(select.epoll())
            poll = partial(poller.poll, PATIENCE)
        else:
            poller = select.poll()
            poll = partial(poller.poll, PATIENCE * 1000)
        turns, ends = {}, {}
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is None:
                connection = Echoed(sock, cycle)
            else:
                secured = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
                connection = EchoedTLS(secured, cycle)
                sock = secured
            turns[sock.fileno()], ends[sock.fileno()] = connection.turn, connection.end
            poller.register(sock, select.POLLIN)
        _drive(poll, turns, until=time.perf_counter() + WARM_UP)
        used, begin = child.ask("processor_time"), time.perf_counter()
        echoed = _drive(poll, turns, until=begin + seconds)
        elapsed = time.perf_counter() - begin
        used = child.ask("processor_time") - used
        _drive(poll, ends, most=connections * len(cycle))
    if not echoed:
        raise RuntimeError(f"the {server} server echoed nothing in {elapsed:.1f} s")
    packets = echoed / len(cycle) * depth
    return Measured(packets / elapsed, used / packets * 1e6, min(1.0, used / elapsed))


def _drive(
    poll: Callable[[], list[tuple[int, int]]],
    turns: Mapping[int, Callable[[], int]],
    *,
    until: float = math.inf,
    most: float = math.inf,
) -> int:
    """Let each connection that has something take its turn, until a time or until so many
    bytes have come. Returns how many did."""
    clock = time.perf_counter
    echoed = 0
    while echoed < most and clock() < until:
        ready = poll()
        if not ready:
            raise TimeoutError(f"nothing came back for {PATIENCE} s")
        for number, _ in ready:
            echoed += turns[number]()
    return echoed
