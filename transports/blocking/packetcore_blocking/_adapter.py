"""All that an application imports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from packetcore import Session, SessionPool, SyncStream
from packetcore_blocking._loop import Loop
from packetcore_sockets import SyncAdapter, SyncClient, SyncConnectionPool, SyncRuntime, SyncServer

Stream = SyncStream
Server = SyncServer[Stream]
Client = SyncClient[Stream]


class Adapter(SyncAdapter[Stream]):
    """Servers that share a register share a loop too, and with it the thread that serves and the
    lock: a register has no other."""

    def __init__(self) -> None:
        super().__init__(_loop, Stream)
        self._lock = threading.Lock()
        self._shared: dict[SessionPool[Session], Loop] = {}

    @contextmanager
    def server_runtime(self, sessions: SessionPool[Session] | None, **where: Any) -> Iterator[SyncRuntime]:
        """See `packetcore_sockets.SyncAdapter`."""
        with self._lock:
            self._shared = {each: loop for each, loop in self._shared.items() if not loop.closed}
            loop = None if sessions is None else self._shared.get(sessions)
            if loop is None:
                loop = _loop(**where)
            if sessions is not None:
                self._shared[sessions] = loop
        with loop.held() as held:
            yield held


def _loop(loop: Loop | None = None) -> Loop:
    """A loop that is served already, as a driver's is; by default a new one."""
    return Loop() if loop is None else loop


adapter = Adapter()
serve, connect, request = adapter.serve, adapter.connect, adapter.request
serve_udp, connect_udp = adapter.serve_udp, adapter.connect_udp


class ConnectionPool(SyncConnectionPool[Stream]):
    __doc__ = SyncConnectionPool.__doc__
    adapter = adapter
    runtime: Loop

    def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back; if
        nothing is, wait until all is closed, which takes `close_timeout` at most."""
        super().close()
        if not self.size:
            self.runtime.wait_closed()
