"""Which byte of a stream is what.

What is a packet and what is malformed is the decoder's word, and where: every byte fed is
in exactly one packet, one `Malformed` or a flag, in the order of the stream, so the events
alone say which bytes they speak for. Only what stands inside a frame is told apart here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from packetcore import Decoder, Malformed, Packet, Reason
from packetcore_cli._wire import ESCAPE, ESCAPED, FIELDS, FLAG

_STANDS_FOR = {sent: bytes([byte]) for byte, sent in ESCAPED.items()}


class Part(enum.Enum):
    """What a byte can be."""

    FLAG = "flag"
    NOISE = "noise"
    ID = "id"
    TYPE = "type"
    COUNT = "count"
    LENGTH = "length"
    PAYLOAD = "payload"
    ESCAPE = "escape"
    FRAME = "frame"
    BROKEN = "broken"


HEADER = tuple(part for name, (_, size) in FIELDS.items() for part in (Part(name),) * size)
"""The part that each byte of a header belongs to."""


class Span(NamedTuple):
    """The bytes that one event speaks for, or one flag."""

    start: int
    stop: int
    event: Packet | bytes | Malformed | None
    """`None` for a flag."""

    part: Part | None = None
    """What all of them are, where nothing in them is told apart."""


class Mark(NamedTuple):
    """Bytes side by side that are the same thing."""

    start: int
    stop: int
    part: Part
    field: Part
    """For an escape the field that it stands in, else the same as `part`."""
    plain: bytes
    """What they stand for once unescaped; nothing for a flag and for a bad escape."""


class Spans:
    """The events of a stream, each with its place, and the flags between them, as its bytes come.

    Args:
        max_payload: the longest payload, in bytes.

    Raises:
        ValueError: it is out of its range.
    """

    def __init__(self, max_payload: int) -> None:
        self._decoder = Decoder(max_payload=max_payload)
        self._fed = 0
        self._start = 0  # the first byte that nothing given speaks for

    def feed(self, data: bytes) -> Iterator[Span]:
        """Take the next bytes, and give what they complete."""
        start = 0
        while start < len(data):
            flag = data.find(FLAG, start)
            stop = len(data) if flag < 0 else flag + 1
            events = self._decoder.feed(data[start:stop])
            self._fed += stop - start
            start = stop
            if flag < 0:
                yield from self._placed(events, self._fed)
            else:
                yield from self._placed(events, self._fed - 1)
                self._start = self._fed
                yield Span(self._fed - 1, self._fed, None)

    def feed_eof(self) -> Iterator[Span]:
        """Give what is left at the end."""
        yield from self._placed(self._decoder.feed_eof(), self._fed)

    def _placed(self, events: Sequence[Packet | Malformed], end: int) -> Iterator[Span]:
        for event in events:
            start = self._start
            self._start = start + event.size if isinstance(event, Malformed) else end
            yield Span(start, self._start, event)


def marks(data: bytes, span: Span) -> Iterator[Mark]:
    """What the bytes of a span are. Where a frame is malformed, what they would have been; where
    it is too short for a header, noise."""
    start, stop, event, part = span
    if part is not None:
        yield Mark(start, stop, part, part, data[start:stop])
    elif event is None:
        yield Mark(start, stop, Part.FLAG, Part.FLAG, b"")
    elif isinstance(event, Malformed) and event.reason in (Reason.NOISE, Reason.TOO_SHORT):
        yield Mark(start, stop, Part.NOISE, Part.NOISE, data[start:stop])
    else:
        for (part, field, _), same in groupby(_units(data, start, stop), key=_kind):
            units = list(same)
            yield Mark(units[0].start, units[-1].stop, part, field, b"".join(unit.plain for unit in units))


def _kind(unit: Mark) -> tuple[Part, Part, bool]:
    return unit.part, unit.field, bool(unit.plain)


def _units(data: bytes, start: int, stop: int) -> Iterator[Mark]:
    """The bytes of a frame's body, an escape and what follows it taken together."""
    for place in range(stop - start):  # in the unescaped body
        if start >= stop:
            return
        field = HEADER[place] if place < len(HEADER) else Part.PAYLOAD
        size = 2 if data[start] == ESCAPE and start + 1 < stop else 1
        sent = data[start : start + size]
        if sent[0] == ESCAPE:
            yield Mark(start, start + size, Part.ESCAPE, field, _STANDS_FOR.get(sent, b""))
        else:
            yield Mark(start, start + size, field, field, sent)
        start += size
