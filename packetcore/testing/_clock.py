"""The time of a test: it passes when the test says so, and what is due meanwhile is done in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from heapq import heappop, heappush
from typing import Any, TypeVar

from packetcore._errors import LocalProtocolError
from packetcore._waiting import Handle

T = TypeVar("T")

_MOST = 100_000
"""Calls at one time: more than any test sets off that ends."""


class _Call:
    """Something to be called at a time."""

    __slots__ = ("function", "is_off")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.is_off = False

    def cancel(self) -> None:
        """See `Handle`."""
        self.is_off = True


class Clock:
    """A clock that stands still until `advance`, and what is to be done by it.

    Hand `time` to code of yours that takes a clock, and `sleep` to functions over a stream that sleep.

    Args:
        now: the time that it begins with, in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        """The time, in seconds."""
        self._soon: deque[Callable[[], object]] = deque()
        self._later: list[tuple[float, int, _Call]] = []
        self._planned = 0  # tells apart those of one time
        self._checks: list[Callable[[], object]] = []  # made when all that was due is done: they may raise
        self._is_running = False
        self._task: Task | None = None  # the one under way
        self._is_abandoned = False

    def time(self) -> float:
        """The time, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass: what is due now is done first, then each timer at its time, in order, with
        all that it sets off. An error that comes out of it stops the clock at that time.

        Raises:
            ValueError: `seconds` is below 0.
            LocalProtocolError: this is called by something that the clock has called, as a handler.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds} must be at least 0: time does not go back")
        if self._is_running:
            raise LocalProtocolError("advance: no time passes while a handler runs")
        until = self.now + seconds
        self._perform(partial(self._pass, until))
        self.now = until

    def settle(self) -> None:
        """Do what is due now."""
        self._perform(_nothing)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function when what is under way is done; from any thread."""
        self._soon.append(function)

    def call_at(self, at: float, function: Callable[[], object]) -> Handle:
        """Call a function at `at` seconds; at a time that has passed, soon. Returns what cancels that."""
        self._planned += 1
        call = _Call(function)
        heappush(self._later, (max(at, self.now), self._planned, call))
        return call

    async def sleep(self, seconds: float) -> None:
        """Wait until so much time has passed: in a function over a stream."""
        woken = Event(self)
        self.call_at(self.now + seconds, woken.set)
        await woken

    def _next(self) -> float | None:
        """When something is due next."""
        while self._later and self._later[0][2].is_off:
            heappop(self._later)
        return self._later[0][0] if self._later else None

    def _perform(self, action: Callable[[], object]) -> None:
        """Do something after what is due, and before what it makes due."""
        if self._is_running:
            action()  # a handler does it
            return
        self._is_running = True
        try:
            self._do_due()
            action()
            self._do_due()
        finally:
            self._is_running = False

    def _pass(self, until: float) -> None:
        while (at := self._next()) is not None and at <= until:
            self.now = at
            self._do_due()

    def _do_due(self) -> None:
        for _ in range(_MOST):
            if self._soon:
                self._soon.popleft()()
            elif (at := self._next()) is not None and at <= self.now:
                heappop(self._later)[2].function()
            else:
                break
        else:
            raise RuntimeError(
                f"still busy after {_MOST} calls at {self.now} s: something calls itself again without end"
            )
        for check in self._checks:
            check()


class Event:
    """What a coroutine waits for. See `packetcore.AsyncEvent`."""

    __slots__ = ("_clock", "_is_set", "_waiting")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_set = False
        self._waiting: list[Task] = []

    def set(self) -> None:
        """Wake those that wait, soon."""
        self._is_set = True
        for task in self._waiting:
            self._clock.call_soon(task.step)

    def wait(self) -> Awaitable[None]:
        """Wait until woken."""
        return self

    def __await__(self) -> Generator[Event, None, None]:
        clock = self._clock
        if clock._is_abandoned and clock._task is None:
            raise GeneratorExit  # once more, of one that closes its stream as it goes
        if not self._is_set:
            try:
                yield self
            except GeneratorExit:  # the test is over, and what has not ended is collected
                clock._is_abandoned = True
                raise

    def add(self, task: Task) -> None:
        """Wake a task too."""
        self._waiting.append(task)


class Task:
    """A coroutine that is driven by hand: it may wait for events of the clock, and for nothing else."""

    __slots__ = ("_clock", "_coroutine")

    def __init__(self, clock: Clock, coroutine: Coroutine[Any, Any, object]) -> None:
        self._clock = clock
        self._coroutine = coroutine
        clock.call_soon(self.step)

    def step(self) -> None:
        """Go on until it waits, or ends."""
        go_on: Callable[[], object] = partial(self._coroutine.send, None)
        self._clock._task = self
        try:
            while not isinstance(awaited := go_on(), Event):
                error = TypeError(
                    f"{awaited!r} was awaited, which belongs to a runtime: without one there is what the stream "
                    "has to wait for, and Clock.sleep"
                )
                go_on = partial(self._coroutine.throw, error)
            awaited.add(self)
        except StopIteration:
            pass
        finally:
            self._clock._task = None


class Condition:
    """What a blocking call waits for: where nothing is due now, the time passes to what is due next. See
    `packetcore.SyncCondition`."""

    is_served = True
    """What is due is done while nobody waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def notify_all(self) -> None:
        """Nothing: who waits tries again after each thing that is done."""

    def wait_for(self, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
        """See `packetcore.SyncCondition`.

        Raises:
            LocalProtocolError: nothing is due any more, or a handler waits.
        """
        clock = self._clock
        until = clock.now + timeout if timeout is not None else None
        clock.settle()
        while (found := attempt()) is None:
            at = clock._next()
            if until is not None and (at is None or at > until):
                clock.advance(until - clock.now)
                return attempt()
            if at is None:
                raise LocalProtocolError("a call waits for what never comes: nothing is due at any time")
            clock.advance(at - clock.now)
        return found


def _nothing() -> None:
    pass
