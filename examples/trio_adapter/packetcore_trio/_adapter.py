"""All that an application imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packetcore import AnyItem, AsyncStream
from packetcore_sockets import AsyncAdapter, AsyncClient, AsyncConnectionPool, AsyncServer
from packetcore_trio._runtime import TrioRuntime

if TYPE_CHECKING:  # `serve` and `connect` are typed with that one, and to them there is no difference
    Stream = AsyncStream
else:
    from packetcore_trio._stream import Stream

Server = AsyncServer
Client = AsyncClient

adapter = AsyncAdapter(TrioRuntime, Stream, Server, Client)
serve, connect, request = adapter.serve, adapter.connect, adapter.request
serve_udp, connect_udp = adapter.serve_udp, adapter.connect_udp
serve_unix, connect_unix = adapter.serve_unix, adapter.connect_unix
connect_serial = adapter.connect_serial


class ConnectionPool(AsyncConnectionPool[AnyItem]):
    adapter = adapter
