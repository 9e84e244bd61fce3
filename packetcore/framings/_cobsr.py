"""COBS/R: COBS whose last code may be the last byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore.framings._framing import MAX_FRAME, Decoder, check_int
from packetcore.framings._implementation import COBSDecoder, encode_cobsr


@dataclass(frozen=True, slots=True)
class COBSR:
    """COBS, reduced: the last byte of a frame stands for its last code, if it is not less.

    So a frame often takes no more than its own bytes and the zero that ends it. What `COBS`
    encodes is not always what this decodes: a code past the end is a last byte here.

    Source: Craig McQueen, "COBS/R", the introduction in the documentation of his package `cobs`
    (pythonhosted.org/cobs/cobsr-intro.html), 2010.

    Every run without a zero is the run of some frame, so that nothing but its length can be
    wrong with one. A decoder holds at most `max_frame + max_frame // 254 + 2` bytes.
    """

    resynchronises: ClassVar[bool] = True

    encode = staticmethod(encode_cobsr)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return COBSDecoder(max_frame, True)
