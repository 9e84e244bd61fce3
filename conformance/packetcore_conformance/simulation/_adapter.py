"""The functions of this adapter: those of every other. Called in a program, they are its host's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packetcore import AnyItem, AsyncStream, Handler
from packetcore_conformance.simulation._host import Host, current
from packetcore_sockets import AsyncAdapter, AsyncClient, AsyncServer
from packetcore_sockets import AsyncConnectionPool as Pool

Stream = AsyncStream
"""One conversation, as a program sees it."""

Server = AsyncServer
"""What `serve` gives."""

Client = AsyncClient
"""What `connect` gives with `reconnect`."""


class Adapter(AsyncAdapter):
    """Has every handler watched."""

    async def serve(self, handler: Any, *args: Any, **options: Any) -> Any:
        return await super().serve(_watched(handler), *args, **options)

    async def serve_udp(self, handler: Any, *args: Any, **options: Any) -> Any:
        return await super().serve_udp(_watched(handler), *args, **options)

    async def connect(self, host: str, port: Any = None, handler: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return await super().connect(host, port, _watched(handler), **options)

    async def connect_udp(self, host: str, port: int, handler: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return await super().connect_udp(host, port, _watched(handler), **options)


adapter: AsyncAdapter = Adapter(lambda: current.get(), AsyncStream, AsyncServer, AsyncClient)

serve, serve_udp = adapter.serve, adapter.serve_udp
connect, connect_udp = adapter.connect, adapter.connect_udp
request = adapter.request


class ConnectionPool(Pool[AnyItem]):
    __doc__ = Pool.__doc__

    adapter = adapter

    def begin(self, connector: Callable[[], Callable[[], Any]], limits: dict[str, Any]) -> None:
        super().begin(connector, limits)
        current.get().pools.append(self)


async def sleep(seconds: float) -> None:
    """Let time pass on the clock of the simulation."""
    host = current.get()
    woken = host.new_event()
    timer = host.call_at(host.time() + seconds, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()


def _watched(handler: Any) -> Any:
    if isinstance(handler, Handler):
        host: Host = current.get()
        return host.watched(handler)
    return handler
