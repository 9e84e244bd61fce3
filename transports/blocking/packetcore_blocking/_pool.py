"""A pool of connections to one server."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from time import monotonic
from typing import Any

from packetcore import Config, SyncConnectionPool
from packetcore_blocking._dial import Target, open_stream
from packetcore_blocking._loop import Loop, Timer, after
from packetcore_blocking._stream import Stream


class Event:
    """What wakes one thread that waits in a loop: the `packetcore.SyncEvent`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._changed = Condition(loop.lock)
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._loop.notify(self._changed)

    def wait(self, timeout: float | None) -> bool:
        return bool(self._loop.wait(self._changed, lambda: self._is_set or None, after(timeout)))


class ConnectionPool(SyncConnectionPool[Stream]):
    """Streams to one server, opened when needed and used again: `with pool.acquire() as stream`,
    from any thread. `with pool` closes it at the end.

    One thread serves all its streams, so that timeouts and keepalives go on while nobody uses
    them. It ends once the pool is closed and the last stream is back.

    Args:
        host: a name or an address.
        port: its port.
        config: limits and timeouts of each stream.
        max_size: how many streams there may be.
        max_idle: how long one is kept unused, in seconds; `None` for ever.
        max_lifetime: how old one may become, in seconds; it is never taken from its user.
        max_waiting: how many threads may wait for one; `None` for no limit.
        loop: a loop that is served already, as a driver's is; by default one of its own.
        options: what else `connect` takes: `ssl` and `server_hostname`.

    Raises:
        ValueError: a limit is too small.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        config: Config | None = None,
        max_size: int = 10,
        max_idle: float | None = 60.0,
        max_lifetime: float | None = None,
        max_waiting: int | None = None,
        loop: Loop | None = None,
        **options: Any,
    ) -> None:
        self._target = Target(host, port, **options)
        self._config = config
        self._owns_loop = loop is None
        self._loop = Loop() if loop is None else loop
        self._closed = Condition(self._loop.lock)
        self._timer: Timer | None = None
        limits = {"max_size": max_size, "max_idle": max_idle, "max_lifetime": max_lifetime, "max_waiting": max_waiting}
        try:
            super().__init__(monotonic, self._loop, **limits)
            if self._owns_loop:
                with self._loop:
                    self._loop.start("packetcore-pool", self._is_over)
        except BaseException:
            if self._owns_loop:
                self._loop.close()
            raise

    def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back; if
        nothing is, wait until all is closed, which takes `close_timeout` at most."""
        with self._loop:
            super().close()
            if self._timer is not None:
                self._timer.cancel()
            self._loop.interrupt()  # its thread may end now
        if self._owns_loop:
            self._loop.wait(self._closed, lambda: self.size or None)

    def _connect(self) -> Stream:
        return open_stream(self._loop, self._target, self._config)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._expire)

    def _new_event(self) -> Event:
        return Event(self._loop)

    def _end(self, end: Callable[[float], object]) -> None:
        with self._loop:
            super()._end(end)
            if self._pool.is_closed:
                self._loop.interrupt()

    def _is_over(self) -> bool:
        return self._pool.is_closed and not (self.size or self._loop.open)
