"""TCP, with or without TLS: `serve`, `connect`, and a factory for other endpoints."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from typing import Any, overload

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, DeferredList, fail, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IReactorFDSet
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import (
    Backoff,
    Config,
    Endpoint,
    Handler,
    Inbox,
    Refusal,
    ServerBase,
    Session,
    SessionPool,
)
from packetcore_sockets import BACKLOG, open_tcp_listeners
from packetcore_twisted._client import Client
from packetcore_twisted._functions import Functions, StreamFunction
from packetcore_twisted._listening import ListeningSocket
from packetcore_twisted._reactor import Timers, clock_of, log_failure, look_up, stop, the_reactor, tie
from packetcore_twisted._socket import PacketProtocol, address_of
from packetcore_twisted._stream import Stream


@implementer(IProtocolFactory)
class PacketFactory(ServerBase):
    """Makes a `PacketProtocol` for each connection of an endpoint, on either side.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function for each.
        config: limits and timeouts.
        reactor: the endpoint's; the global one by default.
        is_server: whether it is for a server's endpoint.
        endpoint: see `packetcore.ServerBase`.
        sessions: a register that other servers use too.
    """

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None = None,
        reactor: Any = None,
        is_server: bool = True,
        endpoint: Callable[..., Endpoint] = Endpoint,
        sessions: SessionPool[Session] | None = None,
    ) -> None:
        self.reactor: Any = the_reactor(reactor)
        """What tells the time and keeps timers."""
        self._time = clock_of(self.reactor)
        self._timers: Any = Timers(self.reactor)
        self._functions = Functions(self.reactor)
        super().__init__(handler, self._functions.start, config, log_failure, endpoint, sessions)
        self.endpoint.is_server = is_server
        self._listeners: list[Any] = []
        self._shaking_hands: set[PacketProtocol] = set()
        self._waiting: list[Deferred[None]] = []
        self._is_closed = False
        tie(self.endpoint, self.reactor, self._ended)

    def buildProtocol(self, addr: object) -> PacketProtocol:  # noqa: N802
        protocol = PacketProtocol(self.endpoint, self.reactor)
        self._shaking_hands.add(protocol)
        protocol._opened.addBoth(self._shook_hands, protocol)
        return protocol

    def doStart(self) -> None:  # noqa: N802
        """Nothing to prepare before a port or a connector uses it, nothing to clean up after."""

    doStop = doStart  # noqa: N815

    @inlineCallbacks
    def close(self, grace: float = 5.0) -> Generator[Deferred[Any], None, None]:
        """Stop listening, let handlers finish and buffers empty for at most `grace` seconds,
        then abort what is left. A session ends with SHUTDOWN, unless its peer or its handler
        ended it before. Cancelling this aborts at once."""
        stopped = self._stop_listening()
        empty: Deferred[None] = Deferred()
        self.endpoint.drain(self._time(), lambda: empty.callback(None))
        ends: list[Deferred[Any]] = [*stopped, empty, *self._functions.running]
        over = DeferredList(ends, consumeErrors=True)
        enough: Deferred[object] = Deferred()
        over.addBoth(lambda _: None if enough.called else enough.callback(None))
        try:
            yield enough.addTimeout(grace, self._timers, lambda *_: None)
        finally:
            self.endpoint.abort(self._time())
            for running in list(self._functions.running):
                running.cancel()
            yield over
            self._finish()

    def serve_forever(self) -> Deferred[None]:
        """Fires once the server is closed. Fails with the `SystemExit` or `KeyboardInterrupt` of a
        handler, which has then closed it: `task.react` exits with that code. Where nobody waits
        here, the reactor is stopped in its place."""
        over: Deferred[None] = Deferred()
        if self._is_closed:
            over.callback(None)
        else:
            self._waiting.append(over)
        return over

    def _stop_listening(self) -> list[Deferred[Any]]:
        stopped = [maybeDeferred(listener.stopListening) for listener in self._listeners]
        self._listeners.clear()
        for protocol in list(self._shaking_hands):
            if protocol.connected:
                protocol.abort()
        return stopped

    def _ended(self, error: BaseException) -> None:
        self._stop_listening()
        if not self._waiting:
            stop(self.reactor, error)
        new_failure: Any = Failure
        self._finish(new_failure(error))

    def _finish(self, result: Any = None) -> None:
        self._is_closed = True
        waiting, self._waiting = self._waiting, []
        for over in waiting:
            self.reactor.callLater(0, over.callback, result)

    def _shook_hands(self, opened: Any, protocol: PacketProtocol) -> Any:
        self._shaking_hands.discard(protocol)
        transport: Any = protocol.transport
        if isinstance(opened, Failure) and transport is not None and self.endpoint.is_server:
            self.endpoint.refused(address_of(transport.getPeer()), Refusal.TLS_FAILED)
        return opened


class Server(PacketFactory):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()


def serve(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    ssl: Any = None,
    backlog: int = BACKLOG,
    reactor: Any = None,
) -> Deferred[Server]:
    """Listen on TCP and serve.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function that is run over a
            `Stream` for each, `async def` or with a Deferred as its result.
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of UDP for instance.
        ssl: for TLS, `twisted.internet.ssl.CertificateOptions` or the like.
        backlog: how many connections may wait to be accepted.
        reactor: the global one by default. One that is no `IReactorFDSet` listens in its own
            way: on one address, and out of descriptors it may close who waits.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, config, reactor, sessions=sessions)
    return Deferred.fromCoroutine(_listen(server, host, port, ssl, backlog))


