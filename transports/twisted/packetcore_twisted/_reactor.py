"""What every part asks of a reactor."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from packetcore_sockets import AddressInfo

_log = Logger(namespace="packetcore")


def log_failure(message: str) -> None:
    """Log an exception that is being handled, as Twisted does."""
    _log.failure("{message}", message=message)


def the_reactor(reactor: Any) -> Any:
    """The one given, or the global one."""
    if reactor is None:
        from twisted.internet import reactor  # not before: importing it is choosing it
    return reactor


async def look_up(
    reactor: Any, host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
) -> Sequence[AddressInfo]:
    """The addresses of a host, as `getaddrinfo` gives them; a thread waits for those of a name."""
    if host is None or isIPAddress(host) or isIPv6Address(host):
        return socket.getaddrinfo(host, port, type=kind, flags=flags)
    pool = reactor.getThreadPool()
    found: Sequence[AddressInfo] = await deferToThreadPool(
        reactor, pool, socket.getaddrinfo, host, port, type=kind, flags=flags
    )
    return found
