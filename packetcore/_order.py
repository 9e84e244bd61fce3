"""A pool's entries in the order of their last refresh.

That order is what makes every operation of a pool cost the same at ten sessions and at a
million, and expiry cost only what has expired.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Entry(Generic[T]):
    """What a pool knows of a session."""

    __slots__ = ("host", "identity", "refreshed", "session")

    refreshed: float
    """Set by `Order`, and by its twin in C not at all, which keeps it where it keeps the order."""

    def __init__(self, session: T, host: Hashable) -> None:
        self.session = session
        self.host = host
        self.identity: Hashable = None


class Order(Generic[T]):
    """The entries of a pool by id, in the order of their last refresh."""

    __slots__ = ("_by_id", "_last_id", "_now")

    def __init__(self) -> None:
        # OrderedDict, not dict: taking the first item of a dict walks over all that were
        # ever deleted in front of it.
        self._by_id: OrderedDict[int, Entry[T]] = OrderedDict()
        self._last_id = 0
        self._now = float("-inf")

    def __len__(self) -> int:
        """How many sessions it holds."""
        return len(self._by_id)

    def __contains__(self, id: object) -> bool:
        """Whether a session has this id."""
        return id in self._by_id

    def refresh(self, id: int, now: float) -> bool:
        """Count `now` as a sign of life. Returns whether there is such a session."""
        entry = self._by_id.get(id)
        if entry is None:
            return False
        if now > self._now:
            self._now = now
        entry.refreshed = self._now
        self._by_id.move_to_end(id)
        return True

    def refreshed(self, id: int) -> float | None:
        """When a session was last refreshed; `None` if there is no such session."""
        entry = self._by_id.get(id)
        return None if entry is None else entry.refreshed

    def _put(self, entry: Entry[T], now: float, /) -> int:
        """Give an entry the next id, refreshed now."""
        entry.refreshed = self._advance(now)
        self._last_id += 1
        self._by_id[self._last_id] = entry
        return self._last_id

    def _entry(self, id: int, /) -> Entry[T] | None:
        """The entry with this id; `None` if it is not there."""
        return self._by_id.get(id)

    def _take(self, id: int, /) -> Entry[T] | None:
        """Let an entry go and give it; `None` if it is not there."""
        return self._by_id.pop(id, None)

    def _take_silent(self, timeout: float, now: float, /) -> Entry[T] | None:
        """Let the first go and give it, if it was refreshed that long ago; else `None`."""
        for id, entry in self._by_id.items():
            if entry.refreshed + timeout > now:
                break
            del self._by_id[id]
            return entry
        return None

    def _first(self) -> Entry[T] | None:
        """The entry that was refreshed longest ago; `None` if there is none."""
        return next(iter(self._by_id.values()), None)

    def _since(self) -> float | None:
        """When the first was refreshed; `None` if there is none."""
        return next((entry.refreshed for entry in self._by_id.values()), None)

    def _entries(self) -> list[Entry[T]]:
        """All entries, the first that which was refreshed longest ago."""
        return list(self._by_id.values())

    def _advance(self, now: float, /) -> float:
        """Count a time as now. Gives the latest that was counted."""
        if now > self._now:
            self._now = now
        return self._now
