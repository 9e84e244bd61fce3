"""Which byte of a stream is what.

What is a packet and what is malformed is the decoder's word, and where: every byte fed is
in exactly one packet, one `Malformed` or a flag, in the order of the stream, so the events
alone say which bytes they speak for. Only what stands inside a frame is told apart here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
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


def spans(data: bytes, max_payload: int) -> Iterator[Span]:
    """The events of a stream, each with its place, and the flags between them."""
    decoder = Decoder(max_payload=max_payload)
    start = 0
    while start < len(data):
        flag = data.find(FLAG, start)
        run = data[start:] if flag < 0 else data[start : flag + 1]
        events: list[Packet | Malformed] = [*decoder.feed(run)]
        if flag < 0:
            flag = len(data)
            events += decoder.feed_eof()
        for event in events:
            stop = start + event.size if isinstance(event, Malformed) else flag
            yield Span(start, stop, event)
            start = stop
        if flag < len(data):
            yield Span(flag, flag + 1, None)
        start = flag + 1


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
