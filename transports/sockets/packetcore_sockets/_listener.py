"""Listening on TCP: every address of a host, and what to do when accepting fails."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence

from packetcore import Address
from packetcore_sockets._open import AddressInfo, open_each

ACCEPTED_AT_ONCE = 100
"""Connections that one turn accepts, so that those there are wait no longer for it."""

ACCEPT_PAUSE = 1.0
"""Seconds until a server that could not accept, for want of descriptors mostly, tries again."""

BACKLOG = 1024
"""Connections that the system keeps for a server that is busy or out of descriptors."""

log = logging.getLogger("packetcore")


class Listener:
    """Accepts what one socket has to accept.

    Args:
        sock: listening; it belongs to this from now on.
        accepted: called with each connection's socket and its peer's address.
    """

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, Address], object]) -> None:
        self.sock = sock
        self._accepted = accepted
        self._is_failing = False

    def accept(self) -> bool:
        """Accept what is there, at most `ACCEPTED_AT_ONCE`.

        Returns:
            False if that failed: watch the socket no more for `ACCEPT_PAUSE` seconds, in which
            peers wait in the backlog, then call this again. The log tells of it once, however
            often it fails until it works again.
        """
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if self.sock.fileno() < 0:  # an accepted peer's handler closed it
                    return True
                if not self._is_failing:
                    self._is_failing = True
                    where = self.sock.getsockname()[:2]
                    log.error("accepting on %s port %s failed, trying again: %s", *where, error)
                return False
            self._accepted(sock, peer)
        else:
            return True
        if self._is_failing and self.sock.fileno() >= 0:
            self._is_failing = False
            log.warning("accepting on %s port %s again", *self.sock.getsockname()[:2])
        return True


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
        listener = socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=False)
        listener.setblocking(False)
        return listener

    return open_each(infos, port, listen)
