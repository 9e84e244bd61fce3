"""A pool of connections to one server."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any

from gevent import get_hub
from gevent.event import Event

from packetcore import Config, SyncConnectionPool
from packetcore_gevent._stream import Stream
from packetcore_gevent._tcp import connect


class ConnectionPool(SyncConnectionPool[Stream]):
    """Streams to one server, opened when needed and used again: `with pool.acquire() as stream`.
    `with` over the pool closes it at the end. It belongs to the thread that made it.

    Args:
        host: a name or an address.
        port: its port.
        config: limits and timeouts of each stream.
        max_size: how many streams there may be.
        max_idle: how long one is kept unused, in seconds; `None` for ever.
        max_lifetime: how old one may become, in seconds; it is never taken from its user.
        max_waiting: how many may wait for one; `None` for no limit.
        options: what else `connect` takes, such as `ssl`.

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
        **options: Any,
    ) -> None:
        self._loop = get_hub().loop
        self._timer = self._loop.timer(0)
        self._open = partial(connect, host, port, config=config, **options)
        super().__init__(
            monotonic, max_size=max_size, max_idle=max_idle, max_lifetime=max_lifetime, max_waiting=max_waiting
        )

    def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        self._timer.close()
        super().close()

    def _connect(self) -> Stream:
        return self._open()

    def _set_timer(self, at: float) -> None:
        self._timer.close()
        self._timer = self._loop.timer(max(0.001, at - monotonic()))  # libuv wants no less
        self._timer.start(self._expire)

    def _new_event(self) -> Event:
        return Event()
