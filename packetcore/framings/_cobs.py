"""COBS: zeros taken out of a frame, so that a zero can end it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore.framings._framing import MAX_FRAME, Decoder, check_int
from packetcore.framings._implementation import COBSDecoder, encode_cobs


@dataclass(frozen=True, slots=True)
class COBS:
    """Consistent overhead byte stuffing: a frame, without its zeros, and a zero.

    Each code byte n stands for n - 1 bytes and a zero, FF for 254 bytes and none; the zero at the
    very end is not meant. A frame of n bytes, none included, takes at most n + n // 254 + 2.

    Source: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions
    on Networking 7(2), 1999.

    Zeros with nothing between them are nothing. A code that reaches past its frame's end is
    BAD_LENGTH. A decoder holds at most `max_frame + max_frame // 254 + 2` bytes.
    """

    resynchronises: ClassVar[bool] = True

    encode = staticmethod(encode_cobs)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return COBSDecoder(max_frame)
