"""The outer layer of the format of the .NET library, and of `packetcore.Packet`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore.framings._framing import MAX_FRAME, Decoder, check_int
from packetcore.framings._implementation import Stuffing, StuffingDecoder

_RULES = Stuffing(0xFE, 0xFD, {0xFE: 1, 0xFD: 2}, None)


@dataclass(frozen=True, slots=True)
class FEFD:
    """FE, the frame, FE; in it, FE is sent as FD 01 and FD as FD 02.

    Source: the wire format in `packetcore/_codec.py`, of which this is what stands around header
    and payload: `decode(FEFD().encode(header + payload))` is a packet. The header's length field
    is not looked at.

    Two frames may share a flag, flags with nothing between them are nothing, and bytes before
    the first flag are NOISE. An FD that neither 01 nor 02 follows is BAD_ESCAPE. A decoder holds
    at most `2 * max_frame + 1` bytes.
    """

    resynchronises: ClassVar[bool] = True

    encode = staticmethod(_RULES.encode)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return StuffingDecoder(_RULES, max_frame)
