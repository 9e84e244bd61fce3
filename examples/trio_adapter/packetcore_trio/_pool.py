"""A pool of connections to one server."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from packetcore import AsyncConnectionPool
from packetcore_trio._stream import Stream
from packetcore_trio._tcp import connect
from packetcore_trio._timer import Timer


class ConnectionPool(AsyncConnectionPool[Stream]):
    """Streams to one server, opened when needed and used again: `async with pool.acquire() as
    stream`. They run in `nursery`, and so does the pool until it is closed, as by `async with`.
    For the limits see `packetcore.ConnectionPool`; `options` is what else `connect` takes.

    Raises:
        ValueError: a limit is too small.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        nursery: trio.Nursery,
        max_size: int = 10,
        max_idle: float | None = 60.0,
        max_lifetime: float | None = None,
        max_waiting: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            trio.current_time, max_size=max_size, max_idle=max_idle, max_lifetime=max_lifetime, max_waiting=max_waiting
        )
        self._open = partial(connect, host, port, nursery=nursery, **options)
        self._life = trio.CancelScope()
        self._timer = Timer(lambda now: self._expire())
        nursery.start_soon(self._keep_time)

    async def close(self) -> None:
        """As `AsyncConnectionPool.close`."""
        self._pool.close()
        self._life.cancel()

    async def _keep_time(self) -> None:
        with self._life:
            await self._timer.run()

    async def _connect(self) -> Stream:
        return await self._open()

    def _set_timer(self, at: float) -> None:
        self._timer.set(at)

    def _new_event(self) -> trio.Event:
        return trio.Event()
