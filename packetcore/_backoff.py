"""When a client tries again: later each time, and not all clients at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before each try to connect again. Times are in seconds.

    The wait doubles, or grows by another factor, with each try; a part of it is random, so
    that devices which an outage cut off together do not come back together.

    Raises:
        ValueError: a value is out of its range or two of them contradict each other.
    """

    initial: float = 0.5
    """The longest wait before the first try."""

    maximum: float = 60.0
    """The longest wait of all: no try is later than this after the failure before it."""

    factor: float = 2.0
    """What each wait is longer by than the one before."""

    jitter: float = 0.5
    """The part of a wait that is random: 0 for none, 1 for all of it."""

    reset_after: float = 10.0
    """How long a connection must have stayed up for the waits to begin anew: a server that
    accepts and closes at once is no better than one that refuses."""

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum:
            raise ValueError(f"initial={self.initial} must be above 0 and at most maximum={self.maximum}")
        if not self.factor >= 1:
            raise ValueError(f"factor={self.factor} must be at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter={self.jitter} is out of range 0 to 1")
        if not self.reset_after >= 0:
            raise ValueError(f"reset_after={self.reset_after} must not be below 0")


class Redial:
    """Counts the failures of one client and says when it may try again.

    Args:
        backoff: how long to wait.
        random: gives a number from 0 to below 1, such as `random.random`.
    """

    def __init__(self, backoff: Backoff, random: Callable[[], float]) -> None:
        self._backoff = backoff
        self._random = random
        self._longest = backoff.initial  # of the next wait
        self._connected_at: float | None = None

    def connected(self, now: float) -> None:
        """A connection was made."""
        self._connected_at = now

    def lost(self, now: float) -> float:
        """A connection was lost, or could not be made: give how long to wait, in seconds."""
        backoff = self._backoff
        if self._connected_at is not None and now - self._connected_at >= backoff.reset_after:
            self._longest = backoff.initial
        self._connected_at = None
        longest = self._longest
        self._longest = min(longest * backoff.factor, backoff.maximum)
        return longest * (1 - backoff.jitter * self._random())
