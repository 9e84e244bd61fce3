"""Listening on TCP: every address of a host, and what to do when accepting fails."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence

from packetcore import Address, Handle
from packetcore_sockets._carrier import address_of, address_text, as_address
from packetcore_sockets._loop import Loop
from packetcore_sockets._open import AddressInfo, open_each

ACCEPTED_AT_ONCE = 100
"""Connections that one turn accepts, so that those there are wait no longer for it."""

ACCEPT_PAUSE = 1.0
"""Seconds until a server that could not accept, for want of descriptors mostly, tries again."""

BACKLOG = 1024
"""Connections that the system keeps for a server that is busy or out of descriptors."""

log = logging.getLogger("packetcore")


class Listener:
    """Accepts what one socket has to accept, until it is closed.

    Where that fails, peers wait in the backlog for `ACCEPT_PAUSE` seconds. The log tells of it
    once, however often it fails until it works again.

    Args:
        loop: watches the socket.
        sock: listening; it belongs to this from now on.
        accepted: called with each connection's socket, which blocks yet, and its peer's address.
    """

    def __init__(self, loop: Loop, sock: socket.socket, accepted: Callable[[socket.socket, Address], object]) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._is_failing = False
        self._pause: Handle | None = None
        self._watch()

    def close(self) -> None:
        """Accept no more, and close the socket. Idempotent."""
        if self._sock.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.set_reader(self._sock, None)
        self._sock.close()

    def _watch(self) -> None:
        self._loop.set_reader(self._sock, self._readable)

    def _readable(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._sock.fileno() < 0:  # closed in the same turn, or by an accepted peer's handler
                return
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                self._fail(error)
                return
            self._accepted(sock, as_address(peer))
        else:
            return
        if self._is_failing:
            self._is_failing = False
            log.warning("accepting on %s again", address_text(address_of(self._sock)))

    def _fail(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            where = address_text(address_of(self._sock))
            log.error("accepting on %s failed, trying again: %s", where, error)
        self._loop.set_reader(self._sock, None)
        self._pause = self._loop.call_at(self._loop.time() + ACCEPT_PAUSE, self._watch)


def open_tcp_listeners(infos: Sequence[AddressInfo], port: int, backlog: int = BACKLOG) -> list[socket.socket]:
    """Listen on every address of a host that this machine has, all with one port.

    Args:
        infos: the addresses, as `getaddrinfo` gives them.
        port: 0 takes a free one.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: an address is in use, or none is this machine's.
    """

    def listen(family: int, address: Address) -> socket.socket:
        return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=False)

    return open_each(infos, port, listen)
