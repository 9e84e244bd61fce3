"""Which workers live: who has given a sign of life within its lease.

Nothing is concluded from silence that may be one's own: after a pause, a loss of the broker, or
while it takes no signs of life from oneself either, every worker is given its whole lease again.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_DEAD = 10_000
"""Dead workers that are remembered, for what of theirs is left to tidy up. Beyond that the first is forgotten; an entry
that comes yet names it, so that it has its lease once more."""


class _Worker:
    __slots__ = ("about", "has_beaten", "heard", "lease")

    def __init__(self, lease: float, heard: float) -> None:
        self.lease = lease
        self.heard = heard
        self.has_beaten = False
        self.about = ""


class Presence:
    """The other workers. Times are in seconds, and never go back.

    Args:
        lease: of a worker that entries name, and whose own signs of life are not known.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._alive: dict[str, _Worker] = {}
        self._dead: dict[str, None] = {}  # in the order in which they were known to be

    def __iter__(self) -> Iterator[str]:
        """Those alive."""
        return iter(self._alive)

    def __len__(self) -> int:
        """How many are alive."""
        return len(self._alive)

    def __contains__(self, worker: object) -> bool:
        """Whether a worker is alive."""
        return worker in self._alive

    def is_dead(self, worker: str) -> bool:
        """Whether a worker was, and is not any more."""
        return worker in self._dead

    def about(self, worker: str) -> str:
        """What a worker says of itself."""
        known = self._alive.get(worker)
        return "" if known is None else known.about

    def heard(self, worker: str, lease: float, about: str, now: float) -> bool:
        """A worker has given a sign of life. Gives whether it is news that it lives."""
        known = self._known(worker, now)
        is_new = not known.has_beaten
        known.has_beaten, known.lease, known.about, known.heard = True, lease, about, now
        return is_new

    def named(self, worker: str, now: float) -> None:
        """An entry names a worker, which says little of how it is now."""
        if worker not in self._alive and worker not in self._dead:
            self._known(worker, now)

    def left(self, worker: str) -> bool:
        """A worker has said goodbye, or somebody did for it. Gives whether it was alive."""
        self._dead[worker] = None
        if len(self._dead) > MAX_DEAD:
            del self._dead[next(iter(self._dead))]
        return self._alive.pop(worker, None) is not None

    def begin(self) -> None:
        """The directory is about to be read anew: forget who is dead."""
        self._dead.clear()

    def excuse(self, now: float) -> None:
        """Hold nobody's silence until now against it."""
        for worker in self._alive.values():
            worker.heard = now

    def expire(self, now: float) -> list[str]:
        """Those whose lease is over, who are dead from now on."""
        expired = [name for name, worker in self._alive.items() if worker.heard + worker.lease <= now]
        for name in expired:
            self.left(name)
        return expired

    def next_deadline(self) -> float | None:
        """When the next lease is over."""
        return min((worker.heard + worker.lease for worker in self._alive.values()), default=None)

    def _known(self, worker: str, now: float) -> _Worker:
        self._dead.pop(worker, None)
        known = self._alive.get(worker)
        if known is None:
            known = self._alive[worker] = _Worker(self._lease, now)
        return known
