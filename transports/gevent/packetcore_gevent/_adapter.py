"""All that an application imports."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from packetcore import SyncStream
from packetcore_gevent._runtime import Hub
from packetcore_sockets import SyncAdapter, SyncClient, SyncConnectionPool, SyncServer


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


Server = SyncServer[Stream]
Client = SyncClient[Stream]

adapter = SyncAdapter(Hub, Stream)
serve, connect, request = adapter.serve, adapter.connect, adapter.request
serve_udp, connect_udp = adapter.serve_udp, adapter.connect_udp


class ConnectionPool(SyncConnectionPool[Stream]):
    __doc__ = SyncConnectionPool.__doc__
    adapter = adapter
