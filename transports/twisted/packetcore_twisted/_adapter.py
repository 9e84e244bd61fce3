"""All that an application imports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, overload

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorFDSet
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import (
    AnyItem,
    AnyPacket,
    Backoff,
    Config,
    Endpoint,
    Handler,
    Inbox,
    LocalProtocolError,
    PacketCodec,
    Refusal,
    Session,
    SessionPool,
)
from packetcore.framings import Framing
from packetcore_sockets import (
    BACKLOG,
    Adapter,
    AsyncAdapter,
    AsyncClient,
    AsyncConnectionPool,
    AsyncServer,
    Given,
    Hosts,
    ProxyNetworks,
    WebSocket,
)
from packetcore_twisted._protocol import PacketProtocol, address_of
from packetcore_twisted._reactor import Reactor, current
from packetcore_twisted._stream import Stream, StreamFunction
from packetcore_twisted._waiting import deferred

T = TypeVar("T")
Again = TypeVar("Again", contravariant=True)


def new_stream(inbox: Inbox[Any], runtime: Reactor) -> Stream[Any]:
    """See `packetcore_sockets.Adapter`."""
    return Stream(inbox, runtime.time, runtime.new_event)


@implementer(IProtocolFactory)
class PacketFactory(AsyncServer[AnyPacket]):
    """Makes a `PacketProtocol` for each connection of an endpoint, on either side.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function for each.
        config: limits and timeouts.
        reactor: the endpoint's; the global one by default.
        is_server: whether it is for a server's endpoint.
        endpoint: see `packetcore.ServerBase`.
        sessions: a register that other servers use too.
    """

    serve_forever = deferred(AsyncServer.serve_forever)  # type: ignore[assignment]
    close = deferred(AsyncServer.close)  # type: ignore[assignment]

    def __init__(
        self,
        handler: Handler[AnyPacket] | StreamFunction[Any],
        config: Config | None = None,
        reactor: Any = None,
        is_server: bool = True,
        endpoint: Callable[..., Endpoint[AnyPacket]] = Endpoint,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
    ) -> None:
        super().__init__(current(reactor), new_stream, handler, config, endpoint=endpoint, sessions=sessions)
        self.endpoint.is_server = is_server
        self.reactor: Any = self.runtime.reactor
        """What tells the time and keeps timers."""
        self.port: Any = None
        """By which connections come, where that is not another's."""
        self.tls: Any = None
        """What puts TLS beneath the protocols of `port`; `None` for nothing."""
        self.listening: Any = _Protocols(self)

    def buildProtocol(self, addr: object) -> PacketProtocol:  # noqa: N802
        protocol = PacketProtocol(self.endpoint, self.reactor)
        self.listening.add(protocol)
        return protocol

    def doStart(self) -> None:  # noqa: N802
        """Nothing to prepare before a port or a connector uses it, nothing to clean up after."""

    doStop = doStart  # noqa: N815


