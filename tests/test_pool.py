"""The register of sessions by example, and what its operations cost, counted."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from packetcore import (
    CloseReason,
    IdentityTaken,
    LocalProtocolError,
    PoolFull,
    Refusal,
    SessionClosed,
    SessionPool,
)


def test_an_accepted_connection_is_inserted_found_refreshed_and_counted() -> None:
    pool: SessionPool[str] = SessionPool(60.0)
    id = pool.add("session", 0.0)
    assert (id, len(pool), id in pool) == (1, 1, True)
    assert pool.get(id) == "session"
    assert pool.refresh(id, 50.0)
    assert pool.refreshed(id) == 50.0
    assert pool.expire(109.75) == []
    assert pool.expire(110.0) == ["session"]
    assert (len(pool), id in pool, pool.get(id)) == (0, False, None)


def test_ids_count_up_and_a_stale_one_finds_nothing() -> None:
    pool: SessionPool[str] = SessionPool()
    first = pool.add("first", 0.0)
    assert pool.remove(first) == "first"
    second = pool.add("second", 0.0)
    assert (first, second) == (1, 2)
    assert pool.get(first) is None
    assert pool.remove(first) is None
    assert pool.refresh(first, 0.0) is False
    assert pool.refreshed(first) is None
    assert pool.identity(first) is None
    with pytest.raises(LocalProtocolError, match=r"^session 1 is not in the pool$"):
        pool.bind(first, "device")
    assert list(pool) == ["second"]


def test_expiry_gives_the_longest_silent_first_and_only_what_has_expired() -> None:
    pool: SessionPool[str] = SessionPool(60.0)
    for number, name in enumerate("abc"):
        pool.add(name, float(number))
    pool.refresh(1, 10.0)
    assert list(pool) == ["b", "c", "a"]
    assert (pool.oldest(), pool.next_deadline()) == ("b", 61.0)
    assert pool.expire(62.0) == ["b", "c"]
    assert (pool.oldest(), pool.next_deadline()) == ("a", 70.0)


def test_an_empty_pool_waits_for_nothing() -> None:
    pool: SessionPool[str] = SessionPool()
    assert (pool.oldest(), pool.next_deadline(), pool.expire(1e9), list(pool)) == (None, None, [], [])


def test_a_pool_without_timeout_expires_nobody() -> None:
    pool: SessionPool[str] = SessionPool(None)
    pool.add("session", 0.0)
    assert (pool.next_deadline(), pool.expire(1e9), len(pool)) == (None, [], 1)


def test_a_clock_that_steps_back_neither_expires_nor_favours_anybody() -> None:
    pool: SessionPool[str] = SessionPool(60.0)
    pool.add("before", 1000.0)
    pool.add("after", 10.0)
    pool.refresh(1, 20.0)
    assert pool.refreshed(1) == pool.refreshed(2) == 1000.0
    assert pool.expire(80.0) == []
    assert pool.expire(1060.0) == ["after", "before"]


def test_a_full_pool_names_its_cap_and_inserts_nothing() -> None:
    pool: SessionPool[str] = SessionPool(max_sessions=2)
    pool.add("a", 0.0)
    pool.add("b", 0.0)
    with pytest.raises(PoolFull, match=r"^2 sessions reach max_sessions=2$"):
        pool.add("c", 0.0)
    assert list(pool) == ["a", "b"]
    pool.remove(1)
    assert pool.add("c", 0.0) == 3


def test_a_host_has_a_cap_of_its_own_and_gets_room_back() -> None:
    pool: SessionPool[str] = SessionPool(60.0, max_per_host=2)
    assert pool.add("a", 0.0, host="10.0.0.1") == 1
    assert pool.add("b", 1.0, host="10.0.0.1") == 2
    with pytest.raises(PoolFull, match=r"^2 sessions of '10\.0\.0\.1' reach max_per_host=2$"):
        pool.add("c", 1.0, host="10.0.0.1")
    assert pool.add("d", 1.0, host="10.0.0.2") == 3
    for name in "efg":
        pool.add(name, 1.0)  # of no host: not counted
    assert pool.expire(60.0) == ["a"]
    pool.add("h", 60.0, host="10.0.0.1")
    pool.remove(2)
    pool.add("i", 60.0, host="10.0.0.1")


def test_each_session_of_a_host_that_goes_makes_room_for_one() -> None:
    pool: SessionPool[str] = SessionPool(max_per_host=3)
    for name in "abc":
        pool.add(name, 0.0, host="10.0.0.1")
    pool.remove(1)
    pool.add("d", 0.0, host="10.0.0.1")
    with pytest.raises(PoolFull, match="3 sessions"):
        pool.add("e", 0.0, host="10.0.0.1")
    assert pool.next_deadline() == 60.0, "the default"


def test_a_refused_session_does_not_count_for_its_host() -> None:
    pool: SessionPool[str] = SessionPool(max_sessions=1, max_per_host=1)
    pool.add("a", 0.0)
    for _ in range(2):
        with pytest.raises(PoolFull, match="max_sessions"):
            pool.add("b", 0.0, host="10.0.0.1")
    pool.remove(1)
    pool.add("b", 0.0, host="10.0.0.1")


def test_an_identity_finds_its_session_until_it_goes() -> None:
    pool: SessionPool[str] = SessionPool()
    id = pool.add("session", 0.0)
    assert pool.find("device") is None
    assert pool.bind(id, "device") is None
    assert pool.bind(id, "device", "reject") is None  # it holds it already
    assert (pool.find("device"), pool.identity(id)) == ("session", "device")
    assert pool.bind(id, "renamed") is None
    assert (pool.find("device"), pool.find("renamed")) == (None, "session")
    pool.remove(id)
    assert pool.find("renamed") is None


def test_the_newer_session_replaces_the_holder_of_an_identity() -> None:
    pool: SessionPool[str] = SessionPool()
    old, new = pool.add("old", 0.0), pool.add("new", 0.0)
    pool.bind(old, "device")
    pool.bind(new, "other")
    assert pool.bind(new, "device") == "old"
    assert (pool.find("device"), pool.find("other")) == ("new", None)
    assert pool.identity(old) is None
    assert pool.get(old) == "old"  # still in the pool, for the caller to close
    pool.remove(old)
    assert pool.find("device") == "new"


def test_the_holder_of_an_identity_may_keep_it() -> None:
    pool: SessionPool[str] = SessionPool()
    holder, other = pool.add("holder", 0.0), pool.add("other", 0.0)
    pool.bind(holder, "device")
    pool.bind(other, "own")
    with pytest.raises(IdentityTaken, match=r"^identity 'device' is held by session 1$") as caught:
        pool.bind(other, "device", "reject")
    assert (caught.value.identity, caught.value.holder) == ("device", holder)
    assert (pool.find("device"), pool.find("own"), pool.identity(other)) == ("holder", "other", "own")


def test_an_identity_is_not_none_and_a_policy_is_one_of_two() -> None:
    pool: SessionPool[str] = SessionPool()
    id = pool.add("session", 0.0)
    with pytest.raises(ValueError, match=r"^identity=None must not be None"):
        pool.bind(id, None)
    steal: Callable[..., object] = pool.bind
    with pytest.raises(ValueError, match=r"takeover='steal' \"replace\" or \"reject\"$"):
        steal(id, "device", "steal")
    assert pool.identity(id) is None


@pytest.mark.parametrize(("name", "value"), [("timeout", 0), ("max_sessions", 0), ("max_per_host", -1)])
def test_limits_that_are_too_small_are_named(name: str, value: int) -> None:
    make: type = SessionPool
    with pytest.raises(ValueError, match=rf"^{name}={value} must be above 0, or None for no limit$"):
        make(**{name: value})


def test_it_may_be_changed_while_it_is_walked_through() -> None:
    pool: SessionPool[str] = SessionPool()
    for name in "abc":
        pool.add(name, 0.0)
    seen = []
    for session in pool:
        seen.append(session)
        pool.refresh(1, 1.0)
        pool.remove(2)
        if len(seen) < 3:
            pool.add("d", 1.0)
    assert seen == ["a", "b", "c"]


# What it costs: calls made while an operation runs, those into C included.


class Untouchable:
    """A session that must not even be looked at."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"the pool reads {name}")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("the pool compares sessions")

    __hash__ = None  # type: ignore[assignment]


