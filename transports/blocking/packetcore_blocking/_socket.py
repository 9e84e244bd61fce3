"""One socket, served under a loop's lock."""

from __future__ import annotations

import socket
from functools import partial
from time import monotonic

from packetcore import Address, Endpoint
from packetcore_blocking._loop import Loop
from packetcore_blocking._session import LockedSession
from packetcore_sockets import StreamSocket, TLSRecords


class Socket(StreamSocket):
    """The host of a session that any thread may use. `StreamSocket` says more."""

    def __init__(
        self, loop: Loop, endpoint: Endpoint, sock: socket.socket, peer: Address, tls: TLSRecords | None = None
    ) -> None:
        self._open = loop.open
        self._open.add(self._shut)
        super().__init__(loop, endpoint, sock, peer, tls, partial(LockedSession, loop))

    def _shut(self) -> None:
        self.session.abort()
        self.session.flush(monotonic())

    def _release(self) -> None:
        super()._release()
        self._open.discard(self._shut)
