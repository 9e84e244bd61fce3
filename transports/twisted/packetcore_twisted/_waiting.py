"""How things wait on a reactor: for a time, for an event, and with Deferreds for coroutines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, succeed

from packetcore_sockets import Timers

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


class _Clock:
    """A reactor, as far as `Timers` need it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.time = clock_of(reactor)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """See `packetcore_sockets.Loop`."""
        return Timer(self._reactor, when, callback)


def timers_of(reactor: Any) -> Timers:
    """Those of all transports of a reactor."""
    timers: Timers | None = vars(reactor).get("packetcore timers")
    if timers is None:
        timers = vars(reactor)["packetcore timers"] = Timers(_Clock(reactor))
    return timers


class Soon:
    """Calls things on the reactor's next turn, with one timer of the reactor for all.

    What these ask for in turn, as to have written what they sent, is called in the same turn, and what
    that asks for in the next.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: deque[Callable[[], object]] = deque()
        self._is_due = False  # or runs

    def call(self, callback: Callable[[], object]) -> None:
        """Call it soon, and not before this returns."""
        self._calls.append(callback)
        if not self._is_due:
            self._is_due = True
            self._reactor.callLater(0, self._run)

    def _run(self) -> None:
        try:
            for _ in range(2):
                for _ in range(len(self._calls)):
                    self._calls.popleft()()
        finally:
            self._is_due = bool(self._calls)  # also where one of them raised
            if self._is_due:
                self._reactor.callLater(0, self._run)


def soon_of(reactor: Any) -> Soon:
    """What all of a reactor share."""
    soon: Soon | None = vars(reactor).get("packetcore soon")
    if soon is None:
        soon = vars(reactor)["packetcore soon"] = Soon(reactor)
    return soon


class Done(Deferred[None]):
    """What has fired from the start, with nothing. It is made and awaited in a fifth of the time that `succeed`
    takes, and becomes a `Deferred` like any other when it is used as one."""

    called = True
    result = None
    __init__ = object.__init__
    __await__ = __iter__ = iter(()).__iter__  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        self._become()
        return getattr(self, name)

    def pause(self) -> None:
        self._become()
        self.pause()

    def _become(self) -> None:
        self.__class__ = Deferred  # type: ignore[assignment]
        Deferred.__init__(self)
        self.called, self.result = True, None


class Event:
    """Wakes who waits, once, on a turn of its own: the `packetcore.AsyncEvent`."""

    def __init__(self, reactor: Any) -> None:
        self._soon = soon_of(reactor)
        self._is_set = False
        self._waiting: list[Deferred[None]] = []

    def set(self) -> None:
        self._is_set = True
        if self._waiting:
            self._soon.call(self._wake)

    def wait(self) -> Deferred[None]:
        if self._is_set:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def _wake(self) -> None:
        while self._waiting:
            self._waiting.pop(0).callback(None)
