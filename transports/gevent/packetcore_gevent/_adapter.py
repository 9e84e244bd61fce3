"""All that an application imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packetcore import AnyItem, SyncStream
from packetcore_gevent._runtime import Hub
from packetcore_sockets import SyncAdapter, SyncClient, SyncConnectionPool, SyncServer, waiting

if TYPE_CHECKING:  # `serve` and `connect` are typed with that one, and to them there is no difference
    Stream = SyncStream
else:
    from packetcore_gevent._stream import Stream

Server = SyncServer
Client = SyncClient

adapter = SyncAdapter(Hub, Stream, Server, Client)
serve, serve_udp = adapter.serve_and_wait, adapter.serve_udp_and_wait
connect, connect_udp = adapter.connect_and_wait, adapter.connect_udp_and_wait
serve_unix, connect_unix = adapter.serve_unix_and_wait, adapter.connect_unix_and_wait
connect_serial = adapter.connect_serial_and_wait
request = waiting(adapter.request)


class ConnectionPool(SyncConnectionPool[AnyItem]):
    __doc__ = SyncConnectionPool.__doc__
    adapter = adapter
