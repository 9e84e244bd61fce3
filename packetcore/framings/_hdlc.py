"""HDLC as PPP uses it on asynchronous lines."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

from packetcore.framings._checks import check_named
from packetcore.framings._framing import MAX_FRAME, Decoder, check_int
from packetcore.framings._implementation import Stuffing, StuffingDecoder


@functools.cache
def _rules(check: Literal["fcs16", "fcs32"] | None) -> Stuffing:
    return Stuffing(0x7E, 0x7D, {0x7E: 0x5E, 0x7D: 0x5D}, check_named(check), xor=0x20)


@dataclass(frozen=True, slots=True)
class HDLC:
    """7E, the frame and its check, 7E; in them, 7E is sent as 7D 5E and 7D as 7D 5D.

    Source: RFC 1662, section 4 and appendix C. Address and control fields are part of the
    frame. Any byte may come escaped, as 7D and itself XOR 20.

    Args:
        check: "fcs16", "fcs32", each with its least byte first, or `None`.

    Raises:
        ValueError: `check` is none of these.

    Two frames may share a flag. The abort sequence 7D 7E makes what came before it a
    BAD_ESCAPE; a frame shorter than its check is TOO_SHORT, one whose check is wrong
    BAD_CHECK. A decoder holds at most `2 * (max_frame + 4) + 1` bytes.
    """

    check: Literal["fcs16", "fcs32"] | None = "fcs16"

    resynchronises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.check not in ("fcs16", "fcs32", None):
            raise ValueError(f"check={self.check!r} is neither 'fcs16' nor 'fcs32' nor None")

    def encode(self, frame: bytes, /) -> bytes:
        return _rules(self.check).encode(frame)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return StuffingDecoder(_rules(self.check), max_frame)
