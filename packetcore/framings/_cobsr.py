"""COBS/R: COBS whose last code may be the last byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore._reasons import Reason
from packetcore.framings._cobs import FULL, ZERO, blocks, longest_run, unstuff
from packetcore.framings._framing import MAX_FRAME, Decoder, Frames, check_int, frame_bytes
from packetcore.framings._runs import RunDecoder


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

    def encode(self, frame: bytes, /) -> bytes:
        found = blocks(frame_bytes(frame))
        last = found[-1]
        if len(last) > 1 and last[-1] >= last[0]:
            found[-1] = last[-1:] + last[1:-1]
        return b"".join(found) + ZERO

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return COBSRDecoder(ZERO, longest_run(max_frame), max_frame, opens=False)


class COBSRDecoder(RunDecoder):
    """Runs between zeros, as COBS/R."""

    __slots__ = ()

    def _take(self, runs: list[bytes], events: Frames) -> None:
        max_frame, bound = self._max_frame, self._bound
        for run in runs:
            if len(run) <= bound and len(frame := restore(run)) <= max_frame:
                events.append(frame)
            else:
                self._refuse(run, Reason.TOO_LONG, events)


def restore(run: bytes) -> bytes:
    """The frame of a run that is not empty."""
    frame = unstuff(run)
    if frame is not None:
        return frame
    at, size = 0, len(run)
    parts: list[bytes] = []
    while True:
        code = run[at]
        parts.append(run[at + 1 : at + code])
        if at + code > size:
            parts.append(run[at : at + 1])
            return b"".join(parts)
        at += code
        if code != FULL:
            parts.append(ZERO)
