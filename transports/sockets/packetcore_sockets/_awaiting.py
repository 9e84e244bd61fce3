"""The manner of runtimes whose calls are awaited."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from packetcore import AsyncConnectionPool, AsyncStream, Config, Inbox
from packetcore_sockets import _client, _server
from packetcore_sockets._adapter import Adapter
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
    """The functions of an adapter whose calls are awaited.

    Args:
        current: gives the runtime of where it is called. What keywords it takes, all functions
            here take too.
        stream: the adapter's `Stream`.
        server: its `Server`.
        client: its `Client`.
    """

    def __init__(self, current: Callable[..., Runtime], stream: type[S], server: type[A], client: type[B]) -> None:
        def new_stream(inbox: Inbox, runtime: Runtime) -> S:
            return stream(inbox, runtime.time, runtime.new_event)

        super().__init__(current, new_stream, server, client)


class ConnectionPool(AsyncConnectionPool[S]):
    """Streams to one server, opened when needed and used again: `async with pool.acquire() as
    stream`. `async with` over the pool closes it at the end.

    Args:
        host: a name or an address.
        port: its port.
        config: limits and timeouts of each stream.
        max_size: how many streams there may be.
        max_idle: how long one is kept unused, in seconds; `None` for ever.
        max_lifetime: how old one may become, in seconds; it is never taken from its user.
        max_waiting: how many may wait for one; `None` for no limit.
        options: what else `connect` takes, such as `ssl`.

    Raises:
        ValueError: a limit is too small.
    """

    adapter: Adapter[Any, Any, Any]
    """Whose pool this is: a subclass says so."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        config: Config | None = None,
        max_size: int = 10,
        max_idle: float | None = 60.0,
        max_lifetime: float | None = None,
        max_waiting: int | None = None,
        **options: Any,
    ) -> None:
        self.runtime = runtime = self.adapter.runtime(options)
        """What it runs on."""
        limits = {"max_size": max_size, "max_idle": max_idle, "max_lifetime": max_lifetime, "max_waiting": max_waiting}
        connect = partial(self.adapter.open_stream, runtime, runtime.dialler(host, port, **options), config)
        super().__init__(connect, runtime.new_event, runtime.time, runtime.call_at, **limits)
        runtime.hold(self.end)

    async def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        self.end()
        self.runtime.release(self.end)
