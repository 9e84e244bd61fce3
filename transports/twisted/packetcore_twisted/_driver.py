"""Twisted on a thread of its own, for tools that are not Twisted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater

from packetcore import TLS, Driver
from packetcore_twisted._pool import ConnectionPool
from packetcore_twisted._stream import Stream
from packetcore_twisted._tcp import connect, serve
from packetcore_twisted._udp import connect_udp, serve_udp


class TwistedDriver(Driver):
    """Runs a reactor of its own, beside the global one. See `packetcore.Driver`."""

    def __init__(self) -> None:
        try:
            from twisted.internet.epollreactor import EPollReactor as Reactor
        except ImportError:
            from twisted.internet.selectreactor import SelectReactor as Reactor
        new_reactor: Callable[[], Any] = Reactor
        self._reactor = new_reactor()
        super().__init__(
            partial(serve, reactor=self._reactor),
            partial(connect, reactor=self._reactor),
            _echo,
            partial(serve_udp, reactor=self._reactor),
            partial(connect_udp, reactor=self._reactor),
            partial(ConnectionPool, reactor=self._reactor),
        )
        run = partial(self._reactor.run, installSignalHandlers=False)
        self._thread = threading.Thread(target=run, name="packetcore-twisted", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        if not self._thread.is_alive():
            raise RuntimeError("the driver was stopped")
        future: Future[Any] = Future()
        calling: list[Deferred[Any]] = []

        def call() -> None:
            if future.set_running_or_notify_cancel():
                calling.append(maybeDeferred(function, *args))
                calling[0].addCallbacks(future.set_result, lambda failed: future.set_exception(failed.value))

        self._reactor.callFromThread(call)
        try:
            return self.result(future, timeout)
        finally:
            for deferred in calling:
                self._reactor.callFromThread(deferred.cancel)  # does nothing to what is done

    def tls_options(self, tls: TLS, *, server_side: bool) -> dict[str, Any]:
        from packetcore_twisted._tls import options_from_files

        return {"ssl": options_from_files(tls, server_side=server_side)}

    def capabilities(self) -> frozenset[str]:
        return frozenset({"tcp", "udp", "reconnect", "pool"} | ({"tls"} if find_spec("OpenSSL") else set()))

    def stop(self) -> None:
        if self._thread.is_alive():
            self.close_all()
            self.call(self._let_all_hear)
            self._reactor.callFromThread(self._reactor.stop)
            self._thread.join()
            # A reactor is made to last as long as its process: nothing public closes these.
            self._reactor.waker.connectionLost(None)
            if hasattr(self._reactor, "_poller"):
                self._reactor._poller.close()

    async def _let_all_hear(self) -> None:
        for _ in range(5):  # turns of the reactor: to flush, close, lose, wake and be sure
            await deferLater(self._reactor, 0)


async def _echo(stream: Stream) -> None:
    async for item in stream:
        await stream.send(item)
