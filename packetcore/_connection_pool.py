"""A client's pool: which connection serves whom, who waits, and what is too old to keep.

Bookkeeping only: it opens nothing. Who asks for a connection is given an idle one, or leave
to open one, or a place in the queue; what the pool lets go of it passes to `close`.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from packetcore._errors import LocalProtocolError, PoolClosed, PoolFull

T = TypeVar("T")


class LeaseState(enum.Enum):
    """What the holder of a lease is to do."""

    WAITING = "wait until on_change is called"
    OPENING = "open a connection, then say opened; or discard"
    ACTIVE = "use the connection, then release or discard"
    OVER = "nothing more"


class Lease(Generic[T]):
    """One request for a connection, from `ConnectionPool.acquire` to `release` or `discard`."""

    __slots__ = ("_opened_at", "_pool", "connection", "on_change", "state")

    def __init__(self, pool: ConnectionPool[T], on_change: Callable[[], object]) -> None:
        self._pool = pool
        self._opened_at = 0.0
        self.state = LeaseState.WAITING
        """What the holder is to do; to be read only."""
        self.connection: T | None = None
        """The connection, while ACTIVE."""
        self.on_change = on_change
        """Called when the wait is over. It is OVER then if the pool was closed."""

    def opened(self, connection: T, now: float) -> None:
        """The connection that this lease was to open is there.

        Raises:
            LocalProtocolError: it was not to open one.
        """
        self._expect(LeaseState.OPENING)
        self._pool._stats.opened += 1
        self._opened_at = now
        self.connection = connection
        self.state = LeaseState.ACTIVE

    def release(self, now: float) -> None:
        """Done with the connection: the next may have it.

        Raises:
            LocalProtocolError: it has none.
        """
        self._expect(LeaseState.ACTIVE)
        self._pool._end(self, now, is_wanted=True)

    def discard(self, now: float) -> None:
        """Done, and nobody is to have the connection: it broke, or its conversation is
        unfinished. One that waits or was to open gives its place to the next. Idempotent."""
        if self.state is not LeaseState.OVER:
            self._pool._end(self, now, is_wanted=False)

    def give_back(self, now: float) -> None:
        """Done without having used the connection, whatever the state: another may have what
        there is. Idempotent."""
        if self.state is not LeaseState.OVER:
            self._pool._end(self, now, is_wanted=True)

    def _expect(self, state: LeaseState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the lease is {self.state.name}, not {state.name}")


@dataclass(slots=True)
class ConnectionPoolStats:
    """What a `ConnectionPool` has done until now: a copy of the counters."""

    size: int = 0
    """Connections that there are now: idle, in use and being opened."""

    idle: int = 0
    """Those that nobody uses now."""

    waiting: int = 0
    """Leases that wait now."""

    opened: int = 0
    """Connections opened."""

    reused: int = 0
    """Times that an open one was handed out again."""

    waited: int = 0
    """Leases that had to wait."""

    dead: int = 0
    """Connections found dead before they were handed out, or when they came back."""

    expired: int = 0
    """Connections closed for `max_idle` or `max_lifetime`."""

    discarded: int = 0
    """Connections that their holders gave up."""


class ConnectionPool(Generic[T]):
    """A bounded number of connections to one server, and a queue of those who wait for one.

    The connection used last is handed out first, so that the others can grow idle. Times are
    in seconds since any epoch, supplied by the caller.

    Args:
        close: called with each connection that the pool lets go of.
        max_size: how many there may be, those in use and those being opened included.
        max_idle: how long one is kept unused, in seconds; `None` for ever.
        max_lifetime: how old one may become, in seconds; it is never taken from its user.
        max_waiting: how many leases may wait; `None` for no limit.
        is_alive: whether a connection still works: asked before each is handed out.

    Raises:
        ValueError: one of them is too small.
    """

    def __init__(
        self,
        close: Callable[[T], object],
        *,
        max_size: int = 10,
        max_idle: float | None = 60.0,
        max_lifetime: float | None = None,
        max_waiting: int | None = None,
        is_alive: Callable[[T], bool] = lambda connection: True,
    ) -> None:
        for name, value in (("max_size", max_size), ("max_idle", max_idle), ("max_lifetime", max_lifetime)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0")
        if max_waiting is not None and max_waiting < 0:
            raise ValueError(f"max_waiting={max_waiting} must not be below 0")
        self.max_size = max_size
        self.max_idle = max_idle
        self.max_lifetime = max_lifetime
        self.max_waiting = max_waiting
        self._stats = ConnectionPoolStats()
        self.is_closed = False
        """Whether `close` was called."""
        self.size = 0
        """Connections that there are: idle, in use and being opened."""
        self._close = close
        self._is_alive = is_alive
        self._idle: deque[tuple[T, float, float]] = deque()  # connection, opened at, idle since
        self._waiting: OrderedDict[Lease[T], None] = OrderedDict()

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Leases that wait."""
        return len(self._waiting)

    @property
    def stats(self) -> ConnectionPoolStats:
        """What it has done until now."""
        return replace(self._stats, size=self.size, idle=self.idle, waiting=self.waiting)

    def acquire(self, now: float, on_change: Callable[[], object]) -> Lease[T]:
        """Ask for a connection; the lease's state says what you got.

        Args:
            now: the time, in seconds.
            on_change: called when a lease that had to wait need wait no longer.

        Raises:
            PoolClosed: the pool was closed.
            PoolFull: `max_waiting` leases wait already.
        """
        if self.is_closed:
            raise PoolClosed("the connection pool is closed")
        lease = Lease(self, on_change)
        self.expire(now)
        while self._idle:
            connection, opened_at, _ = self._idle[-1]
            is_alive = self._is_alive(connection)  # should it raise, nothing has changed
            self._idle.pop()
            if is_alive:
                self._hand_out(lease, connection, opened_at)
                return lease
            self._stats.dead += 1
            self._let_go(connection)
        if self.size < self.max_size:
            self.size += 1
            lease.state = LeaseState.OPENING
        elif self.max_waiting is not None and len(self._waiting) >= self.max_waiting:
            raise PoolFull(f"{self.size} connections are in use and {len(self._waiting)} wait: max_waiting")
        else:
            self._stats.waited += 1
            self._waiting[lease] = None
        return lease

    def next_deadline(self) -> float | None:
        """When to call `expire` at the latest; `None` if nothing is idle or no limit set."""
        return min(map(self._deadline, self._idle), default=None) if self._has_limit() else None

    def expire(self, now: float) -> None:
        """Close what has been idle too long, or become too old."""
        if not self._has_limit():
            return
        kept: deque[tuple[T, float, float]] = deque()
        expired: list[T] = []
        for idle in self._idle:
            if self._deadline(idle) <= now:
                expired.append(idle[0])
            else:
                kept.append(idle)
        self._idle = kept
        self._stats.expired += len(expired)
        for connection in expired:
            self._let_go(connection)

    def close(self) -> None:
        """Close what is idle, and end the leases that wait. What is in use is closed when it
        comes back. Idempotent."""
        self.is_closed = True
        while self._idle:
            self._let_go(self._idle.popleft()[0])
        # All of them before the first is told, who may let go of others.
        waiting, self._waiting = self._waiting, OrderedDict()
        for lease in waiting:
            lease.state = LeaseState.OVER
        for lease in waiting:
            lease.on_change()

    def _has_limit(self) -> bool:
        return self.max_idle is not None or self.max_lifetime is not None

    def _deadline(self, idle: tuple[T, float, float]) -> float:
        _, opened_at, since = idle
        never = float("inf")
        return min(
            never if self.max_idle is None else since + self.max_idle,
            never if self.max_lifetime is None else opened_at + self.max_lifetime,
        )

    def _end(self, lease: Lease[T], now: float, *, is_wanted: bool) -> None:
        state, connection = lease.state, lease.connection
        is_kept = is_wanted and connection is not None and self._is_worth_keeping(connection, lease._opened_at, now)
        lease.state, lease.connection = LeaseState.OVER, None
        if state is LeaseState.WAITING:
            del self._waiting[lease]
        elif connection is None:  # it was to open one
            self.size -= 1
        elif is_kept:
            if self._waiting:
                self._hand_out(self._waiting.popitem(last=False)[0], connection, lease._opened_at).on_change()
            else:
                self._idle.append((connection, lease._opened_at, now))
        else:
            self._stats.discarded += not is_wanted
            self._let_go(connection)
        while self._waiting and self.size < self.max_size:
            self.size += 1
            waiter, _ = self._waiting.popitem(last=False)
            waiter.state = LeaseState.OPENING
            waiter.on_change()

    def _is_worth_keeping(self, connection: T, opened_at: float, now: float) -> bool:
        if self.is_closed:
            return False
        if self.max_lifetime is not None and opened_at + self.max_lifetime <= now:
            self._stats.expired += 1
            return False
        if not self._is_alive(connection):
            self._stats.dead += 1
            return False
        return True

    def _hand_out(self, lease: Lease[T], connection: T, opened_at: float) -> Lease[T]:
        self._stats.reused += 1
        lease._opened_at = opened_at
        lease.connection = connection
        lease.state = LeaseState.ACTIVE
        return lease

    def _let_go(self, connection: T) -> None:
        self.size -= 1
        self._close(connection)