class _Protocols:
    """A factory's way in, as `packetcore_sockets.Listening` is that of other servers: its port, and the protocols
    that have no session yet."""

    def __init__(self, factory: PacketFactory[Any]) -> None:
        self._factory = factory
        self._opening: set[PacketProtocol] = set()
        self._on_change: Callable[[], object] | None = None

    @property
    def is_opening(self) -> bool:
        return any(protocol.connected for protocol in self._opening)

    def add(self, protocol: PacketProtocol) -> None:
        self._opening.add(protocol)
        protocol.opened.addBoth(self._opened, protocol)

    def reload_tls(self, context: Any) -> None:
        if self._factory.tls is None:
            raise LocalProtocolError("reload_tls: this server speaks no TLS of its own")
        self._factory.runtime.check_tls(context)
        self._factory.tls.options = context

    def stop(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._stop_listening()

    def close(self) -> None:
        self._stop_listening()
        for protocol in [*self._opening]:
            if protocol.connected:
                protocol.abort()

    def _stop_listening(self) -> None:
        port, self._factory.port = self._factory.port, None
        if port is not None:
            port.stopListening()

    def _opened(self, result: Any, protocol: PacketProtocol) -> Any:
        self._opening.discard(protocol)
        endpoint = self._factory.endpoint
        transport: Any = protocol.transport
        if isinstance(result, Failure) and transport is not None and endpoint.is_server:
            endpoint.refused(address_of(transport.getPeer()), Refusal.TLS_FAILED)
        if self._on_change is not None:
            self._on_change()
        return result


class Server(PacketFactory[AnyPacket]):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    def __init__(self, runtime: Reactor, new_stream: object, handler: Any, config: Any, **options: Any) -> None:
        super().__init__(handler, config, runtime.reactor, **options)


class Client(AsyncClient[AnyPacket]):
    __doc__ = AsyncClient.__doc__
    close = deferred(AsyncClient.close)  # type: ignore[assignment]


class Serve(Protocol):
    """How `serve` and `serve_udp` are typed: the handler is of what the framing and the codec make."""

    # fmt: off
    @overload
    def __call__(self, handler: Handler | StreamFunction, host: Hosts = "127.0.0.1", port: int = 0,
                 *, framing: None = None, codec: None = None, sessions: SessionPool[Session] | None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Server]: ...
    @overload
    def __call__(self, handler: Handler[bytes] | StreamFunction[bytes], host: Hosts = "127.0.0.1", port: int = 0,
                 *, framing: Framing, codec: None = None, sessions: SessionPool[Session[bytes]] | None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Server[bytes]]: ...
    @overload
    def __call__(self, handler: Handler[T] | StreamFunction[T], host: Hosts = "127.0.0.1", port: int = 0,
                 *, framing: Framing, codec: PacketCodec[T], sessions: SessionPool[Session[T]] | None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Server[T]]: ...
    # fmt: on


class Connect(Protocol[Again]):
    """How `connect` is typed, and `connect_udp`, which does not do it `Again`."""

    # fmt: off
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: None = None, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Stream]: ...
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: Framing, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Stream[bytes]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: Framing, codec: PacketCodec[T], reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Stream[T]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler, *,
                 framing: None = None, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Session]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[bytes], *,
                 framing: Framing, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Session[bytes]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[T], *,
                 framing: Framing, codec: PacketCodec[T], reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Deferred[Session[T]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler | StreamFunction, *,
                 framing: None = None, codec: None = None, reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Deferred[Client]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[bytes] | StreamFunction[bytes], *,
                 framing: Framing, codec: None = None, reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Deferred[Client[bytes]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[T] | StreamFunction[T], *,
                 framing: Framing, codec: PacketCodec[T], reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Deferred[Client[T]]: ...
    @overload
    def __call__(self, url: str, *, handler: None = None, reconnect: None = None,
                 **options: Any) -> Deferred[Stream[Any]]: ...
    @overload
    def __call__(self, url: str, *, handler: Handler[T], reconnect: None = None,
                 **options: Any) -> Deferred[Session[T]]: ...
    @overload
    def __call__(self, url: str, *, handler: Handler[Any] | StreamFunction[Any], reconnect: Again,
                 **options: Any) -> Deferred[Client[Any]]: ...
    # fmt: on


class ServeAt(Protocol):
    """How what serves at a place that is no host is typed."""

    def __call__(
        self, handler: Handler[Any] | StreamFunction[Any], place: str | PathLike[str], **options: Any
    ) -> Deferred[Server[Any]]: ...


class ConnectAt(Protocol):
    """How what connects to a place that is no host is typed."""

    # fmt: off
    @overload
    def __call__(self, place: str | PathLike[str], handler: None = None, *, reconnect: None = None,
                 **options: Any) -> Deferred[Stream[Any]]: ...
    @overload
    def __call__(self, place: str | PathLike[str], handler: Handler[T], *, reconnect: None = None,
                 **options: Any) -> Deferred[Session[T]]: ...
    @overload
    def __call__(self, place: str | PathLike[str], handler: Handler[Any] | StreamFunction[Any], *, reconnect: Backoff,
                 **options: Any) -> Deferred[Client[Any]]: ...
    # fmt: on


adapter: Adapter = AsyncAdapter(current, Stream, Server, Client)
untyped: Any = deferred  # a type checker would take the first overload for all
request = deferred(adapter.request)
connect_udp: Connect[NoReturn] = untyped(adapter.connect_udp)
connect: Connect[Backoff] = untyped(adapter.connect)
serve_unix: ServeAt = untyped(adapter.serve_unix)
connect_unix: ConnectAt = untyped(adapter.connect_unix)
connect_serial: ConnectAt = untyped(adapter.connect_serial)
"""`ssl` is what `twisted.internet.ssl.optionsForClientTLS` gives, or a function that makes it from
`host`, such as `optionsForClientTLS` itself; there is no `server_hostname`."""


def serving(function: Any) -> Serve:
    """`deferred`, of a function that serves."""
    serve: Serve = untyped(function)
    return serve


serve_udp = serving(adapter.serve_udp)


@serving
async def serve(
    handler: Handler[Any] | StreamFunction[Any],
    host: Hosts = "127.0.0.1",
    port: int = 0,
    *,
    family: int = 0,
    config: Config | None = None,
    sessions: SessionPool[Session[Any]] | None = None,
    framing: Framing | None = None,
    codec: PacketCodec[Any] | None = None,
    ssl: Any = None,
    backlog: int = BACKLOG,
    socket: Given | None = None,
    proxy_protocol: ProxyNetworks | None = None,
    websocket: WebSocket = False,
    reactor: Any = None,
) -> Server[Any]:
    """Listen on TCP and serve, as `packetcore_sockets.AsyncAdapter.serve` says.

    Args:
        ssl: for TLS, `twisted.internet.ssl.CertificateOptions` or the like; with `websocket`, and where
            `socket` is a Unix socket, an `ssl.SSLContext`.
        reactor: the global one by default. One that is no `IReactorFDSet` listens in its own
            way: on one address, on no `socket`, without `proxy_protocol` and `websocket`, and out of descriptors it may
            close who waits.
    """
    runtime = current(reactor)
    if IReactorFDSet.providedBy(runtime.reactor):
        options: Any = {"framing": framing, "codec": codec, "ssl": ssl, "backlog": backlog}
        options |= {"socket": socket, "proxy_protocol": proxy_protocol, "reactor": runtime.reactor}
        options |= {"family": family, "websocket": websocket}
        server: Server[Any] = await adapter.serve(handler, host, port, config=config, sessions=sessions, **options)
        return server
    if socket is not None:
        raise TypeError(f"socket= needs a reactor that watches descriptors (IReactorFDSet), not {runtime.reactor!r}")
    if websocket is not False:
        raise TypeError(f"websocket= needs a reactor that watches descriptors, not {runtime.reactor!r}")
    if proxy_protocol is not None:
        raise TypeError(f"proxy_protocol= needs a reactor that watches descriptors, not {runtime.reactor!r}")
    if family or not isinstance(host, str | None):
        raise TypeError(f"several hosts or family= need a reactor that watches descriptors, not {runtime.reactor!r}")
    endpoint = partial(Endpoint[Any], framing=framing, codec=codec)
    server = Server(runtime, new_stream, handler, config, endpoint=endpoint, sessions=sessions)
    server.tls = None if ssl is None else runtime.over_tls(ssl, server, is_client=False)
    factory = server.tls or server
    try:
        server.port = runtime.reactor.listenTCP(port, factory, backlog, host or "")
    except CannotListenError as refused:
        raise refused.socketError from None
    server.addresses = [address_of(server.port.getHost())]
    return server


class ConnectionPool(AsyncConnectionPool[AnyItem]):
    __doc__ = AsyncConnectionPool.__doc__
    adapter = adapter
    close = deferred(AsyncConnectionPool.close)  # type: ignore[assignment, arg-type]

    if TYPE_CHECKING:

        @asynccontextmanager
        def acquire(self) -> AsyncIterator[Stream[AnyItem]]: ...

    @deferred
    async def use(self, function: StreamFunction[AnyItem]) -> Any:
        """Acquire a stream, run a function over it, and give it back when that is done.

        Args:
            function: `async def`, or with a Deferred as its result. If it raises, the stream
                is closed.

        Returns:
            A Deferred of what the function gives; see `acquire` for what else it raises.
        """
        async with self.acquire() as stream:
            return await maybeDeferred(function, stream)
