"""`decode` and `encode`: each the inverse of the other, and nothing but `MalformedFrame` for the rest."""

from __future__ import annotations

from packetcore import MalformedFrame, Packet, Reason, decode, encode
from tests.hostile import Reference

FLAG = b"\xfe"
NO_LIMIT = 0xFFFFFFFF


def fuzz(data: bytes) -> None:
    """The bytes are a frame, then a packet's payload."""
    packet = _of(data)
    for other in (bytearray(data), memoryview(data)):
        assert _of(other) == packet
    if isinstance(packet, Packet):
        assert encode(packet) == data  # there is one way to write it
    else:
        assert packet is _reason(data)
    made = Packet(int.from_bytes(data[:2], "big"), data, type=len(data) & 0xFF, count=len(data))
    frame = encode(made)
    assert decode(frame) == made
    assert frame.count(FLAG) == 2
    assert frame[:1] == frame[-1:] == FLAG


def _of(data: bytes | bytearray | memoryview) -> Packet | Reason:
    try:
        return decode(data)
    except MalformedFrame as error:
        return error.reason


def _reason(data: bytes) -> Reason | None:
    """Why the bytes are no frame, by the words of `decode`."""
    if data and not data.startswith(FLAG):
        return Reason.NOISE
    body, closing, rest = data[1:].partition(FLAG)
    if not closing:
        return Reason.TRUNCATED
    if not body:
        return Reason.TOO_SHORT
    event = Reference(FLAG + body + FLAG, NO_LIMIT).events[0]
    if not isinstance(event, Packet):
        return event.reason
    return Reason.NOISE if rest else None
