"""A tap on UDP: each client address has a socket of its own to the target, as behind a NAT."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from packetcore import Address
from packetcore_sockets import READ_AT_ONCE, address_text, open_udp_client
from packetcore_tap._connection import Ending, Flow, Line, TapConnection, log
from packetcore_tap._direction import Direction
from packetcore_tap._link import DatagramLink

IDLE_TIMEOUT = 120.0
"""Seconds of silence in both directions after which a client is forgotten: the least that a NAT may take (RFC 4787,
section 4.3)."""

MAX_CLIENTS = 500
"""Clients at a time, each with a descriptor; one more takes the place of the one that has been silent longest."""

_MOST = 65535


class DatagramFlow(Flow):
    """One direction of a client.

    Args:
        line: what it is part of.
        number: the connection's.
        direction: which way.
        connection: whose it is.
        send: sends one to where it goes.
    """

    _link: DatagramLink

    def __init__(
        self,
        line: Line,
        number: int,
        direction: Direction,
        connection: DatagramConnection,
        send: Callable[[bytes], object],
    ) -> None:
        super().__init__(line, number, direction, DatagramLink)
        self._connection = connection
        self._send = send

    def take(self, data: bytes) -> None:
        """Take one from where it came."""
        if not self._link.send(data, self._line.loop.time()):
            self._connection.drop(self)
        self.go_on()

    def go_on(self) -> None:
        """See `Flow`."""
        for data in self._link.receive(self._line.loop.time()):
            if not self._connection.is_open:
                return
            try:
                self._send(data)
            except OSError as error:  # there is no room, or nobody listened before: no datagram goes for sure
                self._connection.drop(self)
                self._connection.note_error(error)
            else:
                self._connection.note(self, data)
        if self._connection.is_open:
            self._go_on_at(self._link.next_deadline())


class DatagramConnection(TapConnection):
    """A client of UDP at one address.

    Args:
        line: what it is part of.
        front: the socket that clients send to.
        client: its address.
        forget: called once it is over.

    Raises:
        OSError: there is no way to the target.
    """

    def __init__(self, line: Line, front: socket.socket, client: Address, forget: Callable[[Address], object]) -> None:
        self._sock, server, _ = open_udp_client(line.target)
        super().__init__(line, client, is_stream=False)
        self.server = server
        self._forget = forget
        self._last_error: OSError | None = None
        self._to_server = DatagramFlow(line, self.number, "to_server", self, self._sock.send)
        self._to_client = DatagramFlow(line, self.number, "to_client", self, partial(_send_to, front, client))
        self.to_server, self.to_client = self._to_server, self._to_client
        self._touched_at = line.loop.time()
        line.loop.set_reader(self._sock, self._readable)
        self._timers.append(line.loop.call_at(self._touched_at + IDLE_TIMEOUT, self._look_whether_idle))
        self.connected()
        self.begin()

    def take(self, data: bytes) -> None:
        """Take one that its client has sent."""
        self._touched_at = self._line.loop.time()
        self._to_server.take(data)

    def note_error(self, error: OSError) -> None:
        """The system refuses a datagram, or tells of an earlier one."""
        if self._last_error is None or self._last_error.errno != error.errno:
            self._last_error = error
            self._line.tell(self._line.observer.failed, self, error)

    def release(self, ending: Ending) -> None:
        """See `TapConnection`."""
        self._line.loop.set_reader(self._sock, None)
        self._sock.close()
        self._forget(self.client)

    def _readable(self) -> None:
        for _ in range(READ_AT_ONCE):
            if not self.is_open:
                return
            try:
                data = self._sock.recv(_MOST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.note_error(error)
                return
            self._touched_at = self._line.loop.time()
            self._to_client.take(data)

    def _look_whether_idle(self) -> None:
        due = self._touched_at + IDLE_TIMEOUT
        if self._line.loop.time() >= due:
            self.finish(Ending.IDLE)
        else:
            self._timers.append(self._line.loop.call_at(due, self._look_whether_idle))


class DatagramFront:
    """The socket that clients of UDP send to.

    Args:
        line: what it is part of.
        sock: bound; it belongs to this from now on.
    """

    def __init__(self, line: Line, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._line = line
        self._sock = sock
        self._clients: dict[Address, DatagramConnection] = {}  # who sent last is the last
        self._told: int | None = None  # the error, while there is no way to the target
        line.loop.set_reader(sock, self._readable)

    def close(self) -> None:
        """Hear nobody any more. Idempotent."""
        if self._sock.fileno() >= 0:
            self._line.loop.set_reader(self._sock, None)
            self._sock.close()

    def _readable(self) -> None:
        for _ in range(READ_AT_ONCE):
            if self._sock.fileno() < 0:
                return
            try:
                data, client = self._sock.recvfrom(_MOST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # Windows tells of what was sent to one that has gone
                continue
            connection = self._clients.pop(client, None) or self._admit(client)
            if connection is not None:
                self._clients[client] = connection
                connection.take(data)

    def _admit(self, client: Address) -> DatagramConnection | None:
        if len(self._clients) >= MAX_CLIENTS:
            next(iter(self._clients.values())).finish(Ending.IDLE)
        try:
            connection = DatagramConnection(self._line, self._sock, client, self._gone)
        except OSError as error:
            if self._told != error.errno:
                self._told = error.errno
                where = address_text(self._line.target[0][4])
                log.warning("datagrams are lost, there is no way to %s: %s", where, error.strerror or error)
            return None
        self._told = None
        return connection

    def _gone(self, client: Address) -> None:
        self._clients.pop(client, None)


def _send_to(front: socket.socket, client: Address, data: bytes) -> None:
    front.sendto(data, client)
