"""Connecting, and TLS where it is wanted: what a greenlet waits for before there is a session."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLContext

import gevent
import gevent.socket
from gevent.queue import Queue

from packetcore import Address, Endpoint
from packetcore_gevent._loop import HubLoop
from packetcore_gevent._tls import over_memory
from packetcore_sockets import Handshake, TLSRecords

Dialled = tuple[socket.socket, Address, TLSRecords | None]
"""A connected socket, its peer's address and its TLS."""

Dial = Callable[[Endpoint], Dialled]
"""Connects for an endpoint."""


@dataclass(frozen=True, slots=True)
class Dialler:
    """A `Dial` to one place; `connect` says what its fields mean."""

    loop: HubLoop
    host: str
    port: int
    ssl: SSLContext | None = None
    server_hostname: str | None = None

    def __call__(self, endpoint: Endpoint) -> Dialled:
        """Connect within `connect_timeout`.

        Raises:
            OSError: see `connect`.
        """
        timeout = gevent.Timeout(endpoint.config.connect_timeout)
        try:
            with timeout:
                return self._connect()
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise endpoint.connect_timed_out(self.host, self.port) from None

    def _connect(self) -> Dialled:
        sock: socket.socket = gevent.socket.create_connection((self.host, self.port))
        try:
            peer = sock.getpeername()
            return sock, peer, None if self.ssl is None else self._secure(sock, self.ssl)
        except BaseException:
            sock.close()
            raise

    def _secure(self, sock: socket.socket, context: SSLContext) -> TLSRecords:
        queue: Queue[TLSRecords | OSError] = Queue()
        name = self.server_hostname or self.host
        handshake = Handshake(self.loop, sock, over_memory(context), queue.put, server_hostname=name)
        try:
            agreed = queue.get()
        finally:
            handshake.cancel()
        if isinstance(agreed, OSError):
            raise agreed
        return agreed
