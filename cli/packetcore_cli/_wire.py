"""The wire format as the core's codec has it, found out by encoding: the flag, the escape byte and what it stands for,
and where in a header each field is. Nothing of it is written down here a second time."""

from __future__ import annotations

from collections.abc import Mapping

from packetcore import Packet, encode
from packetcore.framings import FEFD

_WHOLE = bytes(range(256))


def _header(packet: Packet) -> bytes:
    """The header of a packet before it is escaped."""
    (frame,) = FEFD().decoder().feed(encode(packet))
    assert isinstance(frame, bytes)
    return frame[: len(frame) - len(packet.payload)]


def _fields() -> dict[str, tuple[int, int]]:
    found = {}
    for name in ("id", "type", "count"):
        header = _header(Packet(0, count=0)._replace(**{name: 0xFF if name == "type" else 0xFFFF}))
        places = [place for place, byte in enumerate(header) if byte]
        found[name] = places[0], len(places)
    taken = {at for place, size in found.values() for at in range(place, place + size)}
    rest = [at for at in range(len(header)) if at not in taken]  # to fill this one takes 4 GiB
    return found | {"length": (rest[0], len(rest))}


def _escaped() -> dict[int, bytes]:
    """What each byte is sent as, where that is not the byte itself."""
    sent = {byte: encode(Packet(0, bytes([byte]))) for byte in _WHOLE}
    shortest = min(map(len, sent.values()))
    return {byte: frame[-3:-1] for byte, frame in sent.items() if len(frame) > shortest}


FLAG: int = encode(Packet(0))[0]
"""The byte in front of a frame and behind it."""

ESCAPED: Mapping[int, bytes] = _escaped()
"""How the bytes that mean something are sent within a frame: two bytes for each."""

ESCAPE: int = next(iter(ESCAPED.values()))[0]
"""The first of those two."""

HEADER_SIZE = len(_header(Packet(0)))
"""Bytes of a header before it is escaped."""

FIELDS: Mapping[str, tuple[int, int]] = _fields()
"""Where in a header each field begins, and its size, in bytes."""
