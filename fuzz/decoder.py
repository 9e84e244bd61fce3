"""`Decoder`: the laws of the default format, against the reference that reads a byte at a time."""

from __future__ import annotations

from typing import Any

from fuzz.choices import Choices
from packetcore import Decoder, Malformed, Packet, Reason, encode, speedups
from packetcore_conformance import laws
from packetcore_conformance.laws import Chunk
from tests.hostile import Reference, broken_law

LIMITS = (40, 0, 1, 8)
SHORT = 32
"""Bytes of a stream that are tried again and again, to count the work: to trace each line takes long."""

FIRST, LAST = Packet(0xFDFE), Packet(1, type=2)
"""Neighbours of the stream."""


def fuzz(data: bytes) -> None:
    """A byte for `max_payload`, one for what is looked at besides, one for the cuts; then the stream."""
    choices = Choices(data)
    max_payload = choices.pick(LIMITS)
    besides = choices.byte()
    chunks = choices.chunks()
    stream = b"".join(chunks)
    broken = broken_law(stream, chunks, [], max_payload)
    assert broken is None, broken
    _gives_each_event_in_its_place(chunks[-2:], b"".join(chunks[:-2]), max_payload)
    _gives_up(stream, max_payload)
    _costs_no_neighbour(stream, max_payload)
    if besides == 7 and len(stream) <= SHORT and not speedups:  # the C has no lines to count
        _works_in_proportion(stream, max_payload)


def _gives_each_event_in_its_place(chunks: list[bytes], fed: bytes, max_payload: int) -> None:
    decoder = Decoder(max_payload=max_payload)
    given = decoder.feed(fed)
    kinds: tuple[type[Chunk], ...] = (memoryview, bytearray)
    for number, chunk in enumerate(chunks):
        given += decoder.feed(kinds[number % 2](chunk))
        fed += chunk
        assert given == Reference(fed, max_payload).events
    for event in given:
        if isinstance(event, Packet):
            assert encode(event)[1:] in fed


def _gives_up(stream: bytes, max_payload: int) -> None:
    reference = Reference(stream, max_payload)
    decoder = Decoder(max_payload=max_payload)
    decoder.feed(stream)
    assert decoder.feed_timeout() == reference.at_timeout
    if reference.at_timeout:
        assert decoder.pending == 0
        assert decoder.feed_timeout() == []
        assert decoder.feed(b"tail" + encode(LAST)) == [Malformed(Reason.NOISE, 4, b"tail"), LAST]
    else:
        assert decoder.feed_eof() == reference.at_eof


def _costs_no_neighbour(stream: bytes, max_payload: int) -> None:
    events = Decoder(max_payload=max_payload).feed(encode(FIRST) + stream + encode(LAST))
    assert (events[0], events[-1]) == (FIRST, LAST)
    again = Decoder(max_payload=max_payload)
    again.feed(stream)
    assert again.feed(encode(LAST))[-1:] == [LAST]


def _works_in_proportion(stream: bytes, max_payload: int) -> None:
    for size in (1, 1 << 30):
        once, four_times = (_steps(stream * times, size, max_payload) for times in (5, 20))
        assert four_times <= 6 * once + 20 * len(stream), f"{once} steps, and then {four_times}"


def _steps(stream: bytes, size: int, max_payload: int) -> int:
    decoder: Any = Decoder(max_payload=max_payload)  # it gives packets
    return laws.steps(decoder, [stream[at : at + size] for at in range(0, len(stream), size)])