@overload
def connect(
    host: str, port: int, handler: None = None, *, config: Config | None = None, ssl: Any = None, reactor: Any = None
) -> Deferred[Stream]: ...
@overload
def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction,
    *,
    reconnect: Backoff,
    keep: int = 0,
    config: Config | None = None,
    ssl: Any = None,
    reactor: Any = None,
) -> Deferred[Client]: ...
@overload
def connect(
    host: str, port: int, handler: Handler, *, config: Config | None = None, ssl: Any = None, reactor: Any = None
) -> Deferred[Session]: ...
def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction | None = None,
    *,
    reconnect: Backoff | None = None,
    keep: int = 0,
    config: Config | None = None,
    ssl: Any = None,
    reactor: Any = None,
) -> Deferred[Any]:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        reconnect: connect again and again, waiting in between as this says. You get a `Client`
            at once, and its handler may be a function over a `Stream`, run for each connection.
        keep: how many packets a `Client` keeps that are sent while it is not connected.
        config: limits and timeouts.
        ssl: for TLS, what `twisted.internet.ssl.optionsForClientTLS` gives, or a function
            that makes it from `host`, such as `optionsForClientTLS` itself.
        reactor: the global one by default.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed. With `reconnect` these go to the log.
    """
    reactor = the_reactor(reactor)
    timers: Any = Timers(reactor)

    def dial(endpoint: Endpoint) -> Deferred[Session]:
        if endpoint.on_ended is None:
            tie(endpoint, reactor)
        opening = Deferred.fromCoroutine(_open(endpoint, host, port, ssl, reactor))
        if (timeout := endpoint.config.connect_timeout) is not None:
            opening.addTimeout(timeout, timers, lambda *_: fail(endpoint.connect_timed_out(host, port)))
        return opening.addErrback(_as_os_error, f"connecting to {host} port {port}")

    if reconnect is not None and handler is not None:
        return succeed(Client(handler, config, reconnect, keep, reactor, dial))
    if isinstance(handler, Handler):
        return dial(Endpoint(handler, config, log_exception=log_failure))
    if handler is not None or reconnect is not None:
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")
    inbox = Inbox()
    return dial(Endpoint(inbox, config, log_exception=log_failure)).addCallback(lambda _: Stream(inbox, reactor))


async def _listen(server: Server, host: str | None, port: int, ssl: Any, backlog: int) -> Server:
    reactor = server.reactor
    factory = server if ssl is None else _over_tls(server, ssl, reactor, is_client=False)
    if IReactorFDSet.providedBy(reactor):
        infos = await look_up(reactor, host or None, port, socket.SOCK_STREAM, socket.AI_PASSIVE)
        sockets = open_tcp_listeners(infos, port, backlog)
        server.addresses = [sock.getsockname() for sock in sockets]
        server._listeners = [ListeningSocket(sock, factory, reactor) for sock in sockets]
        return server
    try:
        listener = reactor.listenTCP(port, factory, backlog, host or "")
    except error.CannotListenError as refused:
        raise refused.socketError from None
    server.addresses = [address_of(listener.getHost())]
    server._listeners = [listener]
    return server


async def _open(endpoint: Endpoint, host: str, port: int, ssl: Any, reactor: Any) -> Session:
    if ssl is not None:
        ssl = ssl(host) if callable(ssl) else ssl
    factory: Any = Factory.forProtocol(lambda: PacketProtocol(endpoint, reactor))
    factory.noisy = False
    if ssl is not None:
        factory = _over_tls(factory, ssl, reactor, is_client=True)
    new_endpoint = TCP4ClientEndpoint if isIPAddress(host) or isIPv6Address(host) else HostnameEndpoint
    no_limit: Any = None  # the time-out of `connect` is for everything
    protocol: Any = await new_endpoint(reactor, host, port, no_limit).connect(factory)
    opened: Deferred[Session] = (protocol if ssl is None else protocol.wrappedProtocol)._opened
    return await opened


def _over_tls(factory: Any, ssl: Any, reactor: Any, *, is_client: bool) -> Any:
    from packetcore_twisted._tls import TLSFactory  # pyOpenSSL need not be installed

    return TLSFactory(ssl, is_client, factory, reactor)


def _as_os_error(reason: Failure, where: str) -> Failure:
    """What Twisted says of a connection that was not made, as the system says it."""
    match reason.value:
        case error.ConnectError(osError=int(number)):
            raise OSError(number, f"{where}: {reason.value}")
        case error.ConnectError():
            raise OSError(f"{where}: {reason.value}")
    return reason
