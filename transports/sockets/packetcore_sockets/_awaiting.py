"""The manner of runtimes whose calls are awaited."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, NoReturn, Protocol, TypeVar, overload

from packetcore import (
    AnyItem,
    AnyPacket,
    AsyncConnectionPool,
    AsyncStream,
    Backoff,
    Config,
    Handler,
    Inbox,
    PacketCodec,
    Session,
    SessionPool,
)
from packetcore.framings import Framing
from packetcore_sockets import _client, _server
from packetcore_sockets._adapter import Adapter, Result
from packetcore_sockets._hosts import Hosts
from packetcore_sockets._pool import PoolOptions
from packetcore_sockets._runtime import Runtime

A = TypeVar("A", bound="Server[Any]")
B = TypeVar("B", bound="Client[Any]")
T = TypeVar("T")
Again = TypeVar("Again", contravariant=True)


class Server(_server.Server[AnyPacket]):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class Client(_client.Client[AnyPacket]):
    """A client that comes back; `connect` with `reconnect` gives it. `async with` closes it at the
    end."""

    async def __aenter__(self: B) -> B:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


Place = str | PathLike[str]
"""A path, or a device."""

Function = Callable[[AsyncStream[AnyItem]], Any]
"""An application over a stream."""


class Serve(Protocol):
    """How `serve` and `serve_udp` are typed: the handler is of what the framing and the codec make."""

    # fmt: off
    @overload
    def __call__(self, handler: Handler | Function, host: Hosts = "127.0.0.1", port: int = 0, *,
                 framing: None = None, codec: None = None, sessions: SessionPool[Session] | None = None,
                 config: Config | None = None, **options: Any) -> Result[Server]: ...
    @overload
    def __call__(self, handler: Handler[bytes] | Function[bytes], host: Hosts = "127.0.0.1", port: int = 0, *,
                 framing: Framing, codec: None = None, sessions: SessionPool[Session[bytes]] | None = None,
                 config: Config | None = None, **options: Any) -> Result[Server[bytes]]: ...
    @overload
    def __call__(self, handler: Handler[T] | Function[T], host: Hosts = "127.0.0.1", port: int = 0, *,
                 framing: Framing, codec: PacketCodec[T], sessions: SessionPool[Session[T]] | None = None,
                 config: Config | None = None, **options: Any) -> Result[Server[T]]: ...
    # fmt: on


class Connect(Protocol[Again]):
    """How `connect` is typed, and `connect_udp`, which does not do it `Again`."""

    # fmt: off
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: None = None, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Result[AsyncStream]: ...
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: Framing, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Result[AsyncStream[bytes]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: Framing, codec: PacketCodec[T], reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Result[AsyncStream[T]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler, *,
                 framing: None = None, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Result[Session]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[bytes], *,
                 framing: Framing, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Result[Session[bytes]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[T], *,
                 framing: Framing, codec: PacketCodec[T], reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Result[Session[T]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler | Function, *,
                 framing: None = None, codec: None = None, reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Result[Client]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[bytes] | Function[bytes], *,
                 framing: Framing, codec: None = None, reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Result[Client[bytes]]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[T] | Function[T], *,
                 framing: Framing, codec: PacketCodec[T], reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Result[Client[T]]: ...
    @overload
    def __call__(self, url: str, *, handler: None = None, reconnect: None = None,
                 **options: Any) -> Result[AsyncStream[Any]]: ...
    @overload
    def __call__(self, url: str, *, handler: Handler[T], reconnect: None = None,
                 **options: Any) -> Result[Session[T]]: ...
    @overload
    def __call__(self, url: str, *, handler: Handler[Any] | Function[Any], reconnect: Again,
                 **options: Any) -> Result[Client[Any]]: ...
    # fmt: on


class ServeAt(Protocol):
    """How what serves at a place that is no host is typed."""

    def __call__(self, handler: Handler[Any] | Function[Any], place: Place, **options: Any) -> Result[Server[Any]]: ...


class ConnectAt(Protocol):
    """How what connects to a place that is no host is typed."""

    # fmt: off
    @overload
    def __call__(self, place: Place, handler: None = None, *, reconnect: None = None,
                 **options: Any) -> Result[AsyncStream[Any]]: ...
    @overload
    def __call__(self, place: Place, handler: Handler[T], *, reconnect: None = None,
                 **options: Any) -> Result[Session[T]]: ...
    @overload
    def __call__(self, place: Place, handler: Handler[Any] | Function[Any], *, reconnect: Backoff,
                 **options: Any) -> Result[Client[Any]]: ...
    # fmt: on


class AsyncAdapter(Adapter):
    """The functions of an adapter whose calls are awaited; with its `Stream`, `Server` and `Client`."""

    serve: Serve
    serve_udp: Serve
    connect: Connect[Backoff]
    connect_udp: Connect[NoReturn]
    serve_unix: ServeAt
    connect_unix: ConnectAt
    connect_serial: ConnectAt

    def __init__(
        self,
        current: Callable[..., Runtime],
        stream: type[AsyncStream[Any]],
        server: type[Server[Any]],
        client: type[Client[Any]],
    ) -> None:
        def new_stream(inbox: Inbox[Any], runtime: Runtime) -> AsyncStream[Any]:
            return stream(inbox, runtime.time, runtime.new_event)

        super().__init__(current, new_stream, server, client)


class ConnectionPool(PoolOptions[AnyItem], AsyncConnectionPool[AsyncStream[AnyItem]]):
    __doc__ = PoolOptions.__doc__

    def begin(self, connector: Callable[[], Callable[[], Any]], limits: dict[str, Any]) -> None:
        """See `PoolOptions`."""
        runtime = self.runtime
        AsyncConnectionPool.__init__(self, connector(), runtime.new_event, runtime.time, runtime.call_at, **limits)
        runtime.hold(self.end)

    async def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        self.end()
        self.runtime.release(self.end)
