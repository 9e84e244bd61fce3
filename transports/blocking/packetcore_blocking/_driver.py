"""One loop on a thread of its own, for tools."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from packetcore import Handle
from packetcore_blocking._adapter import ConnectionPool, adapter
from packetcore_blocking._loop import Loop
from packetcore_sockets import Started, SyncDriver


class BlockingDriver(SyncDriver):
    """Serves all its servers and clients on one thread. See `packetcore.Driver`.

    `call` runs a function on a thread of its own, which holds the lock save where it waits.
    """

    def __init__(self) -> None:
        super().__init__(adapter, ConnectionPool)

    def where(self) -> dict[str, Any]:
        """See `packetcore_sockets.ThreadDriver`."""
        return {"loop": self.runtime}

    def run(self, started: Started) -> None:
        """See `packetcore_sockets.ThreadDriver`."""
        loop = Loop(is_lasting=True)
        loop.hold(stop := loop.close)
        started(loop, lambda: loop.release(stop))
        loop.serve()

    def begin(self, function: Callable[[], Any], future: Future[Any]) -> Handle:
        """See `packetcore_sockets.ThreadDriver`."""
        return _Call(self.runtime, super().begin(function, future))


class _Call:
    def __init__(self, loop: Any, thread: Any) -> None:
        self._loop = loop
        self._thread = thread

    def cancel(self) -> None:
        self._loop.cancel(self._thread)
