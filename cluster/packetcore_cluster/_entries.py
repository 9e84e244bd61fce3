"""What stands in the bucket: who holds an identity, and which workers live. JSON, so that people can read it."""

from __future__ import annotations

import json
from math import isfinite
from sys import intern
from typing import Any, NamedTuple

YEARS = (-62_135_596_800.0, 253_402_300_800.0)
"""From the year 1 on, and before the year 10000, in seconds since 1970: `datetime` knows no others."""


class Entry(NamedTuple):
    """Who holds an identity."""

    worker: str
    session: int
    """Its id on that worker."""
    since: float
    """Seconds since 1970, by the clock of that worker: for people alone, nothing is decided by it. It is in
    `YEARS`."""


class Beat(NamedTuple):
    """A worker's sign of life."""

    lease: float
    """Seconds without another after which it counts as dead."""
    number: int
    about: str
    """What it says of itself, for people."""


def entry_bytes(entry: Entry) -> bytes:
    """An entry as the value of its key."""
    fields = {"worker": entry.worker, "session": entry.session, "since": entry.since}
    return json.dumps(fields, separators=(",", ":")).encode()


def entry_from(value: bytes) -> Entry | None:
    """The entry in a value; `None` where something else stands there."""
    try:
        fields = json.loads(value)
        # One string for all the entries of a worker: there may be very many.
        entry = Entry(intern(str(fields["worker"])), int(fields["session"]), float(fields["since"]))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    return entry if YEARS[0] <= entry.since < YEARS[1] else None


def beat_bytes(beat: Beat) -> bytes:
    """A sign of life as the value of its key."""
    fields = {"lease": beat.lease, "number": beat.number, "about": beat.about}
    return json.dumps(fields, separators=(",", ":")).encode()


def beat_from(value: bytes) -> Beat | None:
    """The sign of life in a value; `None` where something else stands there."""
    try:
        fields: Any = json.loads(value)
        beat = Beat(float(fields["lease"]), int(fields["number"]), str(fields["about"]))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    return beat if isfinite(beat.lease) and beat.lease > 0 else None
