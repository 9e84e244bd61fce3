"""Many deadlines and the first of them: what one timer serves for all."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """At most one deadline for each key. Memory is proportional to the keys that have one."""

    __slots__ = ("_at", "_heap", "_pushed")

    def __init__(self) -> None:
        self._at: dict[K, tuple[float, int, K]] = {}
        self._heap: list[tuple[float, int, K]] = []  # those called off or moved are in it still
        self._pushed = 0  # tells apart those of one time

    def __len__(self) -> int:
        """How many keys have a deadline."""
        return len(self._at)

    def set(self, key: K, at: float) -> None:
        """Give a key a deadline, in place of the one it had."""
        self._pushed += 1
        self._at[key] = entry = (at, self._pushed, key)
        heappush(self._heap, entry)
        self._shrink()

    def discard(self, key: K) -> None:
        """Call a key's deadline off, if it has one."""
        if self._at.pop(key, None) is not None:
            self._shrink()

    def first(self) -> float | None:
        """The earliest deadline; `None` if there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> K | None:
        """A key whose deadline has come, the earliest first, which is called off by this;
        `None` if there is none."""
        first = self.first()
        if first is None or first > now:
            return None
        key = heappop(self._heap)[2]
        del self._at[key]
        return key

    def _shrink(self) -> None:
        if not self._at or len(self._heap) > 2 * len(self._at) + 100:
            self._heap = list(self._at.values())
            heapify(self._heap)
