"""TCP, with or without TLS: `serve`, `connect`, and a factory for other endpoints."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, overload

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import Config, Endpoint, Handler, Inbox, ServerBase, Session
from packetcore_twisted._socket import PacketProtocol, address_of
from packetcore_twisted._stream import Stream

StreamFunction = Callable[[Stream], Any]
"""An application over a stream: `async def`, or with a Deferred as its result. When it is
done, the stream is closed."""

_log = Logger(namespace="packetcore")


def log_failure(message: str) -> None:
    """Log an exception that is being handled, as Twisted does."""
    _log.failure("{message}", message=message)


def the_reactor(reactor: Any) -> Any:
    """The one given, or the global one."""
    if reactor is None:
        from twisted.internet import reactor  # not before: importing it is choosing it
    return reactor


@implementer(IProtocolFactory)
class PacketFactory(ServerBase):
    """Makes a `PacketProtocol` for each connection of an endpoint, on either side.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function for each.
        config: limits and timeouts.
        reactor: the endpoint's; the global one by default.
        is_server: whether it is for a server's endpoint.
        endpoint: see `packetcore.ServerBase`.
    """

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None = None,
        reactor: Any = None,
        is_server: bool = True,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        super().__init__(handler, self._start, config, log_failure, endpoint)
        self.endpoint.is_server = is_server
        self.reactor: Any = the_reactor(reactor)
        """What tells the time and keeps timers."""
        self._running: set[Deferred[Any]] = set()
        self._stop_listening: Callable[[], object] = lambda: None

    def buildProtocol(self, addr: object) -> PacketProtocol:  # noqa: N802
        return PacketProtocol(self.endpoint, self.reactor)

    def doStart(self) -> None:  # noqa: N802
        """Nothing to prepare before a port or a connector uses it, nothing to clean up after."""

    doStop = doStart  # noqa: N815

    @inlineCallbacks
    def close(self, grace: float = 5.0) -> Generator[Deferred[Any], None, None]:
        """Stop listening, let handlers finish and buffers empty for at most `grace` seconds,
        then abort what is left. A session ends with SHUTDOWN, unless its peer or its handler
        ended it before. Cancelling this aborts at once."""
        stopped = maybeDeferred(self._stop_listening)
        self._stop_listening = lambda: None
        empty: Deferred[None] = Deferred()
        self.endpoint.drain(self.reactor.seconds(), lambda: empty.callback(None))
        ends: list[Deferred[Any]] = [stopped, empty, *self._running]
        over = DeferredList(ends, consumeErrors=True)
        enough: Deferred[object] = Deferred()
        over.addBoth(lambda _: None if enough.called else enough.callback(None))
        try:
            yield enough.addTimeout(grace, self.reactor, lambda *_: None)
        finally:
            self.endpoint.abort(self.reactor.seconds())
            for running in list(self._running):
                running.cancel()
            yield over

    def _start(self, function: StreamFunction, inbox: Inbox) -> None:
        stream = Stream(inbox, self.reactor)
        running = Deferred.fromCoroutine(self._run(function, stream))
        self._running.add(running)
        running.addBoth(lambda _: stream.close())
        running.addBoth(lambda _: self._running.discard(running))

    async def _run(self, function: StreamFunction, stream: Stream) -> None:
        try:  # not at once: the session is in the middle of its work
            await deferLater(self.reactor, 0, maybeDeferred, function, stream)
        except CancelledError:
            pass
        except Exception as failed:
            stream.session.failed(failed, self.reactor.seconds())


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
    ssl: Any = None,
    reactor: Any = None,
) -> Deferred[Server]:
    """Listen on TCP and serve.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function that is run over a
            `Stream` for each, `async def` or with a Deferred as its result.
        host: the address to listen on; `None` means every IPv4 one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        ssl: for TLS, `twisted.internet.ssl.CertificateOptions` or the like.
        reactor: the global one by default.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    return Deferred.fromCoroutine(_listen(Server(handler, config, reactor), host or "", port, ssl))


@overload
def connect(
    host: str, port: int, handler: None = None, *, config: Config | None = None, ssl: Any = None, reactor: Any = None
) -> Deferred[Stream]: ...
@overload
def connect(
    host: str, port: int, handler: Handler, *, config: Config | None = None, ssl: Any = None, reactor: Any = None
) -> Deferred[Session]: ...
def connect(
    host: str,
    port: int,
    handler: Handler | None = None,
    *,
    config: Config | None = None,
    ssl: Any = None,
    reactor: Any = None,
) -> Deferred[Any]:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        config: limits and timeouts.
        ssl: for TLS, what `twisted.internet.ssl.optionsForClientTLS` gives, or a function
            that makes it from `host`, such as `optionsForClientTLS` itself.
        reactor: the global one by default.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed.
    """
    inbox = Inbox()
    factory = PacketFactory(inbox if handler is None else handler, config, reactor, is_server=False)
    opening: Deferred[Any] = Deferred.fromCoroutine(_open(factory, host, port, ssl))
    if (timeout := factory.endpoint.config.connect_timeout) is not None:
        too_late = factory.endpoint.connect_timed_out(host, port)
        opening.addTimeout(timeout, factory.reactor, lambda *_: fail(too_late))
    opening.addErrback(_as_os_error, f"connecting to {host} port {port}")
    return opening.addCallback(lambda session: Stream(inbox, factory.reactor) if handler is None else session)


async def _listen(server: Server, host: str, port: int, ssl: Any) -> Server:
    factory = server if ssl is None else _over_tls(server, ssl, is_client=False)
    try:
        listener = server.reactor.listenTCP(port, factory, 1024, host)
    except error.CannotListenError as refused:
        raise refused.socketError from None
    server._stop_listening = listener.stopListening
    server.address = address_of(listener.getHost())
    return server


async def _open(client: PacketFactory, host: str, port: int, ssl: Any) -> Session:
    if ssl is not None:
        ssl = ssl(host) if callable(ssl) else ssl
    factory: Any = client if ssl is None else _over_tls(client, ssl, is_client=True)
    endpoint = TCP4ClientEndpoint if isIPAddress(host) or isIPv6Address(host) else HostnameEndpoint
    no_limit: Any = None  # the time-out of `connect` is for everything
    protocol: Any = await endpoint(client.reactor, host, port, no_limit).connect(factory)
    opened: Deferred[Session] = (protocol if ssl is None else protocol.wrappedProtocol)._opened
    return await opened


def _over_tls(factory: Any, ssl: Any, *, is_client: bool) -> Any:
    from packetcore_twisted._tls import TLSFactory  # pyOpenSSL need not be installed

    return TLSFactory(ssl, is_client, factory, factory.reactor)


def _as_os_error(reason: Failure, where: str) -> Failure:
    """What Twisted says of a connection that was not made, as the system says it."""
    match reason.value:
        case error.ConnectError(osError=int(number)):
            raise OSError(number, f"{where}: {reason.value}")
        case error.ConnectError():
            raise OSError(f"{where}: {reason.value}")
    return reason
