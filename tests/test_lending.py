"""Pools of streams, awaited and blocking, on made-up streams, events and time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

import pytest

from packetcore import (
    AsyncConnectionPool,
    AsyncStream,
    Config,
    ConnectionPool,
    Endpoint,
    Inbox,
    Packet,
    PoolClosed,
    PoolFull,
    Session,
    SessionClosed,
    SyncConnectionPool,
    SyncStream,
    encode,
)
from tests.made_up_host import MadeUpHost, open_on
from tests.select_loop import Later

PING = Packet(1, b"ping")
T = TypeVar("T")


class Cancelled(BaseException):
    """What a runtime throws into a task that is cancelled."""


class Suspension:
    def __await__(self) -> Generator[None, None, None]:
        yield


class Event:
    """What a coroutine of a runtime waits for in which nothing happens by itself."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True

    async def wait(self) -> None:
        while not self.is_set:
            await Suspension()


class Condition:
    """What a thread of such a runtime waits for.

    Args:
        meanwhile: what others do while one blocks in `wait_for`.
    """

    is_served = True

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._meanwhile = meanwhile
        self._is_notified = False

    def notify_all(self) -> None:
        self._is_notified = True

    def wait_for(self, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
        if (result := attempt()) is not None:
            return result
        self._meanwhile()
        assert self._is_notified or timeout is not None, "waits for ever"
        return attempt()


class Task:
    """A coroutine that goes on when it is told to."""

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._coroutine = coroutine
        self.is_done = False
        self.step()

    def step(self) -> None:
        self._go(lambda: self._coroutine.send(None))

    def cancel(self) -> None:
        with suppress(Cancelled):
            self._go(lambda: self._coroutine.throw(Cancelled()))

    def _go(self, resume: Callable[[], object]) -> None:
        assert not self.is_done
        self.is_done = True
        with suppress(StopIteration):
            resume()
            self.is_done = False


class Network:
    """Opens streams and knows the host below each."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config
        self.meanwhile: Callable[[], object] = lambda: None
        self.now = 100.0
        self.timers: list[Later] = []
        self.hosts: list[MadeUpHost] = []
        self.is_up = True

    def open(self) -> Inbox:
        if not self.is_up:
            raise OSError("refused")
        inboxes: list[Inbox] = []
        session, host = open_on(Endpoint(lambda: Inbox(inboxes.append), self.config), ("192.0.2.1", 5000), self.now)
        self.hosts.append(host)
        assert inboxes[0].session is session
        return inboxes[0]

    def clock(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Later:
        self.timers.append(Later(when, callback))
        return self.timers[-1]

    @property
    def timer(self) -> float | None:
        """When the one timer goes off that may be set."""
        times = [timer.at for timer in self.timers if not timer.is_over]
        assert len(times) <= 1
        return times[0] if times else None

    def pass_time(self) -> None:
        """Go on to when that timer goes off."""
        (timer,) = (timer for timer in self.timers if not timer.is_over)
        self.now, timer.is_over = timer.at, True
        timer.callback()

    @property
    def sessions(self) -> list[Session]:
        return [host.session for host in self.hosts]

    def open_count(self) -> int:
        return sum(session.is_open for session in self.sessions)


class AwaitedPool(AsyncConnectionPool[AsyncStream]):
    def __init__(self, network: Network, **limits: Any) -> None:
        self.network = network
        self.is_slow = False
        super().__init__(self.connect, Event, network.clock, network.call_at, **limits)

    async def connect(self) -> AsyncStream:
        while self.is_slow:
            await Suspension()
        return AsyncStream(self.network.open(), self.network.clock, Event)

    @asynccontextmanager
    async def hold(self, order: list[str], name: str) -> AsyncIterator[AsyncStream]:
        async with self.acquire() as stream:
            order.append(name)
            yield stream

    async def use(self, order: list[str], name: str) -> None:
        """Hold one until stepped on."""
        async with self.hold(order, name):
            await Suspension()


class BlockingPool(SyncConnectionPool[SyncStream]):
    def __init__(self, network: Network, lock: AbstractContextManager[None] | None = None, **limits: Any) -> None:
        self.network = network
        self.meanwhile: Callable[[], object] = lambda: None
        super().__init__(
            self.connect, lambda: Condition(self.meanwhile), network.clock, network.call_at, lock, **limits
        )

    def connect(self) -> SyncStream:
        return SyncStream(self.network.open(), self.network.clock, Condition)


def run(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run one that need not wait."""
    assert Task(coroutine).is_done


# Awaited.


def test_a_stream_is_used_again_and_closed_when_its_block_raises() -> None:
    network = Network()
    pool = AwaitedPool(network)

    async def main() -> None:
        async with pool.acquire() as first:
            pass
        async with pool.acquire() as again:
            assert again is first
        with pytest.raises(RuntimeError):
            async with pool.acquire():
                raise RuntimeError("in the middle of a conversation")
        assert (pool.size, pool.idle, pool.stats.discarded) == (0, 0, 1)
        async with pool.acquire() as second:
            assert second is not first

    run(main())
    assert (pool.stats.opened, pool.stats.reused) == (2, 2)
    assert [session.is_open for session in network.sessions] == [False, True]


def test_who_waits_is_served_in_the_order_of_asking_and_a_cancelled_wait_gives_its_place_up() -> None:
    network = Network()
    pool, order = AwaitedPool(network, max_size=1), list[str]()
    a, b, c, d = (Task(pool.use(order, name)) for name in "abcd")
    assert (order, pool.waiting) == (["a"], 3)
    b.cancel()
    assert pool.waiting == 2
    a.step()
    d.step()  # it runs first, and has to wait all the same
    assert order == ["a"]
    c.step()
    c.step()
    d.step()
    d.step()
    assert order == ["a", "c", "d"]
    assert (pool.size, pool.idle, pool.waiting) == (1, 1, 0)


def test_one_cancelled_when_it_was_served_and_had_not_run_hands_on_what_it_got() -> None:
    network = Network()
    pool, order = AwaitedPool(network, max_size=1), list[str]()
    a, b, c = (Task(pool.use(order, name)) for name in "abc")
    a.step()  # b has it now
    b.cancel()
    c.step()
    assert order == ["a", "c"]
    assert pool.stats.opened == 1, "b did nothing to it"
    c.cancel()  # in its block: the conversation is unfinished
    assert (pool.size, network.open_count()) == (0, 0)

    d = Task(pool.use(order, "d"))
    e = Task(pool.use(order, "e"))
    f = Task(pool.use(order, "f"))
    d.cancel()  # e may open one
    e.cancel()
    f.step()
    assert order == ["a", "c", "d", "f"]
    assert (pool.size, pool.waiting) == (1, 0)


@pytest.mark.parametrize("how", ["cancelled", "refused"])
def test_a_connection_that_is_not_made_frees_its_place_for_the_next(how: str) -> None:
    network = Network()
    pool, order = AwaitedPool(network, max_size=1), list[str]()
    pool.is_slow = True
    a, b = (Task(pool.use(order, name)) for name in "ab")
    assert (pool.size, pool.waiting) == (1, 1)
    if how == "cancelled":
        a.cancel()
    else:
        pool.is_slow = network.is_up = False
        with pytest.raises(OSError, match="refused"):
            a.step()
        network.is_up = True
    assert (pool.size, pool.waiting) == (1, 0), "the place is the next one's"
    pool.is_slow = False
    b.step()
    assert order == ["b"]


def test_closing_ends_the_waits_and_takes_nothing_from_its_user() -> None:
    network = Network()
    pool = AwaitedPool(network, max_size=1)
    ends: list[str] = []

    async def wait() -> None:
        with pytest.raises(PoolClosed):
            async with pool.acquire():
                pass
        ends.append("told")

    async def use() -> None:
        async with pool, pool.acquire() as stream:
            await Suspension()
            assert stream.session.is_open

    user, waiter = Task(use()), Task(wait())
    run(pool.close())
    waiter.step()
    assert ends == ["told"]
    assert network.open_count() == 1
    user.step()
    assert (pool.size, network.open_count()) == (0, 0)
    run(wait())
    assert len(ends) == 2


# What is not handed out again.


def lose(host: MadeUpHost, now: float) -> None:
    host.session.lost(ConnectionResetError(), now)


def finish(host: MadeUpHost, now: float) -> None:
    host.session.eof(now)


def speak(host: MadeUpHost, now: float) -> None:
    host.session.received(encode(PING), now)


def owe_a_reply(host: MadeUpHost, now: float) -> None:
    host.session.forget(host.session.request(PING, lambda reply: None, timeout=1))


@pytest.mark.parametrize("spoil", [lose, finish, speak, owe_a_reply])
@pytest.mark.parametrize("when", ["held", "idle"])
def test_one_that_broke_or_may_speak_to_the_wrong_holder_is_not_handed_out(
    spoil: Callable[[MadeUpHost, float], None], when: str
) -> None:
    network = Network()
    pool = AwaitedPool(network)

    async def main() -> None:
        async with pool.acquire() as first:
            if when == "held":
                spoil(network.hosts[0], network.now)
        if when == "idle":
            spoil(network.hosts[0], network.now)
        async with pool.acquire() as second:
            assert second is not first
            assert second.session.is_open

    run(main())
    assert (pool.size, pool.idle, pool.stats.dead) == (1, 1, 1)
    assert not network.sessions[0].is_open


def test_a_reply_that_came_spoils_nothing() -> None:
    network = Network()
    pool = AwaitedPool(network)

    async def main() -> None:
        async with pool.acquire() as first:
            ends: list[object] = []
            first.session.request(PING, ends.append, timeout=1)
            speak(network.hosts[0], network.now)
            assert ends == [PING]
        async with pool.acquire() as again:
            assert again is first

    run(main())


def test_idle_ones_are_closed_in_time_and_one_used_for_too_long_when_it_comes_back() -> None:
    network = Network()
    pool = AwaitedPool(network, max_idle=10, max_lifetime=25)

    async def main() -> None:
        async with AsyncExitStack() as held:
            for _ in range(3):
                await held.enter_async_context(pool.acquire())
        network.now = 105
        async with pool.acquire():
            pass

    run(main())
    assert network.timer == 110
    network.pass_time()
    assert (pool.size, pool.stats.expired, network.open_count()) == (1, 2, 1)
    assert network.timer == 115
    network.now = 114.0

    async def use_for_long() -> None:
        async with pool.acquire():
            network.now = 125.0

    run(use_for_long())
    assert (pool.size, pool.stats.expired) == (0, 3), "older than max_lifetime when it came back"


def test_the_timer_is_moved_forward_for_one_that_is_due_before_those_idle() -> None:
    network = Network()
    pool, order = AwaitedPool(network, max_idle=20, max_lifetime=25), list[str]()
    old = Task(pool.use(order, "old"))
    network.now = 110.0
    Task(pool.use(order, "young")).step()
    assert network.timer == 130
    network.now = 111.0
    old.step()
    assert network.timer == 125
    network.pass_time()
    assert (pool.idle, network.timer) == (1, 130)
    run(pool.close())
    assert network.timer is None, "a pool that was closed has nothing to look after"


# Blocking.


def test_a_block_that_waits_gets_what_another_lets_go_and_one_that_waits_too_long_is_told() -> None:
    network = Network()
    pool = BlockingPool(network, max_size=1, max_waiting=1)
    with ExitStack() as held:
        first = held.enter_context(pool.acquire())
        with pytest.raises(TimeoutError, match="timeout=3 s"), pool.acquire(timeout=3):
            raise AssertionError
        assert pool.waiting == 0

        def while_another_waits() -> None:
            with pytest.raises(PoolFull), pool.acquire():
                raise AssertionError
            held.close()

        pool.meanwhile = while_another_waits
        with pool.acquire(timeout=3) as second:
            assert second is first
    assert (pool.size, pool.idle, pool.waiting, pool.stats.waited) == (1, 1, 0, 2)


def test_one_served_in_the_very_moment_that_it_gives_up_waiting_takes_it() -> None:
    class LateCondition(Condition):
        def wait_for(self, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
            result = attempt()
            self._meanwhile()
            return result

    network = Network()
    pool = BlockingPool(network, max_size=1)
    with ExitStack() as held:
        first = held.enter_context(pool.acquire())
        pool._new_condition = lambda: LateCondition(held.close)
        with pool.acquire(timeout=3) as second:
            assert second is first


def test_blocking_or_not_an_error_in_the_block_closes_the_stream_and_connect_s_goes_on() -> None:
    network = Network()
    with BlockingPool(network, max_size=1) as pool:
        with pytest.raises(SessionClosed), pool.acquire():
            raise SessionClosed
        assert (pool.size, pool.stats.discarded) == (0, 1)
        network.is_up = False
        with pytest.raises(OSError, match="refused"), pool.acquire():
            raise AssertionError
        assert pool.size == 0
        network.is_up = True
        with pool.acquire():
            pass
        assert pool.idle == 1
    assert network.open_count() == 0
    with pytest.raises(PoolClosed), pool.acquire():
        raise AssertionError


class NotingLock:
    """A lock that may not be taken twice."""

    def __init__(self) -> None:
        self.is_held = False

    def __enter__(self) -> None:
        assert not self.is_held
        self.is_held = True

    def __exit__(self, *exception: object) -> None:
        self.is_held = False


def test_where_threads_share_a_pool_its_books_change_under_the_lock_and_nobody_waits_under_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, network = NotingLock(), Network()
    changes: list[str] = []

    def checked(name: str) -> Callable[..., object]:
        original = getattr(ConnectionPool, name)

        def change(*args: Any, **options: Any) -> object:
            assert lock.is_held, name
            changes.append(name)
            return original(*args, **options)

        return change

    for name in ("acquire", "expire", "close", "_end", "_let_go", "_hand_out"):
        monkeypatch.setattr(ConnectionPool, name, checked(name))

    class Pool(BlockingPool):
        def connect(self) -> SyncStream:
            assert not lock.is_held
            return super().connect()

    pool = Pool(network, lock, max_size=1)
    with ExitStack() as held:
        held.enter_context(pool.acquire())

        def meanwhile() -> None:
            assert not lock.is_held
            held.close()

        pool.meanwhile = meanwhile
        with pool.acquire(timeout=1):
            assert not lock.is_held
    with pytest.raises(RuntimeError), pool.acquire():
        raise RuntimeError
    with pool.acquire():
        pass
    network.pass_time()
    pool.close()
    assert {"acquire", "expire", "close", "_end", "_let_go", "_hand_out"} <= {*changes}


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_size=0"):
        BlockingPool(Network(), max_size=0)
    with pytest.raises(ValueError, match="max_idle=0"):
        AwaitedPool(Network(), max_idle=0)
