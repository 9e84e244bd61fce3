"""A pool of connections to one server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from packetcore import AsyncConnectionPool, Config
from packetcore_twisted._reactor import clock_of, the_reactor
from packetcore_twisted._stream import Stream
from packetcore_twisted._tcp import connect


class ConnectionPool(AsyncConnectionPool[Stream]):
    """Streams to one server, opened when needed and used again: `async with pool.acquire() as
    stream` in coroutines, else `pool.use`. `async with` over the pool closes it at the end.

    Args:
        host: a name or an address.
        port: its port.
        config: limits and timeouts of each stream.
        max_size: how many streams there may be.
        max_idle: how long one is kept unused, in seconds; `None` for ever.
        max_lifetime: how old one may become, in seconds; it is never taken from its user.
        max_waiting: how many may wait for one; `None` for no limit.
        ssl: for TLS, as `connect` takes it.
        reactor: the global one by default.

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
        ssl: Any = None,
        reactor: Any = None,
    ) -> None:
        self._reactor = the_reactor(reactor)
        self._time = clock_of(self._reactor)
        self._timer: Any = None
        self._open = partial(connect, host, port, config=config, ssl=ssl, reactor=self._reactor)
        super().__init__(
            self._time,
            max_size=max_size,
            max_idle=max_idle,
            max_lifetime=max_lifetime,
            max_waiting=max_waiting,
        )

    def use(self, function: Callable[[Stream], Any]) -> Deferred[Any]:
        """Acquire a stream, run a function over it, and give it back when that is done.

        Args:
            function: `async def`, or with a Deferred as its result. If it raises, the stream
                is closed.

        Returns:
            A Deferred of what the function gives; see `acquire` for what else it raises.
        """
        return Deferred.fromCoroutine(self._use(function))

    def close(self) -> Deferred[None]:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._pool.close()
        return succeed(None)

    async def _use(self, function: Callable[[Stream], Any]) -> Any:
        async with self.acquire() as stream:
            return await maybeDeferred(function, stream)

    def _connect(self) -> Deferred[Stream]:
        return self._open()

    def _set_timer(self, at: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(max(0, at - self._time()), self._expire)

    def _new_event(self) -> _Event:
        return _Event(self._reactor)


class _Event:
    """Wakes one coroutine, on a turn of its own: who sets it is in the middle of its work."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._deferred: Deferred[None] = Deferred()

    def set(self) -> None:
        self._reactor.callLater(0, self._deferred.callback, None)

    def wait(self) -> Deferred[None]:
        return self._deferred
