"""A made-up world: its clock, its chance, its agenda, and what is told of it.

Whatever happens is on the agenda, at a time; between two of these nothing happens, however long that is.
Chance is `Random.random()` alone, of a generator for each subject, so that a seed gives the same on every
machine and every Python, and what is taken away in one place changes little in another.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush
from random import Random

MOST_AT_ONCE = 100_000
"""Things that may happen in one instant: more of them never end."""


class Violation(AssertionError):
    """Something came about that must not. It says when and what."""


class World:
    """Time, chance and what is told.

    Args:
        seed: what all chance comes from.
        trace: called with each line of the trace, where somebody wants to read it.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.now = 0.0
        """Seconds since it began."""
        self.events = 0
        """How many things have happened."""
        self.violations: list[str] = []
        """What must not have come about."""
        self._trace = trace
        self._digest = sha256(f"{seed}\n".encode())
        self._agenda: list[tuple[float, float, int, Callable[[], object]]] = []
        self._planned = 0
        self._order = self.chance("order").random

    def time(self) -> float:
        """Seconds since it began."""
        return self.now

    def chance(self, subject: str) -> Random:
        """A generator of its own for a subject. Use its `random()`: what else it has may differ between Pythons."""
        return Random(f"{self.seed} {subject}")

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Have something happen at a time, in seconds; one that has passed means soon. What happens in one
        instant happens in any order."""
        self._planned += 1
        heappush(self._agenda, (when if when > self.now else self.now, self._order(), self._planned, action))

    def run(self, is_over: Callable[[], object], until: float | None = None) -> None:
        """Let things happen.

        Args:
            is_over: asked before each; ends it.
            until: the time that ends it.

        Raises:
            Violation: something came about that must not.
        """
        agenda = self._agenda
        instant, count = self.now, 0
        while not (self.violations or is_over()):
            if not agenda or (until is not None and agenda[0][0] > until):
                break
            when, _, _, action = heappop(agenda)
            if when > instant:
                instant, count = when, 0
            count += 1
            if count > MOST_AT_ONCE:
                self.violate(f"more than {MOST_AT_ONCE} things happen at once, of which one is {action}")
            self.now = when
            self.events += 1
            action()
        if self.violations:
            raise Violation(self.violations[0])
        if until is not None and not is_over():
            self.now = max(self.now, until)

    def violate(self, what: str) -> None:
        """Say what must not have come about: it ends the run."""
        text = f"at {self.now:.6f}: {what}"
        self.violations.append(text)
        self.tell("violation", what)

    def tell(self, who: str, what: str) -> None:
        """Put a line into the trace."""
        line = f"{self.now:.6f} {who}: {what}"
        self._digest.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    @property
    def digest(self) -> str:
        """Stands for the whole trace until now."""
        return self._digest.hexdigest()
