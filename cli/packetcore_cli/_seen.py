"""What is known of a server and its sessions at a moment: values, which the sampler makes and the console and the table
show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from packetcore import Address, CloseReason, Malformed, Session
from packetcore_cli._text import address_text

IDENTITY_SHOWN = 100
"""Characters of an identity that are kept to be shown."""

RATES = ("packets_in", "packets_out", "bytes_in", "bytes_out")
"""What there are rates of, each a second."""


Four = tuple[int, int, int, int]


class Row:
    """One session as it was when it was last looked at. Rates are those since the time before."""

    __slots__ = (
        *RATES,
        "at",
        "counts",
        "identity",
        "name",
        "opened",
        "outstanding",
        "peer",
        "session",
    )

    def __init__(self, session: Session[Any], opened: float | None, now: float) -> None:
        self.session = session
        self.peer = address_text(session.peer)
        self.opened = opened
        """When it came, by `time.monotonic`; `None` of one that was there before the sampler."""
        self.at = now
        """When it was looked at last, in the same way; infinite if it was not, and was there before."""
        self.identity: Hashable = None
        self.name = ""
        """The identity as text."""
        self.counts: Four = (0, 0, 0, 0)
        """Of `RATES`, what was counted until now."""
        self.outstanding = 0
        self.packets_in = self.packets_out = self.bytes_in = self.bytes_out = 0.0

    @property
    def id(self) -> int:
        """The session's."""
        return self.session.id


@dataclass(frozen=True, slots=True)
class Point:
    """A second of the history."""

    time: float
    """By `time.time`."""

    sessions: int
    outstanding: int
    rates: tuple[float, float, float, float]
    """See `RATES`."""

    closed: dict[str, int]
    """Sessions that ended, by close reason."""

    malformed: int
    refused: int


class Noted(NamedTuple):
    """Something malformed."""

    number: int
    """Counts up from 1."""

    time: float
    """By `time.time`."""

    session: int
    """0 for a stranger's, over UDP."""

    peer: Address
    identity: Hashable
    malformed: Malformed


@dataclass(frozen=True, slots=True)
class Totals:
    """What the server has seen, as last read."""

    sessions: int = 0
    """That are open."""

    opened: int = 0
    outstanding: int = 0
    counts: Four = (0, 0, 0, 0)
    """Of `RATES`, all that was counted."""

    rates: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    closed: Counter[CloseReason] = field(default_factory=Counter)
    refused: int = 0
    malformed: int = 0
    """Since the sampler began."""

    age: float = 0.0
    """Seconds that the last look at all sessions took: how old the figures of one may be."""

    is_answering: bool = True
    """Whether the runtime does."""


class View(NamedTuple):
    """A part of the list of sessions."""

    rows: list[Row]
    matched: int
    """How many there are that match the search."""


SORTS: dict[str, Callable[[Row], Any]] = {
    "id": lambda row: row.id,
    "identity": lambda row: (not row.name, row.name),
    "peer": lambda row: row.peer,
    "packets_in": lambda row: row.packets_in,
    "packets_out": lambda row: row.packets_out,
    "bytes_in": lambda row: row.bytes_in,
    "bytes_out": lambda row: row.bytes_out,
    "packets": lambda row: row.packets_in + row.packets_out,
    "outstanding": lambda row: row.outstanding,
    "age": lambda row: -row.id,
}
"""What the list can be sorted by. Ids count up: the youngest session has the highest."""


def name_of(identity: Hashable) -> str:
    """An identity as text to be shown, cut to `IDENTITY_SHOWN` characters; nothing for none. It is an object of the
    application's, or of a stranger's making: whatever its `str` does, this gives text, and what cannot be printed is
    U+FFFD in it."""
    if identity is None:
        return ""
    try:
        text = str(identity)
    except Exception as error:
        text = f"({type(identity).__name__} without text: {type(error).__name__})"
    if len(text) > IDENTITY_SHOWN:
        text = text[: IDENTITY_SHOWN - 1] + "…"
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)
