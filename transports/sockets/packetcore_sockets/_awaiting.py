"""The manner of runtimes whose calls are awaited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from packetcore import AsyncConnectionPool, AsyncStream, Inbox
from packetcore_sockets import _client, _server
from packetcore_sockets._adapter import Adapter
from packetcore_sockets._pool import PoolOptions
from packetcore_sockets._runtime import Runtime

S = TypeVar("S", bound=AsyncStream)
A = TypeVar("A", bound="Server")
B = TypeVar("B", bound="Client")


class Server(_server.Server):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class Client(_client.Client):
    """A client that comes back; `connect` with `reconnect` gives it. `async with` closes it at the
    end."""

    async def __aenter__(self: B) -> B:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class AsyncAdapter(Adapter[S, A, B]):
    """The functions of an adapter whose calls are awaited; with its `Stream`, `Server` and `Client`."""

    def __init__(self, current: Callable[..., Runtime], stream: type[S], server: type[A], client: type[B]) -> None:
        def new_stream(inbox: Inbox, runtime: Runtime) -> S:
            return stream(inbox, runtime.time, runtime.new_event)

        super().__init__(current, new_stream, server, client)


class ConnectionPool(PoolOptions, AsyncConnectionPool[S]):
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
