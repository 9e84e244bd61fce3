"""From an accepted connection to its session: TLS first, where there is any."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from ssl import SSLContext

from packetcore import Address, Endpoint, Refusal
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._loop import Loop
from packetcore_sockets._tls import TLSRecords


class Acceptor:
    """Takes what a `Listener` accepts.

    Args:
        loop: watches the sockets.
        endpoint: hears of peers whose TLS failed.
        context: what to speak TLS by; `None` for plain TCP.
        begin: begins a session: called with a socket, its peer's address and its TLS.
    """

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint,
        context: SSLContext | None,
        begin: Callable[[socket.socket, Address, TLSRecords | None], object],
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._context = context
        self._begin = begin
        self._handshakes: dict[socket.socket, Handshake] = {}

    def accepted(self, sock: socket.socket, peer: Address) -> None:
        """Take one; the session begins now, or once TLS is agreed on within `connect_timeout`."""
        if self._context is None:
            self._begin(sock, peer, None)
            return
        limit = self._endpoint.config.connect_timeout
        until = None if limit is None else self._loop.time() + limit
        done = partial(self._secured, sock, peer)
        try:
            self._handshakes[sock] = Handshake(self._loop, sock, self._context, done, until=until)
        except OSError:
            self._endpoint.refused(peer, Refusal.TLS_FAILED)

    def close(self) -> None:
        """End the handshakes under way."""
        while self._handshakes:
            self._handshakes.popitem()[1].cancel()

    def _secured(self, sock: socket.socket, peer: Address, result: TLSRecords | OSError) -> None:
        del self._handshakes[sock]
        if isinstance(result, TLSRecords):
            self._begin(sock, peer, result)
        else:
            self._endpoint.refused(peer, Refusal.TLS_FAILED)
