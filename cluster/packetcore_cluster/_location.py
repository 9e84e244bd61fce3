"""Where sessions are, as an application is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from packetcore_cluster._directory import Place
from packetcore_cluster._keys import identity_of


@dataclass(frozen=True, slots=True)
class Location:
    """Where a session is that holds an identity."""

    identity: str | int | bytes
    worker: str
    session: int
    """Its id there."""
    since: datetime
    """When it was bound, by the clock of that worker, in UTC."""


def location(key: str, place: Place) -> Location:
    """A place of the directory, for people.

    Raises:
        ValueError: the key is of no identity.
    """
    since = datetime.fromtimestamp(place.since, timezone.utc)
    return Location(identity_of(key), place.worker, place.session, since)


def locations(places: Iterable[tuple[str, Place]]) -> Iterator[Location]:
    """The same for many, without keys that somebody else has made."""
    for key, place in places:
        try:
            found = location(key, place)
        except ValueError:
            continue
        yield found
