"""gevent on a thread of its own, for tools that know no greenlets."""

from __future__ import annotations

import threading

import gevent
from gevent.event import Event

from packetcore_gevent._adapter import ConnectionPool, adapter
from packetcore_gevent._runtime import Hub
from packetcore_sockets import Started, SyncDriver


class GeventDriver(SyncDriver):
    """Runs a hub. See `packetcore.Driver`."""

    def __init__(self) -> None:
        super().__init__(adapter, ConnectionPool)

    def run(self, started: Started) -> None:
        """See `packetcore_sockets.ThreadDriver`."""
        stopping = Event()
        started(Hub(), stopping.set)
        stopping.wait(threading.TIMEOUT_MAX)  # a hub with no timer either would give up
        gevent.sleep(0)  # let the calls and sessions hear of it
        gevent.get_hub().destroy(destroy_loop=True)
