"""COBS and COBS/R in Python: zeros taken out of a frame, so that a zero can end it."""

from __future__ import annotations

from packetcore._reasons import Reason
from packetcore.framings._framing import Data, Frames, frame_bytes
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


def encode_cobs(frame: Data) -> bytes:
    """A frame as COBS, and a zero."""
    return b"".join(blocks(frame_bytes(frame))) + ZERO


def encode_cobsr(frame: Data) -> bytes:
    """A frame as COBS/R, and a zero."""
    found = blocks(frame_bytes(frame))
    last = found[-1]
    if len(last) > 1 and last[-1] >= last[0]:
        found[-1] = last[-1:] + last[1:-1]
    return b"".join(found) + ZERO


class COBSDecoder(RunDecoder):
    """Runs between zeros, as COBS or COBS/R."""

    __slots__ = ("_unstuff",)

    def __init__(self, max_frame: int, is_reduced: bool = False) -> None:
        super().__init__(ZERO, longest_run(max_frame), max_frame, opens=False)
        self._unstuff = restore if is_reduced else unstuff

    def _take(self, runs: list[bytes], events: Frames) -> None:
        max_frame, bound, unstuff = self._max_frame, self._bound, self._unstuff
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
