"""A `ConnectionPool` of streams: what every adapter's pool does beside waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

from packetcore._connection_pool import ConnectionPool, ConnectionPoolStats, Lease, LeaseState
from packetcore._errors import PoolClosed
from packetcore._stream import AsyncStream, StreamBase, SyncStream
from packetcore._waiting import AsyncEvent, Handle, SyncCondition

S = TypeVar("S", bound=StreamBase[Any])
A = TypeVar("A", bound=AsyncStream[Any])
Y = TypeVar("Y", bound=SyncStream[Any])


class StreamPool(Generic[S]):
    """What every adapter's pool shows, beside `acquire`.

    Args:
        clock: tells the time that the sessions' inputs are given.
        call_at: calls something at a time of that clock.
        lock: held wherever the books are changed, where threads share the pool.
        limits: `max_size`, `max_idle`, `max_lifetime` and `max_waiting` of `ConnectionPool`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], object]], Handle],
        lock: AbstractContextManager[None] | None = None,
        **limits: Any,
    ) -> None:
        self._clock = clock
        self._call_at = call_at
        self._lock: AbstractContextManager[None] = nullcontext() if lock is None else lock
        self._pool: ConnectionPool[S] = ConnectionPool(_hang_up, is_alive=_is_reusable, **limits)
        self._timer: Handle | None = None
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

    def _expire(self) -> None:
        self._timer_at = None
        with self._lock:
            self._pool.expire(self._clock())
            self._arm()

    def _arm(self) -> None:
        at = self._pool.next_deadline()
        if at is not None and (self._timer_at is None or at < self._timer_at):
            self._stop_timer()
            self._timer_at = at
            self._timer = self._call_at(at, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ask(self, on_change: Callable[[], object]) -> Lease[S]:
        with self._lock:
            return self._pool.acquire(self._clock(), on_change)

    def end(self) -> None:
        """What `close` does, without a wait."""
        with self._lock:
            self._stop_timer()
            self._pool.close()

    def _end(self, end: Callable[[float], object]) -> None:
        with self._lock:
            end(self._clock())
            self._arm()


class AsyncConnectionPool(StreamPool[A]):
    """A pool of streams whose calls are awaited; `async with` closes it at the end.

    Args:
        connect: opens a stream.
        new_event: makes an event of the runtime.
        options: see `StreamPool`.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[A]], new_event: Callable[[], AsyncEvent], *args: Any, **options: Any
    ) -> None:
        self._connect = connect
        self._new_event = new_event
        super().__init__(*args, **options)

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
        lease = self._ask(event.set)
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

    async def close(self) -> None:
        """Close what is idle, and end the waits. What is in use is closed when it comes back."""
        self.end()

    async def __aenter__(self: P) -> P:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class SyncConnectionPool(StreamPool[Y]):
    """A pool of streams whose calls block; `with` closes it at the end.

    Args:
        connect: opens a stream.
        new_condition: makes a condition of the runtime.
        options: see `StreamPool`.
    """

    def __init__(
        self, connect: Callable[[], Y], new_condition: Callable[[], SyncCondition], *args: Any, **options: Any
    ) -> None:
        self._connect = connect
        self._new_condition = new_condition
        super().__init__(*args, **options)

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
        changed = self._new_condition()
        lease = self._ask(changed.notify_all)
        try:
            changed.wait_for(lambda: lease.state is not LeaseState.WAITING or None, timeout)
            if lease.state is LeaseState.WAITING:
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
        self.end()

    def __enter__(self: Q) -> Q:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


P = TypeVar("P", bound=AsyncConnectionPool[Any])
Q = TypeVar("Q", bound=SyncConnectionPool[Any])


def _expect(lease: Lease[S]) -> S | None:
    """The connection of a lease that waits no more; `None` if it is to open one."""
    if lease.state is LeaseState.OVER:
        raise PoolClosed("the connection pool is closed")
    return lease.connection


def _is_reusable(stream: StreamBase[Any]) -> bool:
    # What came unasked, or may come yet, may answer what the last holder asked: nobody else is
    # to read it.
    session = stream.session
    return session.is_open and not stream.has_received and not session.unanswered


def _hang_up(stream: StreamBase[Any]) -> None:
    stream.session.close()
