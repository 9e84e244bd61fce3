"""The timers of all sockets of a loop, for which it keeps one of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Protocol

from packetcore import Deadlines, Handle


class Clock(Protocol):
    """What of a `Loop` timers need."""

    def time(self) -> float:
        """See `Loop`."""
        raise NotImplementedError

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        """See `Loop`."""
        raise NotImplementedError


class Timed(Hashable, Protocol):
    """Who may have a timer."""

    def tick(self) -> object:
        """The time has come."""


class Timers:
    """At most one timer for each of many. That of a connection which is idle costs an entry in a heap, where a
    timer of a runtime's own takes several hundred bytes, and microseconds to begin and to call off.

    Args:
        clock: a loop.
    """

    __slots__ = ("_at", "_clock", "_deadlines", "_handle")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadlines: Deadlines[Timed] = Deadlines()
        self._handle: Handle | None = None
        self._at = inf  # when the loop calls back

    def set(self, timed: Timed, at: float | None) -> None:
        """Have `timed.tick` called at `at` seconds, in place of any time set before, but not before this
        returns; `None` calls it off."""
        if at is not None:
            self._deadlines.set(timed, at)
            if at < self._at:
                self._arm(at)
        else:
            self._deadlines.discard(timed)
            if not self._deadlines:  # a loop may run for as long as there is a timer
                self._disarm()

    def _arm(self, at: float) -> None:
        self._disarm()
        self._at = at
        self._handle = self._clock.call_at(at, self._fire)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle, self._at = None, inf

    def _fire(self) -> None:
        self._handle, self._at = None, inf
        now = self._clock.time()
        try:
            for _ in range(len(self._deadlines)):  # one that is set anew meanwhile has its turn later
                if (timed := self._deadlines.pop_due(now)) is None:
                    break
                timed.tick()
        finally:
            first = self._deadlines.first()
            if first is not None and first < self._at:
                self._arm(first)
