"""The wire format: what one packet looks like as bytes, and what a framing must offer.

    FE | id u16 | type u8 | count u16 | length u32 | payload[length] | FE    big-endian

Between the two flags FE is sent as FD 01 and FD as FD 02; `length` counts the payload
before that. Finding frames in a stream, and refusing bad ones, is the decoder's work.
"""

from __future__ import annotations

import struct
from typing import Protocol

from packetcore._events import Malformed
from packetcore._packet import AnyPacket, Packet

FLAG = b"\xfe"
ESCAPE = b"\xfd"
ESCAPED_FLAG = b"\xfd\x01"
ESCAPED_ESCAPE = b"\xfd\x02"
FLAG_BYTE = FLAG[0]
ESCAPE_BYTE = ESCAPE[0]

HEADER = struct.Struct(">HBHI")
HEADER_SIZE = HEADER.size
"""Bytes of header before escaping: 9."""

LONG = 256
"""Bytes above which `unescape` tries the way of few escapes; below, it does not pay."""
FEW = 64
"""Bytes for each escape that make the escapes few. Random bytes have one in 128."""

# What the byte after an escape byte makes of the two.
_ESCAPED = {ESCAPED_FLAG[1]: FLAG_BYTE, ESCAPED_ESCAPE[1]: ESCAPE_BYTE}
_pack = HEADER.pack


class FrameDecoder(Protocol[AnyPacket]):
    """What a connection needs of a decoder, so that another framing can take its place.

    An event must end all the bytes before it: whatever is `pending` after a `feed` that
    gave one arrived in that same `feed`. The frame timeout rests on it.
    """

    @property
    def pending(self) -> int:
        """Bytes fed that no event speaks for yet; 0 between frames."""

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[AnyPacket | Malformed]:
        """Take the next bytes of the stream and give what they complete."""

    def feed_eof(self) -> list[Malformed]:
        """Say that the stream has ended."""

    def feed_timeout(self) -> list[Malformed]:
        """Say that what is pending has been so for `frame_timeout`: give it if it is no frame
        begun, which ends the wait for it; give nothing where a frame was begun, which ends the
        connection."""


class Codec(Protocol[AnyPacket]):
    """A framing: how one packet becomes bytes, and a decoder for a stream of them."""

    def encode(self, packet: AnyPacket, /) -> bytes:
        """One packet as the bytes to send."""

    def decoder(self) -> FrameDecoder[AnyPacket]:
        """A new decoder for one stream."""


def encode(packet: Packet, /) -> bytes:
    """Give one packet as one frame: 11 bytes, the payload, and one more for each byte
    of header or payload that is escaped."""
    try:
        id, payload, type, count = packet
        body = _pack(id, type, count, len(payload)) + payload
    except (TypeError, ValueError, struct.error):
        raise TypeError(f"encode() takes a Packet, not {packet.__class__.__name__}") from None
    # `int in bytes` is the cheapest search there is; most small packets need no escape.
    if ESCAPE_BYTE in body:
        body = body.replace(ESCAPE, ESCAPED_ESCAPE)
    if FLAG_BYTE in body:
        body = body.replace(FLAG, ESCAPED_FLAG)
    return b"\xfe%b\xfe" % body


def unescape(body: bytes) -> bytes | None:
    """Give the bytes that were escaped into `body`, or `None` for a bad escape."""
    if len(body) > LONG:
        pieces = body.split(ESCAPE, len(body) // FEW)
        if ESCAPE_BYTE not in pieces[-1]:
            return _unescape_few(pieces)
    plain = body.replace(ESCAPED_FLAG, FLAG).replace(ESCAPED_ESCAPE, ESCAPE)
    # Each sound escape became one byte shorter; any other is a bad one.
    return plain if len(body) - len(plain) == body.count(ESCAPE_BYTE) else None


def _unescape_few(pieces: list[bytes]) -> bytes | None:
    """The same where few bytes are escaped, given what stands between the escape bytes.

    To find a single byte takes a fraction of what it takes to find two, and that is most of
    the work here; where many are found, what Python does for each of them is more.
    """
    plain = bytearray().join(pieces)
    at = len(pieces.pop(0))
    try:
        for piece in pieces:
            plain[at] = _ESCAPED[piece[0]]
            at += len(piece)
    except (IndexError, KeyError):  # after an escape byte stands neither 01 nor 02, or nothing
        return None
    return bytes(plain)


def announced_length(body: bytes | bytearray) -> tuple[int, int] | None:
    """Give the bytes as sent that a header takes, and the payload length it announces.

    `None` while the header is incomplete, and for a bad escape in it. Looks at no more
    than the 18 bytes that a header of nothing but escapes takes.
    """
    head = bytes(body[: 2 * HEADER_SIZE])
    for size in range(HEADER_SIZE, len(head) + 1):
        plain = unescape(head[:size])
        if plain is not None and len(plain) == HEADER_SIZE:
            return size, HEADER.unpack(plain)[3]
    return None
