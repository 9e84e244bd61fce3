"""The cluster for `packetcore_gevent`: calls wait as greenlets do, with or without monkey-patching.

    with Cluster("nats://127.0.0.1:4222", name="fleet") as cluster:
        with serve(Gateway(), host, port, sessions=cluster.sessions) as server:
            reply = cluster.request("meter 7", Packet(7, b"status?"), timeout=2.0)

Greenlets of the thread that enters it may use it. `gevent.Timeout` can end any wait. A handler must not call what
waits: that raises `RuntimeError` there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from packetcore import AnyPacket
from packetcore_cluster._threaded import Sync

_start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
"""Threads, not greenlets, also in a patched program."""


class Cluster(Sync[AnyPacket]):
    """The sessions of many workers and machines as one register, over NATS with JetStream, on gevent.

    Its arguments are those of `packetcore_cluster.Cluster`. `on_event` is called in the hub, and must not block.
    """

    def _start_thread(self, function: Callable[[], None]) -> None:
        _start_new_thread(function, ())

    def _post(self, callback: Callable[[], object]) -> None:
        self._hub.loop.run_callback_threadsafe(callback)

    def _new_pending(self) -> _Pending:
        return _Pending()

    async def _give_way(self) -> None:
        if gevent.getcurrent() is not self._hub:  # where a handler sends
            gevent.sleep(0)

    async def _begin(self) -> int:
        self._hub = gevent.get_hub()
        return await super()._begin()


class _Pending:
    """See `Pending`."""

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._event = Event()
        if gevent.getcurrent() is self._hub:
            raise RuntimeError("a handler must not block: it holds up the hub that would end its wait")

    def done(self, outcome: Any) -> None:
        self._outcome = outcome
        self._hub.loop.run_callback_threadsafe(self._event.set)

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        self._event.wait(threading.TIMEOUT_MAX)  # a hub with no timer either would give up
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome
