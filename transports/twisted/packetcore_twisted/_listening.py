"""Listening sockets on a reactor, which Twisted's own ports are not good enough for: out of
descriptors, those accept a peer to close it and log that for each; they know one address; and of
peers that were reset before they were accepted they make nothing."""

from __future__ import annotations

import socket
from itertools import count
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import Address
from packetcore_sockets import ACCEPT_PAUSE, Listener


@implementer(IReadDescriptor)
class ListeningSocket(Listener):
    """Accepts connections and hands them to the reactor.

    Args:
        sock: listening; it belongs to this from now on.
        factory: makes the protocol of each connection.
        reactor: an `IReactorFDSet`.
    """

    def __init__(self, sock: socket.socket, factory: Any, reactor: Any) -> None:
        super().__init__(sock, self._begin)
        self._factory = factory
        self._reactor = reactor
        self._pause: Any = None
        reactor.addReader(self)

    def stopListening(self) -> None:  # noqa: N802
        """Accept no more, and close the socket."""
        self._reactor.removeReader(self)
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self.sock.close()

    def _begin(self, sock: socket.socket, peer: Address) -> None:
        new_address: Any = IPv4Address if len(peer) == 2 else IPv6Address
        protocol = self._factory.buildProtocol(new_address("TCP", *peer))
        protocol.makeConnection(_Connection(sock, protocol, peer, self._reactor))

    # What the reactor calls.

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:  # noqa: N802
        return "packetcore"

    def doRead(self) -> None:  # noqa: N802
        if not self.accept():
            self._reactor.removeReader(self)
            self._pause = self._reactor.callLater(ACCEPT_PAUSE, self._reactor.addReader, self)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        self.stopListening()


class _Connection(tcp.Server):
    """A connection that was accepted. Twisted's `adoptStreamConnection` would ask the socket who
    its peer is, and a socket that was reset knows no more."""

    _numbers = count(1)

    def __init__(self, sock: socket.socket, protocol: Any, peer: Address, reactor: Any) -> None:
        no_port: Any = None
        super().__init__(sock, protocol, peer, no_port, next(self._numbers), reactor)
        self.repstr = f"<{type(protocol).__name__} #{self.sessionno} with {peer[0]} port {peer[1]}>"
