"""COBS: zeros taken out of a frame, so that a zero can end it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore._reasons import Reason
from packetcore.framings._framing import MAX_FRAME, Decoder, Frames, check_int, frame_bytes
from packetcore.framings._runs import RunDecoder

ZERO = b"\x00"
BLOCK = 254
"""The most bytes that a block holds; its code is then FF, and no zero stands behind it."""
FULL = 0xFF

CODES = [bytes([size + 1]) for size in range(BLOCK + 1)]
"""The code in front of a block of so many bytes."""


def blocks(frame: bytes) -> list[bytes]:
    """The blocks of a frame, each with its code; the last may be full."""
    pieces = frame.split(ZERO)
    if len(frame) < BLOCK:
        return [CODES[len(piece)] + piece for piece in pieces]
    found: list[bytes] = []
    for piece in pieces:
        at = 0
        while len(piece) - at >= BLOCK:
            found.append(CODES[BLOCK] + piece[at : at + BLOCK])
            at += BLOCK
        found.append(CODES[len(piece) - at] + piece[at:])
    # An end behind a full block needs no code of its own.
    if found[-1] == CODES[0] and len(found) > 1 and len(pieces[-1]) >= BLOCK:
        found.pop()
    return found


def longest_run(max_frame: int) -> int:
    """The most bytes, without the zero, that a frame of at most `max_frame` takes."""
    return max_frame + max_frame // BLOCK + 1


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

    def encode(self, frame: bytes, /) -> bytes:
        return b"".join(blocks(frame_bytes(frame))) + ZERO

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return COBSDecoder(ZERO, longest_run(max_frame), max_frame, opens=False)


class COBSDecoder(RunDecoder):
    """Runs between zeros, as COBS."""

    __slots__ = ()

    def _take(self, runs: list[bytes], events: Frames) -> None:
        max_frame, bound = self._max_frame, self._bound
        for run in runs:
            frame = unstuff(run) if len(run) <= bound else None
            if frame is None:
                self._refuse(run, Reason.BAD_LENGTH, events)
            elif len(frame) > max_frame:
                self._refuse(run, Reason.TOO_LONG, events)
            else:
                events.append(frame)


def unstuff(run: bytes) -> bytes | None:
    """The frame of a run that is not empty; `None` where a code reaches past its end."""
    size = len(run)
    at = run[0]
    if at == size and at != FULL:
        return run[1:]
    if FULL in run:
        return unstuff_long(run)
    frame = bytearray(run)
    while at < size:
        code = frame[at]
        frame[at] = 0
        at += code
    return bytes(frame[1:]) if at == size else None


def unstuff_long(run: bytes) -> bytes | None:
    """The same where blocks may be full."""
    parts: list[bytes] = []
    at, size = 0, len(run)
    while at < size:
        code = run[at]
        parts.append(run[at + 1 : at + code])
        at += code
        if code != FULL and at < size:
            parts.append(ZERO)
    return b"".join(parts) if at == size else None
