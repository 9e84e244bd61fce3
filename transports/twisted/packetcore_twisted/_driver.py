"""Twisted on a thread of its own, for tools that are not Twisted."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from twisted.internet.task import deferLater

from packetcore import TLS
from packetcore_sockets import AsyncDriver, Started
from packetcore_twisted._adapter import ConnectionPool, adapter
from packetcore_twisted._reactor import Reactor, current
from packetcore_twisted._waiting import deferred


class TwistedDriver(AsyncDriver):
    """Runs a reactor of its own, beside the global one. See `packetcore.Driver`."""

    runtime: Reactor

    def __init__(self) -> None:
        super().__init__(adapter, ConnectionPool)

    def where(self) -> dict[str, Any]:
        """See `packetcore_sockets.ThreadDriver`."""
        return {"reactor": self.runtime.reactor}

    def run(self, started: Started) -> None:
        """See `packetcore_sockets.ThreadDriver`."""
        try:
            from twisted.internet.epollreactor import EPollReactor as NewReactor
        except ImportError:
            from twisted.internet.selectreactor import SelectReactor as NewReactor
        new_reactor: Any = NewReactor
        reactor = new_reactor()

        @deferred
        async def end() -> None:
            for _ in range(5):  # turns of the reactor: to flush, close, lose, wake and be sure
                await deferLater(reactor, 0)
            reactor.stop()

        started(current(reactor), end)
        reactor.run(installSignalHandlers=False)
        # A reactor is made to last as long as its process: nothing public closes these.
        reactor.waker.connectionLost(None)
        if hasattr(reactor, "_poller"):
            reactor._poller.close()

    def tls_options(self, tls: TLS, *, server_side: bool) -> dict[str, Any]:
        """See `packetcore.Driver`."""
        from packetcore_twisted._tls import options_from_files

        return {"ssl": options_from_files(tls, server_side=server_side)}

    def capabilities(self) -> frozenset[str]:
        """See `packetcore.Driver`. TLS takes pyOpenSSL."""
        return super().capabilities() - (set() if find_spec("OpenSSL") else {"tls"})
