"""The manner of runtimes whose calls block a thread or a greenlet."""

from __future__ import annotations

import types
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial, wraps
from os import PathLike
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar, overload

from packetcore import (
    AnyItem,
    AnyPacket,
    Backoff,
    Config,
    EndpointStats,
    Handle,
    Handler,
    Inbox,
    PacketCodec,
    Session,
    SessionPool,
    SyncCondition,
    SyncConnectionPool,
    SyncStream,
)
from packetcore.framings import Framing
from packetcore_sockets import _client, _server
from packetcore_sockets._adapter import Adapter
from packetcore_sockets._hosts import Hosts
from packetcore_sockets._pool import PoolOptions
from packetcore_sockets._runtime import Runtime, Stopped

A = TypeVar("A", bound="Server[Any]")
B = TypeVar("B", bound="Client[Any]")
R = TypeVar("R", bound="SyncRuntime")
T = TypeVar("T")
P = ParamSpec("P")
Again = TypeVar("Again", contravariant=True)


class SyncRuntime(Runtime):
    """A loop whose users block, each of them alone."""

    @abstractmethod
    def new_condition(self) -> SyncCondition:
        """What threads or greenlets of this runtime can wait for."""

    @abstractmethod
    def start_thread(self, function: Callable[[], object], done: Callable[[], object]) -> Handle:
        """Run a function in a thread or greenlet of its own, but not before this returns.

        Args:
            done: called once it is over.
        """

    def new_event(self) -> SyncEvent:
        """See `Runtime`."""
        return SyncEvent(self)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callable[[], object]) -> Handle:
        """See `Runtime`."""
        return self.start_thread(partial(wait, coroutine, self.lock), done)

    def run_function(self, stream: Any, function: Callable[[Any], Any], done: Callable[[], object]) -> Handle:
        """See `Runtime`."""
        return self.start_thread(partial(stream.run, function), done)

    @asynccontextmanager
    async def held(self: R) -> AsyncIterator[R]:
        """See `Runtime`. What comes in the block has the lock."""
        async with super().held():
            begun = self.new_event()
            begun.set()
            await _suspend(begun)
            yield self


class SyncEvent:
    """What a coroutine that `wait` runs can wait for: the `packetcore.AsyncEvent`."""

    def __init__(self, runtime: SyncRuntime) -> None:
        self.runtime = runtime
        self._condition = runtime.new_condition()
        self._is_set = False

    def set(self) -> None:
        """See `packetcore.AsyncEvent`."""
        self._is_set = True
        self._condition.notify_all()

    async def wait(self) -> None:
        """See `packetcore.AsyncEvent`."""
        if not self._is_set:
            await _suspend(self)

    def block(self) -> None:
        """Wait until it is set.

        Raises:
            Stopped: the runtime has been.
        """
        if self._condition.wait_for(lambda: self._is_set or None) is None:
            raise Stopped("the loop was closed meanwhile")


@types.coroutine
def _suspend(event: SyncEvent) -> Generator[SyncEvent, None, None]:
    yield event


def wait(coroutine: Coroutine[Any, Any, T], lock: AbstractContextManager[None] = nullcontext()) -> T:  # noqa: B008
    """Run a coroutine that waits for nothing but events of a `SyncRuntime`, and give what it gives.

    Args:
        coroutine: what interrupts its waits is raised in there.
        lock: to be held while it does not wait, until its first event tells its own.
    """
    interruption: BaseException | None = None
    while True:
        with lock:
            try:
                event = coroutine.send(None) if interruption is None else coroutine.throw(interruption)
            except StopIteration as stop:
                result: T = stop.value
                return result
        lock, interruption = event.runtime.lock, None
        try:
            event.block()
        except BaseException as error:
            interruption = error


