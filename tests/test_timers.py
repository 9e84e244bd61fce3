"""`packetcore_sockets.Timers`: one timer of a loop stands for those of all its sockets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packetcore_sockets import Timers


class Call:
    """What the clock is to call back."""

    def __init__(self, clock: MadeUpClock, when: float, callback: Callable[[], object]) -> None:
        self.clock, self.when, self.callback = clock, when, callback
        clock.calls.append(self)

    def cancel(self) -> None:
        self.clock.calls.remove(self)


class MadeUpClock:
    """A loop in which time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Call] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Call:
        return Call(self, when, callback)

    def turn(self, now: float) -> None:
        """One turn of the loop at a time: what is due at its beginning."""
        self.now = now
        for call in [call for call in self.calls if call.when <= now]:
            self.calls.remove(call)
            call.callback()


class Socket:
    """Has a timer, and writes down when it fired."""

    def __init__(self, timers: Timers, clock: MadeUpClock, then: Callable[[], object] = lambda: None) -> None:
        self.fired: list[float] = []
        self._clock, self._then = clock, then
        self._timers = timers

    def set(self, at: float | None) -> None:
        self._timers.set(self, at)

    def tick(self) -> None:
        self.fired.append(self._clock.now)
        self._then()


@pytest.fixture
def clock() -> MadeUpClock:
    return MadeUpClock()


@pytest.fixture
def timers(clock: MadeUpClock) -> Timers:
    return Timers(clock)


def test_each_fires_once_at_its_time_and_the_loop_has_one_timer(timers: Timers, clock: MadeUpClock) -> None:
    early, late = Socket(timers, clock), Socket(timers, clock)
    late.set(20.0)
    early.set(10.0)
    assert [call.when for call in clock.calls] == [10.0]
    for now in (9.0, 10.5, 11.0, 20.0, 30.0):
        clock.turn(now)
    assert (early.fired, late.fired, clock.calls) == ([10.5], [20.0], [])


def test_a_time_set_anew_stands_in_place_of_the_one_before(timers: Timers, clock: MadeUpClock) -> None:
    socket = Socket(timers, clock)
    socket.set(10.0)
    socket.set(30.0)
    clock.turn(10.0)
    assert not socket.fired
    socket.set(20.0)
    clock.turn(20.0)
    clock.turn(30.0)
    assert socket.fired == [20.0]


def test_the_loop_has_no_timer_once_the_last_is_called_off(timers: Timers, clock: MadeUpClock) -> None:
    one, other = Socket(timers, clock), Socket(timers, clock)
    one.set(10.0)
    other.set(20.0)
    one.set(None)
    other.set(None)
    other.set(None)
    assert not clock.calls
    one.set(5.0)
    assert [call.when for call in clock.calls] == [5.0]


def test_one_that_fires_may_call_off_another_that_is_due(timers: Timers, clock: MadeUpClock) -> None:
    other = Socket(timers, clock)
    one = Socket(timers, clock, lambda: other.set(None))
    one.set(1.0)
    other.set(2.0)
    clock.turn(3.0)
    assert (one.fired, other.fired, clock.calls) == ([3.0], [], [])


def test_one_that_is_always_due_has_its_turn_and_leaves_others_theirs(timers: Timers, clock: MadeUpClock) -> None:
    busy = Socket(timers, clock, lambda: busy.set(0.0))
    other = Socket(timers, clock)
    busy.set(0.0)
    other.set(0.0)
    clock.turn(1.0)
    clock.turn(2.0)
    assert 2.0 in busy.fired
    assert len(busy.fired) <= 4
    assert other.fired


def test_the_others_fire_though_one_raises(timers: Timers, clock: MadeUpClock) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    one, other = Socket(timers, clock, fail), Socket(timers, clock)
    one.set(1.0)
    other.set(1.0)
    with pytest.raises(KeyboardInterrupt):
        clock.turn(1.0)
    clock.turn(1.0)
    assert (one.fired, other.fired) == ([1.0], [1.0])
