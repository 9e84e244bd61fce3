"""How things wait on a reactor: for a time, for an event, and with Deferreds for coroutines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, succeed

P = ParamSpec("P")
T = TypeVar("T")


def deferred(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Have an `async def` function give a Deferred."""

    @wraps(function)
    def begin(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return begin


def clock_of(reactor: Any) -> Callable[[], float]:
    """What tells the time that sessions are given. A reactor's own is the wall clock, which steps
    when the machine resumes or is set; a clock that a test has made up rules.

    A timer of the reactor that fires early by this one is set again. One that fires late, after the
    wall clock was set back, is made up for with the next thing that happens to its session.
    """
    is_wall_clock = isinstance(reactor, ReactorBase) and "seconds" not in vars(reactor)
    return monotonic if is_wall_clock and type(reactor).seconds is ReactorBase.seconds else reactor.seconds


class Timer:
    """Calls something at a time of that clock, never before."""

    def __init__(self, reactor: Any, when: float, callback: Callable[[], object]) -> None:
        self._reactor = reactor
        self._time = clock_of(reactor)
        self._when = when
        self._callback = callback
        self._begin()

    def active(self) -> bool:
        """Whether it will fire yet."""
        return bool(self._call.active())

    def cancel(self) -> None:
        """Have it not fire. Idempotent."""
        if self.active():
            self._call.cancel()

    def _begin(self) -> None:
        self._call = self._reactor.callLater(max(0, self._when - self._time()), self._look)

    def _look(self) -> None:
        if self._time() < self._when:
            self._begin()
        else:
            self._callback()


class Event:
    """Wakes who waits, once, on a turn of its own: the `packetcore.AsyncEvent`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._is_set = False
        self._waiting: list[Deferred[None]] = []

    def set(self) -> None:
        self._is_set = True
        if self._waiting:
            self._reactor.callLater(0, self._wake)

    def wait(self) -> Deferred[None]:
        if self._is_set:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def _wake(self) -> None:
        while self._waiting:
            self._waiting.pop(0).callback(None)