def waiting(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """A coroutine function as one that blocks."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return wait(function(*args, **kwargs))

    return call


class Server(_server.Server[AnyPacket]):
    """A server that listens; `serve` gives it. `with` starts it, and closes it at the end. A handler
    must not call what waits."""

    @property
    def lock(self) -> AbstractContextManager[None]:
        """Hold it where several steps on `sessions` belong together, if threads share them; handlers
        wait meanwhile."""
        lock: AbstractContextManager[None] = self.runtime.lock
        return lock

    @property
    def stats(self) -> EndpointStats:
        """See `packetcore.ServerBase`."""
        with self.lock:
            return super().stats

    def reload_tls(self, context: Any) -> None:
        with self.lock:
            super().reload_tls(context)

    reload_tls.__doc__ = _server.Server.reload_tls.__doc__

    def start(self) -> None:
        """Serve, where that takes a thread: `with` and `serve_forever` do so themselves. Idempotent."""
        self.runtime.start()

    def serve_forever(self) -> None:  # type: ignore[override]
        self.start()
        wait(super().serve_forever(), self.lock)

    def close(self, grace: float = 5.0) -> None:  # type: ignore[override]
        wait(super().close(grace), self.lock)

    serve_forever.__doc__, close.__doc__ = _server.Server.serve_forever.__doc__, _server.Server.close.__doc__

    def __enter__(self: A) -> A:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Client(_client.Client[AnyPacket]):
    """A client that comes back; `connect` with `reconnect` gives it. `with` closes it at the end.
    A handler must not call `close`."""

    @property
    def stats(self) -> EndpointStats:
        """See `packetcore.ClientBase`."""
        with self.runtime.lock:
            return super().stats

    def send(self, packet: AnyPacket) -> None:
        """See `packetcore.ClientBase`. It does not wait: a peer that leaves more than
        `max_outstanding` bytes unread is closed with SLOW_CONSUMER."""
        with self.runtime.lock:
            super().send(packet)

    def close(self) -> None:  # type: ignore[override]
        wait(super().close(), self.runtime.lock)

    close.__doc__ = _client.Client.close.__doc__

    def __enter__(self: B) -> B:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


Place = str | PathLike[str]
"""A path, or a device."""

Function = Callable[[SyncStream[AnyItem]], Any]
"""An application over a stream."""


class Serve(Protocol):
    """How `serve` and `serve_udp` are typed: the handler is of what the framing and the codec make."""

    # fmt: off
    @overload
    def __call__(self, handler: Handler | Function, host: Hosts = "127.0.0.1", port: int = 0, *,
                 framing: None = None, codec: None = None, sessions: SessionPool[Session] | None = None,
                 config: Config | None = None, **options: Any) -> Server: ...
    @overload
    def __call__(self, handler: Handler[bytes] | Function[bytes], host: Hosts = "127.0.0.1", port: int = 0, *,
                 framing: Framing, codec: None = None, sessions: SessionPool[Session[bytes]] | None = None,
                 config: Config | None = None, **options: Any) -> Server[bytes]: ...
    @overload
    def __call__(self, handler: Handler[T] | Function[T], host: Hosts = "127.0.0.1", port: int = 0, *,
                 framing: Framing, codec: PacketCodec[T], sessions: SessionPool[Session[T]] | None = None,
                 config: Config | None = None, **options: Any) -> Server[T]: ...
    # fmt: on


class Connect(Protocol[Again]):
    """How `connect` is typed, and `connect_udp`, which does not do it `Again`."""

    # fmt: off
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: None = None, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> SyncStream: ...
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: Framing, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> SyncStream[bytes]: ...
    @overload
    def __call__(self, host: str, port: int, handler: None = None, *,
                 framing: Framing, codec: PacketCodec[T], reconnect: None = None,
                 config: Config | None = None, **options: Any) -> SyncStream[T]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler, *,
                 framing: None = None, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Session: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[bytes], *,
                 framing: Framing, codec: None = None, reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Session[bytes]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[T], *,
                 framing: Framing, codec: PacketCodec[T], reconnect: None = None,
                 config: Config | None = None, **options: Any) -> Session[T]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler | Function, *,
                 framing: None = None, codec: None = None, reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Client: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[bytes] | Function[bytes], *,
                 framing: Framing, codec: None = None, reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Client[bytes]: ...
    @overload
    def __call__(self, host: str, port: int, handler: Handler[T] | Function[T], *,
                 framing: Framing, codec: PacketCodec[T], reconnect: Again, keep: int = 0,
                 config: Config | None = None, **options: Any) -> Client[T]: ...
    @overload
    def __call__(self, url: str, *, handler: None = None, reconnect: None = None,
                 **options: Any) -> SyncStream[Any]: ...
    @overload
    def __call__(self, url: str, *, handler: Handler[T], reconnect: None = None,
                 **options: Any) -> Session[T]: ...
    @overload
    def __call__(self, url: str, *, handler: Handler[Any] | Function[Any], reconnect: Again,
                 **options: Any) -> Client[Any]: ...
    # fmt: on


class ServeAt(Protocol):
    """How what serves at a place that is no host is typed."""

    def __call__(self, handler: Handler[Any] | Function[Any], place: Place, **options: Any) -> Server[Any]: ...


class ConnectAt(Protocol):
    """How what connects to a place that is no host is typed."""

    # fmt: off
    @overload
    def __call__(self, place: Place, handler: None = None, *, reconnect: None = None,
                 **options: Any) -> SyncStream[Any]: ...
    @overload
    def __call__(self, place: Place, handler: Handler[T], *, reconnect: None = None,
                 **options: Any) -> Session[T]: ...
    @overload
    def __call__(self, place: Place, handler: Handler[Any] | Function[Any], *, reconnect: Backoff,
                 **options: Any) -> Client[Any]: ...
    # fmt: on


class SyncAdapter(Adapter):
    """The functions of an adapter whose calls block: `waiting` makes them do so, and those with `and_wait`
    are here ready. With its `Stream`, `Server` and `Client`."""

    def __init__(
        self,
        current: Callable[..., SyncRuntime],
        stream: type[SyncStream[Any]],
        server: type[Server[Any]],
        client: type[Client[Any]],
    ) -> None:
        def new_stream(inbox: Inbox[Any], runtime: Any) -> SyncStream[Any]:
            return stream(inbox, runtime.time, runtime.new_condition)

        super().__init__(current, new_stream, server, client)
        untyped: Any = waiting  # a type checker would take the first overload for all
        self.serve_and_wait: Serve = untyped(self.serve)
        self.serve_udp_and_wait: Serve = untyped(self.serve_udp)
        self.connect_and_wait: Connect[Backoff] = untyped(self.connect)
        self.connect_udp_and_wait: Connect[NoReturn] = untyped(self.connect_udp)
        self.serve_unix_and_wait: ServeAt = untyped(self.serve_unix)
        self.connect_unix_and_wait: ConnectAt = untyped(self.connect_unix)
        self.connect_serial_and_wait: ConnectAt = untyped(self.connect_serial)


class ConnectionPool(PoolOptions[AnyItem], SyncConnectionPool[SyncStream[AnyItem]]):
    __doc__ = PoolOptions.__doc__

    def begin(self, connector: Callable[[], Callable[[], Any]], limits: dict[str, Any]) -> None:
        """See `PoolOptions`."""

        async def begin() -> None:
            async with self.runtime.held() as runtime:
                connect = connector()

                def open_stream() -> SyncStream[AnyItem]:
                    stream: SyncStream[AnyItem] = wait(connect(), runtime.lock)
                    return stream

                where = (runtime.new_condition, runtime.time, runtime.call_at, runtime.lock)
                SyncConnectionPool.__init__(self, open_stream, *where, **limits)
                runtime.hold(self.end)
                runtime.start()

        wait(begin())

    def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        self.end()
        self.runtime.release(self.end)
