"""A server's way in: its listening sockets, and what came by them until it is a session."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from ssl import SSLContext
from typing import Any

from packetcore import Address, Endpoint, Handle, Refusal, Session
from packetcore_sockets._listener import Listener
from packetcore_sockets._network import Network


class Listening:
    """Accepts for an endpoint, until it is closed.

    Args:
        network: accepts.
        endpoint: whose sessions they are to be; hears of peers whose TLS failed.
        sockets: listening; they belong to this from now on.
        context: what to speak TLS by; `None` for plain TCP.
    """

    def __init__(
        self, network: Network, endpoint: Endpoint[Any], sockets: Sequence[socket.socket], context: SSLContext | None
    ) -> None:
        self._network = network
        self._endpoint = endpoint
        self._context = context
        self._opening: dict[socket.socket, Handle] = {}
        self._listeners = [Listener(network, sock, self._accepted) for sock in sockets]

    def close(self) -> None:
        """Accept no more, and end the handshakes under way. Idempotent."""
        for listener in self._listeners:
            listener.close()
        while self._opening:
            self._opening.popitem()[1].cancel()

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        done = partial(self._opened, sock, peer)
        try:
            opening = self._network.accept(self._endpoint, sock, peer, self._context, done)
        except OSError as error:
            done(error)
        else:
            if opening is not None:
                self._opening[sock] = opening

    def _opened(self, sock: socket.socket, peer: Address, result: Session[Any] | Exception) -> None:
        self._opening.pop(sock, None)
        if isinstance(result, Exception) and self._context is not None:
            self._endpoint.refused(peer, Refusal.TLS_FAILED)
