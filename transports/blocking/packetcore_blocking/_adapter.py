"""All that an application imports."""

from __future__ import annotations

import threading
from typing import Any

from packetcore import AnyItem, Session, SessionPool, SyncStream
from packetcore_blocking._loop import Loop
from packetcore_sockets import SyncAdapter, SyncClient, SyncConnectionPool, SyncServer, waiting

Stream = SyncStream
Server = SyncServer
Client = SyncClient


class Adapter(SyncAdapter):
    """Servers that share a register share a loop too, and with it the thread that serves and the
    lock: a register has no other."""

    def __init__(self) -> None:
        super().__init__(_loop, Stream, Server, Client)
        self._lock = threading.Lock()
        self._shared: dict[SessionPool[Session[Any]], Loop] = {}

    def server_runtime(self, sessions: SessionPool[Session[Any]] | None, **where: Any) -> Loop:
        """See `packetcore_sockets.Adapter`."""
        if sessions is None:
            return _loop(**where)
        with self._lock:
            self._shared = {each: loop for each, loop in self._shared.items() if not loop.closed}
            if sessions not in self._shared:
                self._shared[sessions] = _loop(**where)
            return self._shared[sessions]


def _loop(loop: Loop | None = None) -> Loop:
    """A loop that is served already, as a driver's is; by default a new one."""
    return Loop() if loop is None else loop


adapter = Adapter()
serve, serve_udp = adapter.serve_and_wait, adapter.serve_udp_and_wait
connect, connect_udp = adapter.connect_and_wait, adapter.connect_udp_and_wait
serve_unix, connect_unix = adapter.serve_unix_and_wait, adapter.connect_unix_and_wait
connect_serial = adapter.connect_serial_and_wait
request = waiting(adapter.request)


class ConnectionPool(SyncConnectionPool[AnyItem]):
    __doc__ = SyncConnectionPool.__doc__
    adapter = adapter
    runtime: Loop

    def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back; if
        nothing is, wait until all is closed, which takes `close_timeout` at most."""
        super().close()
        if not self.size:
            self.runtime.wait_closed()
