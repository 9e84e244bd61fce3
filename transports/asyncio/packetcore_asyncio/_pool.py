"""A pool of connections to one server."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from packetcore import AsyncConnectionPool, Config
from packetcore_asyncio._stream import Stream
from packetcore_asyncio._tcp import connect


class ConnectionPool(AsyncConnectionPool[Stream]):
    """Streams to one server, opened when needed and used again: `async with pool.acquire() as
    stream`. `async with` over the pool closes it at the end.

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
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._open = partial(connect, host, port, config=config, **options)
        super().__init__(
            self._loop.time, max_size=max_size, max_idle=max_idle, max_lifetime=max_lifetime, max_waiting=max_waiting
        )

    async def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        if self._timer is not None:
            self._timer.cancel()
        self._pool.close()

    async def _connect(self) -> Stream:
        return await self._open()

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._expire)

    def _new_event(self) -> asyncio.Event:
        return asyncio.Event()
