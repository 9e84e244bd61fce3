"""Listening sockets on a reactor, which Twisted's own ports are not good enough for: out of
descriptors, those accept a peer to close it and log that for each, and they know one address."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

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
        reactor: an `IReactorSocket` and `IReactorFDSet`.
        gone: called with the socket and the address of a peer that has gone already.
    """

    def __init__(
        self, sock: socket.socket, factory: Any, reactor: Any, gone: Callable[[socket.socket, Address], object]
    ) -> None:
        super().__init__(sock, self._adopt)
        self._gone = gone
        self._factory = factory
        self._reactor = reactor
        self._spare = sock.dup()  # a descriptor to give up where there is no other
        self._pause: Any = None
        reactor.addReader(self)

    def stopListening(self) -> None:  # noqa: N802
        """Accept no more, and close the socket."""
        self._reactor.removeReader(self)
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self.sock.close()
        self._spare.close()

    def _adopt(self, sock: socket.socket, peer: Address) -> None:
        self._spare.close()  # the reactor duplicates the socket before we close it
        with suppress(OSError), sock:
            try:
                sock.getpeername()  # Twisted asks it, and drops who has gone
            except OSError:
                self._gone(sock, peer)
            else:
                self._reactor.adoptStreamConnection(sock.fileno(), sock.family, self._factory)
        with suppress(OSError):  # a thread was faster, or a handler has stopped the listening
            self._spare = self.sock.dup()

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
