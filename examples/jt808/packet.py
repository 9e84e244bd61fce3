"""Packets of JT/T 808: a header, a body, and what they are on the wire."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from packetcore.framings import ByteStuffing

from .bodies import (
    Body,
    Fragment,
    ParameterReply,
    PlatformReply,
    RegistrationReply,
    TerminalReply,
    decode_body,
)
from .fields import from_bcd, pack, to_bcd, unpack_first

FRAMING = ByteStuffing(flag=0x7E, escape=0x7D, map={0x7E: 2, 0x7D: 1}, check="xor")
"""7E before and behind; 7D 02 for 7E and 7D 01 for 7D; all bytes XORed to one in front of the last 7E."""

MAX_BODY = 0x3FF
"""Bytes: the length has ten bits."""

_FRAGMENTED, _VERSIONED, _RESERVED = 1 << 13, 1 << 14, 1 << 15
_ENCRYPTION = 0b111 << 10

_ATTRIBUTES = struct.Struct(">HH")
_HEADER = struct.Struct(">HH6sH")
_HEADER_2019 = struct.Struct(">HHB10sH")
_PLACE = struct.Struct(">HH")

MAX_FRAME = _HEADER_2019.size + _PLACE.size + MAX_BODY
"""Bytes of the longest header and body: for `Config.max_payload`."""


@dataclass(frozen=True, slots=True)
class JT808Packet:
    """One packet, either way.

    Raises:
        ValueError: when it is sent, a field is out of range.
    """

    phone: str
    """The terminal's number: 12 digits, 20 with the header of 2019, with zeros in front."""
    serial: int
    """Counts the packets of the sender up to 65535, and from 0 again; a reply names it."""
    body: Body
    """What it says; `Fragment` for a piece of a longer message."""
    version: int | None = None
    """Of the protocol, 1 to 255, in the header since 2019; `None` for the header of 2013."""

    @property
    def message_id(self) -> int:
        """The number of the message."""
        return self.body.message_id


class JT808Codec:
    """The `packetcore.PacketCodec` of them."""

    def encode(self, packet: JT808Packet, /) -> bytes:
        """A packet as a frame.

        Raises:
            TypeError: it is none.
            ValueError: a field is out of range; the message says which.
        """
        if not isinstance(packet, JT808Packet):
            raise TypeError(f"only a JT808Packet can be sent, not {packet!r}")
        body, version = packet.body.encode(packet.version), packet.version
        if len(body) > MAX_BODY:
            raise ValueError(f"a body of {len(body)} bytes exceeds {MAX_BODY}: fragments.split() cuts it")
        attributes, place = len(body), b""
        if isinstance(packet.body, Fragment):
            _check_place(packet.body.total, packet.body.index)
            attributes |= _FRAGMENTED
            place = pack("a fragment", _PLACE, packet.body.total, packet.body.index)
        if version is None:
            phone = to_bcd("the phone number", packet.phone, 6)
            header = pack("a header", _HEADER, packet.message_id, attributes, phone, packet.serial)
        else:
            phone = to_bcd("the phone number", packet.phone, 10)
            attributes |= _VERSIONED
            header = pack("a header", _HEADER_2019, packet.message_id, attributes, version, phone, packet.serial)
        return header + place + body

    def decode(self, frame: bytes, /) -> JT808Packet:
        """The packet in a frame.

        Raises:
            ValueError: there is none in it; the message says why.
        """
        message_id, attributes = unpack_first("a header", _ATTRIBUTES, frame)
        if attributes & _RESERVED:
            raise ValueError(f"attributes {attributes:04X}: bit 15 is reserved")
        if attributes & _ENCRYPTION:
            raise ValueError(f"attributes {attributes:04X}: the body is encrypted, and there is no key")
        version: int | None = None
        if attributes & _VERSIONED:
            _, _, version, phone, serial = unpack_first("a header of 2019", _HEADER_2019, frame)
            at = _HEADER_2019.size
        else:
            _, _, phone, serial = unpack_first("a header", _HEADER, frame)
            at = _HEADER.size
        digits = from_bcd("the phone number", phone)
        total = index = 0
        if attributes & _FRAGMENTED:
            total, index = unpack_first("the place of a fragment", _PLACE, frame, at)
            _check_place(total, index)
            at += _PLACE.size
        data, size = frame[at:], attributes & MAX_BODY
        if len(data) != size:
            raise ValueError(f"the header says {size} bytes of body, and {len(data)} came")
        if attributes & _FRAGMENTED:
            return JT808Packet(digits, serial, Fragment(message_id, total, index, data), version)
        return JT808Packet(digits, serial, decode_body(message_id, data, version), version)


def answers(asked: JT808Packet, reply: JT808Packet) -> bool:
    """Whether a packet is the reply to another: it names its serial number."""
    match reply.body:
        case TerminalReply() | PlatformReply() as body:
            return (body.serial, body.answered) == (asked.serial, asked.message_id)
        case RegistrationReply(serial=serial) | ParameterReply(serial=serial):
            # 8100 answers 0100, and 0104 answers 8104.
            return serial == asked.serial and asked.message_id == reply.message_id ^ 0x8000
    return False


def _check_place(total: int, index: int) -> None:
    if not 1 <= index <= total:
        raise ValueError(f"fragment {index} of {total}: they count from 1 to their total")
