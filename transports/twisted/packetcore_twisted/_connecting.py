"""Connecting by the reactor's own resolver and connectors, which a test's reactor has too. The order of
addresses and the delays are those of every adapter: `HostnameEndpoint` does not try the next address
at once where one refuses, nor has families take turns."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import Address
from packetcore_sockets import AddressInfo, Attempts, Loop, Race, scoped_host
from packetcore_twisted._protocol import address_of


async def addresses_of(reactor: Any, host: str, port: int) -> list[AddressInfo]:
    """The addresses of a host, by the resolver that the reactor is set to.

    Raises:
        ValueError: the name is none.
        twisted.internet.error.DNSLookupError: it has no address.
    """
    if isIPAddress(host) or isIPv6Address(host):
        return [_info(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))]
    try:
        host.encode("idna")
    except UnicodeError as error_:
        raise ValueError(f"invalid hostname: {host!r}") from error_
    resolved = Deferred[list[AddressInfo]]()
    reactor.nameResolver.resolveHostName(_Receiver(resolved.callback), host, portNumber=port)
    if not (infos := await resolved):
        raise error.DNSLookupError(f"no address was found for {host!r}")
    return infos


async def connect_first(reactor: Any, loop: Loop, attempts: Attempts, factory: Any) -> bool:
    """Connect a protocol of a factory to the first address that answers; whether one does."""
    over = Deferred[Any](lambda _: race.cancel())

    def done(result: Any) -> None:
        if isinstance(result, Exception):
            over.errback(result)
        else:
            over.callback(result)

    race = Race[Any](loop, attempts, partial(Connecting, reactor, factory), done, _lose)
    return await over is not None


class Connecting:
    """A connector to one address; see `packetcore_sockets.Attempt`."""

    def __init__(self, reactor: Any, factory: Any, info: AddressInfo, done: Callable[[Any], object]) -> None:
        self._done: Callable[[Any], object] = self._remember
        self._error: Exception | None = None
        host, port = scoped_host(info[4]), info[4][1]
        new_endpoint: Any = TCP4ClientEndpoint  # whose connectors take IPv6 as well
        self._connecting = new_endpoint(reactor, host, port, None).connect(factory)
        self._connecting.addCallbacks(lambda protocol: self._done(protocol), self._failed)
        if self._error is not None:
            raise self._error
        self._done = done

    def cancel(self) -> None:
        """End it and tell nobody. Idempotent."""
        self._done = _ignore
        self._connecting.cancel()

    def _failed(self, failure: Any) -> None:
        reason = failure.value
        if isinstance(reason, error.ConnectError):
            number = reason.osError
            reason = OSError(number, os.strerror(number)) if isinstance(number, int) else OSError(str(reason))
        self._done(reason)

    def _remember(self, result: Any) -> None:
        self._error = result


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects what a resolver finds."""

    def __init__(self, done: Callable[[list[AddressInfo]], object]) -> None:
        self._done = done
        self._infos: list[AddressInfo] = []

    def resolutionBegan(self, resolutionInProgress: object) -> None:  # noqa: N802, N803
        """It cannot be ended usefully: a look-up on a thread goes on."""

    def addressResolved(self, address: object) -> None:  # noqa: N802
        if isinstance(address, IPv4Address):
            self._infos.append(_info(socket.AF_INET, address_of(address)))
        elif isinstance(address, IPv6Address):
            self._infos.append(_info(socket.AF_INET6, address_of(address)))

    def resolutionComplete(self) -> None:  # noqa: N802
        self._done(self._infos)


def _info(family: int, address: Address) -> AddressInfo:
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address


def _lose(protocol: Any) -> None:
    protocol.transport.abortConnection()


def _ignore(result: object) -> None:
    """It was given up."""
