"""SLIP: IP over serial lines, and much else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore.framings._framing import MAX_FRAME, Decoder, check_int
from packetcore.framings._implementation import Stuffing, StuffingDecoder

_RULES = Stuffing(0xC0, 0xDB, {0xC0: 0xDC, 0xDB: 0xDD}, None, opens=False)


@dataclass(frozen=True, slots=True)
class SLIP:
    """A frame and C0; in it, C0 is sent as DB DC and DB as DB DD. No check.

    Source: RFC 1055. As it advises, a C0 is sent before each frame too, which ends what noise
    there was; none is needed to receive.

    C0s with nothing between them are nothing, and an empty frame cannot be sent. A DB that
    neither DC nor DD follows is BAD_ESCAPE; the RFC's own code would take the byte as it is.
    A decoder holds at most `2 * max_frame + 1` bytes.
    """

    resynchronises: ClassVar[bool] = True

    encode = staticmethod(_RULES.encode)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return StuffingDecoder(_RULES, max_frame)
