"""A `ConnectionPool` of streams: what every adapter's pool does beside waiting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

from packetcore._connection_pool import ConnectionPool, ConnectionPoolStats, Lease, LeaseState
from packetcore._errors import PoolClosed
from packetcore._stream import AsyncStream, StreamBase, SyncStream

S = TypeVar("S", bound=StreamBase)
A = TypeVar("A", bound=AsyncStream)
Y = TypeVar("Y", bound=SyncStream)


class AsyncEvent(Protocol):
    """What wakes one coroutine, such as `asyncio.Event`."""

    def set(self) -> None:
        """Wake it."""

    def wait(self) -> Awaitable[Any]:
        """Wait until woken."""
        raise NotImplementedError


class SyncEvent(Protocol):
    """What wakes one thread or greenlet, such as `gevent.event.Event`."""

    def set(self) -> None:
        """Wake it."""

    def wait(self, timeout: float | None) -> bool:
        """Wait until woken, or for `timeout` seconds. Returns whether woken."""
        raise NotImplementedError


class StreamPool(ABC, Generic[S]):
    """What every adapter's pool shows, beside `acquire`.

    Args:
        clock: tells the time that the sessions' inputs are given.
        lock: held wherever the books are changed, where threads share the pool.
        limits: `max_size`, `max_idle`, `max_lifetime` and `max_waiting` of `ConnectionPool`.
    """

    def __init__(
        self, clock: Callable[[], float], lock: AbstractContextManager[None] | None = None, **limits: Any
    ) -> None:
        self._clock = clock
        self._lock: AbstractContextManager[None] = nullcontext() if lock is None else lock
        self._pool: ConnectionPool[S] = ConnectionPool(_hang_up, is_alive=_is_reusable, **limits)
        self._timer_at: float | None = None

    @property
    def size(self) -> int:
        """Connections that there are: idle, in use and being opened."""
        return self._pool.size

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return self._pool.idle

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._pool.waiting

    @property
    def stats(self) -> ConnectionPoolStats:
        """What the pool has done until now."""
        return self._pool.stats

    @abstractmethod
    def _connect(self) -> Any:
        """Open a stream, in the manner of the runtime."""

    @abstractmethod
    def _set_timer(self, at: float) -> None:
        """Call `_expire` at a time, in place of any set before."""

    def _expire(self) -> None:
        self._timer_at = None
        with self._lock:
            self._pool.expire(self._clock())
            self._arm()

    def _arm(self) -> None:
        at = self._pool.next_deadline()
        if at is not None and (self._timer_at is None or at < self._timer_at):
            self._timer_at = at
            self._set_timer(at)

    def _ask(self, event: AsyncEvent | SyncEvent) -> Lease[S]:
        with self._lock:
            return self._pool.acquire(self._clock(), event.set)

    def _end(self, end: Callable[[float], object]) -> None:
        with self._lock:
            end(self._clock())
            self._arm()


class AsyncConnectionPool(StreamPool[A]):
    """A pool of streams whose calls are awaited; `async with` closes it at the end."""

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[A]:
        """A connected stream for the length of an `async with`, an idle one if there is one.

        Who has to wait gets one in the order of asking; cancelling the wait gives its place
        up. Where the block raises, the stream is closed, since its conversation may be
        unfinished; else the next has it.

        Raises:
            PoolClosed: the pool was closed.
            PoolFull: too many wait already.
            OSError: what `connect` raises.
        """
        event = self._new_event()
        lease = self._ask(event)
        try:
            if lease.state is LeaseState.WAITING:
                await event.wait()
            stream = _expect(lease)
            if stream is None:
                stream = await self._connect()
                lease.opened(stream, self._clock())
        except BaseException:
            self._end(lease.give_back)
            raise
        try:
            yield stream
        except BaseException:
            self._end(lease.discard)
            raise
        self._end(lease.release)

    def close(self) -> Awaitable[None]:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        raise NotImplementedError

    async def __aenter__(self: P) -> P:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    @abstractmethod
    def _new_event(self) -> AsyncEvent:
        """Something to wait for."""


class SyncConnectionPool(StreamPool[Y]):
    """A pool of streams whose calls block; `with` closes it at the end."""

    @contextmanager
    def acquire(self, timeout: float | None = None) -> Iterator[Y]:
        """A connected stream for the length of a `with`, an idle one if there is one.

        Who has to wait gets one in the order of asking. Where the block raises, the stream is
        closed, since its conversation may be unfinished; else the next has it.

        Args:
            timeout: how long to wait for one to come back, in seconds; `None` for ever.

        Raises:
            PoolClosed: the pool was closed.
            PoolFull: too many wait already.
            TimeoutError: none came back in time.
            OSError: what `connect` raises.
        """
        event = self._new_event()
        lease = self._ask(event)
        try:
            if lease.state is LeaseState.WAITING and not event.wait(timeout) and lease.state is LeaseState.WAITING:
                raise TimeoutError(f"all {self.size} connections are in use still after timeout={timeout} s")
            stream = _expect(lease)
            if stream is None:
                stream = self._connect()
                with self._lock:
                    lease.opened(stream, self._clock())
        except BaseException:
            self._end(lease.give_back)
            raise
        try:
            yield stream
        except BaseException:
            self._end(lease.discard)
            raise
        self._end(lease.release)

    def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        with self._lock:
            self._pool.close()

    def __enter__(self: Q) -> Q:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def _new_event(self) -> SyncEvent:
        """Something to wait for."""


P = TypeVar("P", bound=AsyncConnectionPool[Any])
Q = TypeVar("Q", bound=SyncConnectionPool[Any])


def _expect(lease: Lease[S]) -> S | None:
    """The connection of a lease that waits no more; `None` if it is to open one."""
    if lease.state is LeaseState.OVER:
        raise PoolClosed("the connection pool is closed")
    return lease.connection


def _is_reusable(stream: StreamBase) -> bool:
    # What came unasked, or may come yet, may answer what the last holder asked: nobody else is
    # to read it.
    session = stream.session
    return session.is_open and not stream.has_received and not session.unanswered


def _hang_up(stream: StreamBase) -> None:
    stream.session.close()
