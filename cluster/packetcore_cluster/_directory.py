"""A worker's copy of the directory: who holds which identity, as the broker last told.

Measured with 25,000 identities a worker, a subscription for each costs a client 5 KiB and the broker
1 KiB, and all are sent again after each loss of the connection; an entry of this copy takes some
300 bytes. And with it a worker knows at once that nobody holds an identity.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from packetcore_cluster._entries import Entry

MAX_GONE = 100_000
"""Deleted keys whose last revision is kept, which saves asking for it when the device comes back. Beyond
that the oldest is forgotten."""


class Place(NamedTuple):
    """Where a session is."""

    revision: int
    """Of the entry: it counts up over the whole directory."""
    worker: str
    session: int
    since: float


class Directory:
    """Entries by key, with their revisions."""

    def __init__(self) -> None:
        self.last_revision = 0
        """The highest that was told."""
        self._places: dict[str, Place] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()
        self._before: dict[str, Place] = {}  # while it is read anew, what was known until then

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._before or self._places)

    def begin(self) -> None:
        """It is going to be told from the beginning. Until it is `whole` what was known before
        counts, for keys that were not told yet."""
        self._before = dict(self.items())
        self._places = {}
        self._gone = OrderedDict()

    def whole(self) -> None:
        """All has been told: what has not is not there."""
        self._before = {}

    def get(self, key: str) -> Place | None:
        """Who holds an identity; `None` if nobody does."""
        place = self._places.get(key)
        if place is None and self._before and key not in self._gone:
            return self._before.get(key)
        return place

    def revision(self, key: str) -> int:
        """The last revision of a key as far as known, that of its deletion included; 0 if none is."""
        place = self._places.get(key)
        return self._gone.get(key, 0) if place is None else place.revision

    def learn(self, key: str, revision: int, entry: Entry | None) -> bool:
        """An entry was made, or deleted where it is `None`. Gives whether that was news."""
        if revision <= self.revision(key):
            return False
        self.last_revision = max(self.last_revision, revision)
        self._set(key, revision, entry)
        return True

    def correct(self, key: str, revision: int, entry: Entry | None) -> None:
        """A key was read: take what was found, unless something newer is known. Nothing at all is
        revision 0, and believed."""
        if revision == 0 or revision >= self.revision(key):
            self._set(key, revision, entry)

    def forget_revisions(self) -> None:
        """The bucket is another, or has lost its end: its revisions mean nothing any more."""
        self.last_revision = 0

    def items(self) -> Iterator[tuple[str, Place]]:
        """Keys and places; must not change meanwhile."""
        yield from self._places.items()
        for key, place in self._before.items():
            if key not in self._places and key not in self._gone:
                yield key, place

    def _set(self, key: str, revision: int, entry: Entry | None) -> None:
        if entry is not None:
            self._gone.pop(key, None)
            self._places[key] = Place(revision, *entry)
            return
        self._places.pop(key, None)
        self._gone.pop(key, None)
        if revision or self._before:
            self._gone[key] = revision
            if len(self._gone) > MAX_GONE and not self._before:
                self._gone.popitem(last=False)
