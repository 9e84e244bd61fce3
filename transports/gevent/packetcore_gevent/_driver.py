"""gevent on a thread of its own, for tools that know no greenlets."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import Hub
from gevent.pool import Group

from packetcore import Driver
from packetcore_gevent._pool import ConnectionPool
from packetcore_gevent._stream import Stream
from packetcore_gevent._tcp import connect, serve
from packetcore_gevent._udp import connect_udp, serve_udp


class GeventDriver(Driver):
    """Runs a hub. See `packetcore.Driver`."""

    def __init__(self) -> None:
        super().__init__(serve, connect, _echo, serve_udp, connect_udp, ConnectionPool)
        self._calls = Group()
        self._stopping = Event()
        running: concurrent.futures.Future[Hub] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(running,), name="packetcore-gevent", daemon=True)
        self._thread.start()
        self._loop = running.result(30).loop

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        greenlet: list[gevent.Greenlet[..., None]] = []

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)

        self._loop.run_callback_threadsafe(lambda: greenlet.append(self._calls.spawn(run)))
        try:
            return self.result(future, timeout)
        finally:
            self._loop.run_callback_threadsafe(lambda: gevent.killall(greenlet, block=False))

    def capabilities(self) -> frozenset[str]:
        return frozenset({"tcp", "tls", "udp", "reconnect", "pool"})

    def stop(self) -> None:
        if self._thread.is_alive():
            self.close_all()
            self._loop.run_callback_threadsafe(self._stopping.set)
            self._thread.join()

    def _run(self, running: concurrent.futures.Future[Hub]) -> None:
        hub = gevent.get_hub()
        running.set_result(hub)
        self._stopping.wait(threading.TIMEOUT_MAX)  # a hub with no timer either would give up
        self._calls.kill()
        gevent.sleep(0)  # let the sessions hear of it
        hub.destroy(destroy_loop=True)


def _echo(stream: Stream) -> None:
    for item in stream:
        stream.send(item)