def calls(operation: Callable[..., object], *arguments: object) -> int:
    """How many calls an operation makes."""
    count = 0

    def tally(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    profiler = sys.getprofile()
    sys.setprofile(tally)
    try:
        operation(*arguments)
    finally:
        sys.setprofile(profiler)
    return count


def pool_of(size: int) -> SessionPool[Untouchable]:
    """A pool of this many sessions, added a second apart, before which as many had gone."""
    pool: SessionPool[Untouchable] = SessionPool(100_000.0, max_sessions=2 * size, max_per_host=2 * size)
    for number in range(-size, size):
        pool.add(Untouchable(), float(number), host="10.0.0.1")
    for id in range(1, size + 1):
        pool.remove(id)
    return pool


OPERATIONS: dict[str, Callable[[SessionPool[Untouchable], int], object]] = {
    "add": lambda pool, last: pool.add(Untouchable(), 60_000.0, host="10.0.0.1"),
    "get": lambda pool, last: pool.get(last),
    "refresh": lambda pool, last: pool.refresh(last, 60_000.0),
    "refresh the oldest": lambda pool, last: pool.refresh(last // 2 + 1, 60_000.0),
    "bind": lambda pool, last: pool.bind(last, "device"),
    "find": lambda pool, last: pool.find("device"),
    "remove": lambda pool, last: pool.remove(last),
    "oldest": lambda pool, last: pool.oldest(),
    "next deadline": lambda pool, last: pool.next_deadline(),
    "expire nobody": lambda pool, last: pool.expire(60_000.0),
    "len": lambda pool, last: len(pool),
}


def test_every_operation_costs_the_same_at_1_000_and_at_50_000_sessions() -> None:
    small, large = pool_of(1_000), pool_of(50_000)
    for name, operation in OPERATIONS.items():
        cost = calls(operation, small, 2_000)
        assert calls(operation, large, 100_000) == cost, name
        assert cost <= 10, name


def test_expiry_costs_what_has_expired() -> None:
    costs: dict[int, list[int]] = {}
    for size in (1_000, 50_000):
        pool, gone = pool_of(size), 0
        costs[size] = []
        for expired in (1, 10, 100):
            gone += expired
            costs[size].append(calls(pool.expire, 100_000.0 + gone - 1))
            assert len(pool) == size - gone
    assert costs[1_000] == costs[50_000]
    one, ten, hundred = costs[1_000]
    assert hundred - ten == 10 * (ten - one)


def test_every_refusal_has_words() -> None:
    assert SessionPool[str]().explain(Refusal.SHUTDOWN) == Refusal.SHUTDOWN.value


def test_an_identity_that_is_taken_is_told_on_through_pickle_and_repr() -> None:
    for error in (
        IdentityTaken("meter", 7),
        PoolFull("full", Refusal.MAX_SESSIONS),
        SessionClosed(CloseReason.IDLE_TIMEOUT),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (repr(copy), str(copy), vars(copy)) == (repr(error), str(error), vars(error))
    assert repr(IdentityTaken("meter", 7)) == "IdentityTaken('meter', 7)"


def test_an_identity_that_is_let_go_finds_nobody_and_is_free_for_another() -> None:
    pool: SessionPool[str] = SessionPool()
    one, two = pool.add("one", 100), pool.add("two", 100)
    pool.bind(one, "meter")
    assert pool.unbind(one) == "meter"
    assert (pool.find("meter"), pool.identity(one), pool.get(one)) == (None, None, "one")
    assert (pool.unbind(one), pool.unbind(99)) == (None, None)
    assert pool.bind(two, "meter", "reject") is None
    assert pool.find("meter") == "two"
