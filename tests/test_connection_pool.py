"""`ConnectionPool` against a model, and what its users may count on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from packetcore import ConnectionPool, Lease, LeaseState, LocalProtocolError, PoolClosed, PoolFull

WAITING, OPENING, ACTIVE, OVER = LeaseState.WAITING, LeaseState.OPENING, LeaseState.ACTIVE, LeaseState.OVER


class Connection:
    """Counts how often the pool closes it."""

    def __init__(self, opened_at: float) -> None:
        self.opened_at = opened_at
        self.is_alive = True
        self.closed = 0


@dataclass(eq=False)
class Holder:
    """A lease as the model knows it."""

    state: LeaseState
    connection: Connection | None = None
    changes: int = 0
    """How often the pool called `on_change`."""
    expected: int = 0
    """How often it should have."""


@dataclass(eq=False)
class Idle:
    connection: Connection
    since: float


limits = st.none() | st.sampled_from([5.0, 20.0])
steps = st.integers(0, 24).map(lambda n: n / 4)
any_lease = st.integers(0, 30)


class PoolMachine(RuleBasedStateMachine):
    """Any order of anything: who asks first is served first, and no place is ever lost."""

    @initialize(
        max_size=st.integers(1, 4), max_idle=limits, max_lifetime=limits, max_waiting=st.none() | st.integers(0, 3)
    )
    def make(self, max_size: int, max_idle: float | None, max_lifetime: float | None, max_waiting: int | None) -> None:
        self.now = 100.0
        self.max_size, self.max_idle, self.max_lifetime, self.max_waiting = (
            max_size,
            max_idle,
            max_lifetime,
            max_waiting,
        )
        self.pool: ConnectionPool[Connection] = ConnectionPool(
            self.close_connection,
            max_size=max_size,
            max_idle=max_idle,
            max_lifetime=max_lifetime,
            max_waiting=max_waiting,
            is_alive=lambda connection: connection.is_alive,
        )
        self.leases: list[tuple[Lease[Connection], Holder]] = []
        self.waiting: list[Holder] = []
        self.idle: list[Idle] = []
        self.all: list[Connection] = []
        self.gone: set[Connection] = set()
        self.counts = dict.fromkeys(("opened", "reused", "waited", "dead", "expired", "discarded"), 0)
        self.is_closed = False

    def close_connection(self, connection: Connection) -> None:
        connection.closed += 1

    def size(self) -> int:
        return len(self.idle) + sum(holder.state in (OPENING, ACTIVE) for _, holder in self.leases)

    def deadline(self, idle: Idle) -> float:
        ends = [float("inf")]
        if self.max_idle is not None:
            ends.append(idle.since + self.max_idle)
        if self.max_lifetime is not None:
            ends.append(idle.connection.opened_at + self.max_lifetime)
        return min(ends)

    def drop_expired(self) -> None:
        for idle in [idle for idle in self.idle if self.deadline(idle) <= self.now]:
            self.idle.remove(idle)
            self.gone.add(idle.connection)
            self.counts["expired"] += 1

    def serve(self, holder: Holder, connection: Connection | None) -> None:
        holder.state, holder.connection = (OPENING, None) if connection is None else (ACTIVE, connection)
        self.counts["reused"] += connection is not None

    def end(self, holder: Holder, *, is_wanted: bool) -> None:
        state, connection = holder.state, holder.connection
        holder.state, holder.connection = OVER, None
        if state is WAITING:
            self.waiting.remove(holder)
        elif connection is not None:
            if not is_wanted:
                self.counts["discarded"] += 1
                self.gone.add(connection)
            elif self.is_closed:
                self.gone.add(connection)
            elif self.max_lifetime is not None and connection.opened_at + self.max_lifetime <= self.now:
                self.counts["expired"] += 1
                self.gone.add(connection)
            elif not connection.is_alive:
                self.counts["dead"] += 1
                self.gone.add(connection)
            elif self.waiting:
                self.tell(self.waiting.pop(0), connection)
            else:
                self.idle.append(Idle(connection, self.now))
        while self.waiting and self.size() < self.max_size:
            self.tell(self.waiting.pop(0), None)

    def tell(self, holder: Holder, connection: Connection | None) -> None:
        self.serve(holder, connection)
        holder.expected += 1

    def pick(self, n: int, *states: LeaseState) -> tuple[Lease[Connection], Holder] | None:
        having = [pair for pair in self.leases if pair[1].state in states]
        return having[n % len(having)] if having else None

    @rule(step=steps)
    def acquire(self, step: float) -> None:
        self.now += step
        holder = Holder(WAITING)

        def changed() -> None:
            holder.changes += 1

        if self.is_closed:
            with pytest.raises(PoolClosed):
                self.pool.acquire(self.now, changed)
            return
        self.drop_expired()
        while self.idle and not self.idle[-1].connection.is_alive:
            self.gone.add(self.idle.pop().connection)
            self.counts["dead"] += 1
        if self.idle:
            self.serve(holder, self.idle.pop().connection)
        elif self.size() < self.max_size:
            self.serve(holder, None)
        elif self.max_waiting is not None and len(self.waiting) >= self.max_waiting:
            with pytest.raises(PoolFull):
                self.pool.acquire(self.now, changed)
            return
        else:
            self.waiting.append(holder)
            self.counts["waited"] += 1
        self.leases.append((self.pool.acquire(self.now, changed), holder))

    @rule(step=steps, n=any_lease)
    def opened(self, step: float, n: int) -> None:
        self.now += step
        if (found := self.pick(n, OPENING)) is not None:
            lease, holder = found
            connection = Connection(self.now)
            self.all.append(connection)
            self.counts["opened"] += 1
            holder.state, holder.connection = ACTIVE, connection
            lease.opened(connection, self.now)

    @rule(step=steps, n=any_lease)
    def release(self, step: float, n: int) -> None:
        self.now += step
        if (found := self.pick(n, ACTIVE)) is not None:
            lease, holder = found
            self.end(holder, is_wanted=True)
            lease.release(self.now)

    @rule(step=steps, n=any_lease, is_wanted=st.booleans())
    def discard_or_give_back(self, step: float, n: int, is_wanted: bool) -> None:
        self.now += step
        if (found := self.pick(n, WAITING, OPENING, ACTIVE)) is not None:
            lease, holder = found
            self.end(holder, is_wanted=is_wanted)
            (lease.give_back if is_wanted else lease.discard)(self.now)

    @rule(n=any_lease)
    def misuse(self, n: int) -> None:
        if (found := self.pick(n, WAITING, OPENING, OVER)) is not None:
            lease, holder = found
            with pytest.raises(LocalProtocolError, match=f"is {holder.state.name}, not ACTIVE"):
                lease.release(self.now)
        if (found := self.pick(n, WAITING, ACTIVE, OVER)) is not None:
            with pytest.raises(LocalProtocolError, match="not OPENING"):
                found[0].opened(Connection(self.now), self.now)
        if (found := self.pick(n, OVER)) is not None:
            found[0].discard(self.now)
            found[0].give_back(self.now)

    @rule(n=any_lease)
    def die(self, n: int) -> None:
        living = [connection for connection in self.all if connection not in self.gone]
        if living:
            living[n % len(living)].is_alive = False

    @rule(step=steps)
    def expire(self, step: float) -> None:
        self.now += step
        self.drop_expired()
        self.pool.expire(self.now)
        deadline = self.pool.next_deadline()
        assert deadline is None or deadline > self.now

    @rule(early=st.sampled_from([0.25, 0.0]))
    def expire_just_then(self, early: float) -> None:
        deadline = self.pool.next_deadline()
        if deadline is not None:
            self.expire(max(0, deadline - early - self.now))

    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really == 0:
            self.is_closed = True
            self.gone.update(idle.connection for idle in self.idle)
            self.idle.clear()
            for holder in self.waiting:
                holder.state = OVER
                holder.expected += 1
            self.waiting.clear()
            self.pool.close()

    @invariant()
    def the_sizes_are_the_model_s(self) -> None:
        pool = self.pool
        assert (pool.size, pool.idle, pool.waiting) == (self.size(), len(self.idle), len(self.waiting))
        assert pool.size <= self.max_size
        assert not (self.waiting and pool.size < self.max_size), "there is room and someone waits"

    @invariant()
    def each_lease_stands_where_the_model_s_does_and_was_told_once(self) -> None:
        for lease, holder in self.leases:
            assert (lease.state, lease.connection) == (holder.state, holder.connection)
            assert holder.changes == holder.expected <= 1

    @invariant()
    def each_connection_is_closed_once_and_never_in_use(self) -> None:
        for connection in self.all:
            assert connection.closed == (connection in self.gone)
        held = [holder.connection for _, holder in self.leases if holder.connection is not None]
        assert len(held) == len(set(held)), "two hold one connection"

    @invariant()
    def it_counts_what_happened(self) -> None:
        for name, count in self.counts.items():
            assert getattr(self.pool.stats, name) == count, name

    @invariant()
    def the_next_deadline_is_the_first(self) -> None:
        first = min(map(self.deadline, self.idle), default=float("inf"))
        assert self.pool.next_deadline() == (None if not self.idle or first == float("inf") else first)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for lease, holder in self.leases:
            if holder.state is not OVER:
                lease.discard(self.now)
        self.pool.close()
        assert (self.pool.size, self.pool.waiting) == (0, 0), "whatever happened, nothing is left"
        assert all(connection.closed == 1 for connection in self.all)


TestConnectionPool = PoolMachine.TestCase
# A run is many examples in one; to explain a failure would take minutes.
TestConnectionPool.settings = settings(max_examples=settings().max_examples // 4, phases=set(Phase) - {Phase.explain})


def nothing() -> None:
    pass


def pool_of(max_size: int, closed: list[str], **options: float) -> ConnectionPool[str]:
    return ConnectionPool(closed.append, max_size=max_size, max_idle=None, **options)  # type: ignore[arg-type]


def test_who_is_told_may_use_the_pool_at_once_and_the_order_of_asking_holds() -> None:
    closed: list[str] = []
    pool = pool_of(1, closed)
    first = pool.acquire(0, nothing)
    first.opened("a", 0)
    order: list[int] = []
    waiting: list[Lease[str]] = []

    def served(n: int) -> Callable[[], None]:
        def change() -> None:
            order.append(n)
            if n < 5:
                waiting.append(pool.acquire(0, served(n + 3)))
            waiting[n].release(0)

        return change

    for n in range(3):
        waiting.append(pool.acquire(0, served(n)))
    first.release(0)
    assert order == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (pool.size, pool.idle, pool.waiting, closed) == (1, 1, 0, [])


def test_a_place_that_many_fail_to_use_goes_down_the_queue() -> None:
    pool = pool_of(2, [])
    leases = [pool.acquire(0, nothing) for _ in range(10)]
    for n, lease in enumerate(leases):
        assert lease.state is OPENING, n
        lease.discard(0)
    assert (pool.size, pool.waiting) == (0, 0)


def test_nobody_is_told_to_open_in_a_pool_that_is_closing() -> None:
    closed: list[str] = []
    pool = pool_of(1, closed)
    held = pool.acquire(0, nothing)
    held.opened("a", 0)
    told: list[LeaseState] = []

    def let_go() -> None:
        told.append(one.state)
        held.release(0)  # which makes room

    one = pool.acquire(0, let_go)
    other = pool.acquire(0, lambda: told.append(other.state))
    pool.close()
    assert told == [OVER, OVER]
    assert (pool.size, closed) == (0, ["a"])


def test_a_check_that_raises_loses_no_place() -> None:
    def is_alive(connection: str) -> bool:
        raise RuntimeError("a bug of the application")

    pool: ConnectionPool[str] = ConnectionPool(nothing_to, max_size=1, is_alive=is_alive)
    lease = pool.acquire(0, nothing)
    lease.opened("a", 0)
    with pytest.raises(RuntimeError):
        lease.release(0)
    assert lease.state is ACTIVE
    pool._idle.append(("a", 0, 0))  # as if it had begun to raise later
    with pytest.raises(RuntimeError):
        pool.acquire(0, nothing)
    assert pool.idle == 1
    lease.discard(0)
    assert pool.size == 0


def nothing_to(connection: str) -> None:
    pass


def test_the_connection_used_last_is_handed_out_first_so_that_the_others_grow_idle() -> None:
    closed: list[str] = []
    pool: ConnectionPool[str] = ConnectionPool(closed.append, max_idle=10)
    leases = [pool.acquire(0, nothing) for _ in range(3)]
    for lease, name in zip(leases, "abc", strict=True):
        lease.opened(name, 0)
    for lease in leases:
        lease.release(1)
    for now in range(2, 11):
        again = pool.acquire(now, nothing)
        assert again.connection == "c"
        again.release(now)
    assert pool.next_deadline() == 11
    pool.expire(11)
    assert closed == ["a", "b"]


def test_one_too_old_is_not_handed_out_though_nobody_called_expire() -> None:
    closed: list[str] = []
    pool: ConnectionPool[str] = ConnectionPool(closed.append, max_idle=10)
    lease = pool.acquire(0, nothing)
    lease.opened("a", 0)
    lease.release(1)
    assert pool.acquire(11, nothing).state is OPENING
    assert (closed, pool.stats.expired) == (["a"], 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_size", 0),
        ("max_idle", 0),
        ("max_lifetime", -1),
        ("max_waiting", -1),
        ("max_idle", float("nan")),
        ("max_lifetime", float("nan")),
    ],
)
def test_a_limit_that_is_too_small_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ConnectionPool(nothing_to, **{name: value})  # type: ignore[arg-type]


def test_what_it_is_without_arguments() -> None:
    pool: ConnectionPool[str] = ConnectionPool(nothing_to)
    leases = [pool.acquire(0, nothing) for _ in range(12)]
    assert [lease.state for lease in leases] == [OPENING] * 10 + [WAITING] * 2
    assert (pool.stats.size, pool.stats.idle, pool.stats.waiting) == (10, 0, 2)
    leases[0].opened("a", 0)
    for lease in leases[1:]:
        lease.discard(0)
    leases[0].release(0)
    assert pool.next_deadline() == 60


def test_nobody_need_be_allowed_to_wait() -> None:
    pool: ConnectionPool[str] = ConnectionPool(nothing_to, max_size=1, max_waiting=0)
    pool.acquire(0, nothing)
    with pytest.raises(PoolFull, match="1 connections are in use and 0 wait"):
        pool.acquire(0, nothing)
    pool.close()
    with pytest.raises(PoolClosed, match="closed"):
        pool.acquire(0, nothing)


def test_one_that_is_given_back_unused_grows_old_and_idle_like_any_other() -> None:
    closed: list[str] = []
    pool: ConnectionPool[str] = ConnectionPool(closed.append, max_idle=10, max_lifetime=50)
    lease = pool.acquire(0, nothing)
    lease.opened("a", 0)
    lease.give_back(5)
    assert pool.next_deadline() == 15
    pool.acquire(12, nothing).give_back(12)
    assert pool.next_deadline() == 22


def test_who_waits_takes_the_age_of_the_connection_along() -> None:
    pool: ConnectionPool[str] = ConnectionPool(nothing_to, max_size=1, max_idle=None, max_lifetime=50)
    first, second = pool.acquire(0, nothing), pool.acquire(0, nothing)
    first.opened("a", 0)
    first.release(10)
    second.release(20)
    assert pool.next_deadline() == 50


def test_without_a_limit_there_is_no_deadline_and_each_dead_one_is_counted() -> None:
    alive: set[str] = {"a", "b"}
    pool: ConnectionPool[str] = ConnectionPool(nothing_to, max_idle=None, is_alive=alive.__contains__)
    leases = [pool.acquire(0, nothing) for _ in "ab"]
    for lease, name in zip(leases, "ab", strict=True):
        lease.opened(name, 0)
    leases[0].release(0)
    assert pool.next_deadline() is None
    pool.acquire(0, nothing).give_back(0)
    alive.clear()
    leases[1].release(0)
    assert pool.acquire(0, nothing).state is OPENING
    assert pool.stats.dead == 2


def test_each_that_is_dead_when_it_comes_back_is_counted() -> None:
    pool: ConnectionPool[str] = ConnectionPool(nothing_to, is_alive=lambda connection: False)
    for name in "ab":
        lease = pool.acquire(0, nothing)
        lease.opened(name, 0)
        lease.release(0)
    assert (pool.stats.dead, pool.size) == (2, 0)
