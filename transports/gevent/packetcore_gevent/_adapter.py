"""All that an application imports."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from packetcore import SyncStream
from packetcore_gevent._runtime import Hub
from packetcore_sockets import SyncAdapter, SyncClient, SyncConnectionPool, SyncServer, waiting


class Stream(SyncStream):
    """One conversation, to be used from greenlets of its own thread. `gevent.Timeout` can end
    any wait; that neither loses what comes nor unsends what was sent."""

    def run(self, function: Callable[[Stream], object]) -> None:
        """See `packetcore.SyncStream`."""

        def run(stream: Stream) -> None:
            try:
                function(stream)
            except gevent.Timeout as expired:  # a mistake like any other, but no Exception
                raise TimeoutError(f"not done after {expired}") from expired

        super().run(run)


Server = SyncServer
Client = SyncClient

adapter = SyncAdapter(Hub, Stream, Server, Client)
serve, serve_udp = waiting(adapter.serve), waiting(adapter.serve_udp)
request = waiting(adapter.request)
connect, connect_udp = adapter.connect_and_wait, adapter.connect_udp_and_wait


class ConnectionPool(SyncConnectionPool[Stream]):
    __doc__ = SyncConnectionPool.__doc__
    adapter = adapter
