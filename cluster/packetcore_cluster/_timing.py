"""How long things take at most, and time that does not step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds.

    Raises:
        ValueError: one is out of its range.
    """

    lease: float = 10.0
    """How long a worker may give no sign of life before the others call it dead and its claims end."""

    retry: float = 1.0
    """How long after an operation that failed it is tried again."""

    def __post_init__(self) -> None:
        for name in ("lease", "retry"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value} must be above 0 seconds, and finite")

    @property
    def beat(self) -> float:
        """How often a worker gives a sign of life: three may be lost."""
        return self.lease / 4


class Steady:
    """Time as it passes, from a clock that may step.

    A clock that steps back stands still here for a moment and goes on from there. One that steps
    forward cannot be told from a machine that was paused, and is treated so: see `advance`.

    Args:
        now: what the clock shows.
    """

    __slots__ = ("_shown", "now")

    def __init__(self, now: float) -> None:
        self.now = 0.0
        """Seconds that have passed."""
        self._shown = now

    def advance(self, shown: float) -> float:
        """Take what the clock shows. Gives how long it was since it was last looked at."""
        passed = max(0.0, shown - self._shown)
        self._shown = shown
        self.now += passed
        return passed

    def shown_at(self, at: float) -> float:
        """What the clock will show at a time of ours, if it does not step."""
        return self._shown + (at - self.now)
