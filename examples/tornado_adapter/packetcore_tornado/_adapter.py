"""All that an application imports."""

from __future__ import annotations

from packetcore import AnyItem, AsyncStream
from packetcore_sockets import AsyncAdapter, AsyncClient, AsyncConnectionPool, AsyncServer
from packetcore_tornado._runtime import TornadoRuntime

Stream = AsyncStream
Server = AsyncServer
Client = AsyncClient

adapter = AsyncAdapter(TornadoRuntime, Stream, Server, Client)
serve, connect, request = adapter.serve, adapter.connect, adapter.request
serve_udp, connect_udp = adapter.serve_udp, adapter.connect_udp
serve_unix, connect_unix = adapter.serve_unix, adapter.connect_unix
connect_serial = adapter.connect_serial


class ConnectionPool(AsyncConnectionPool[AnyItem]):
    __doc__ = AsyncConnectionPool.__doc__
    adapter = adapter
