"""Frames whose first bytes tell their length to a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings._framing import MAX_FRAME, Decoder, Frames, check_int, frame_bytes
from packetcore.framings._lengths import LengthDecoder

LengthFunction = Callable[[bytes], int | None]


@dataclass(frozen=True, slots=True)
class LengthOf:
    """Frames whose length a function knows from how they begin.

    Modbus/TCP ("MODBUS Messaging on TCP/IP Implementation Guide" V1.0b, section 3.1.3), whose bytes
    4 and 5 count what follows them:

        LengthOf(lambda prefix: 6 + int.from_bytes(prefix[4:6], "big"), least=6)

    Args:
        length_of: takes the first bytes of a frame and gives the length of the whole, or `None`
            if it takes more to tell. It should rest on them alone: how a stream is cut is none of its
            business, and it is never given more bytes than it takes.
        least: how many bytes it is given at first, at least 1. It is called again for each more.
        most: with how many it has to know.

    Raises:
        ValueError: `least` is below 1 or `most` below `least`.
        TypeError: `length_of` cannot be called.

    A length below 1 or above `max_frame`, none at all from `most` bytes, and an exception are
    BAD_LENGTH: one `Malformed` for the bytes that the function was given. What follows until the
    stream ends is swallowed and counted as NOISE. A decoder holds at most `max_frame` bytes, or
    `most` if that is more.
    """

    length_of: LengthFunction
    least: int = 1
    most: int = 256

    resynchronises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not callable(self.length_of):
            raise TypeError(f"length_of is a function, not {self.length_of.__class__.__name__}")
        check_int("least", self.least, 1)
        check_int("most", self.most, self.least)

    def encode(self, frame: bytes, /) -> bytes:
        frame = frame_bytes(frame)
        for size in range(self.least, min(self.most, len(frame)) + 1):
            length = self.length_of(frame[:size])
            if length is not None:
                if length != len(frame):
                    raise ValueError(f"the frame has {len(frame)} bytes, and its first {size} tell of {length}")
                return frame
        raise ValueError(f"the first bytes of the frame ({len(frame)} bytes) do not tell its length")

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return LengthOfDecoder(self, max_frame)


class LengthOfDecoder(LengthDecoder):
    """Asks how long the frame is, then waits for so many bytes."""

    __slots__ = ("_asked", "_framing", "_length", "_max_frame")

    def __init__(self, framing: LengthOf, max_frame: int) -> None:
        super().__init__(max(max_frame, framing.most))
        self._framing = framing
        self._max_frame = max_frame
        self._asked = 0  # how many bytes of what is held the function was given in vain
        self._length = 0  # how long the frame is of which they are the first; 0 if not known

    def feed_eof(self) -> list[Malformed]:
        self._asked = self._length = 0
        return super().feed_eof()

    def _cut(self, data: bytes, events: Frames) -> int:
        at, end = 0, len(data)
        while at < end:
            length = self._length or self._ask(data, at, end)
            if length is None:
                self._need = max(self._framing.least, end - at + 1)
                break
            if not 1 <= length <= self._max_frame:
                events.append(Malformed.of(Reason.BAD_LENGTH, data[at : at + self._asked]))
                self._lost = True
                return at + self._asked
            if at + length > end:
                self._need = self._length = length
                break
            events.append(data[at : at + length])
            at += length
            self._asked = self._length = 0
        return at

    def _ask(self, data: bytes, at: int, end: int) -> int | None:
        """What the function says of the frame at `at`: 0 for no length, `None` if it takes more to
        tell."""
        least, most, length_of = self._framing.least, self._framing.most, self._framing.length_of
        for size in range(max(least, self._asked + 1), min(most, end - at) + 1):
            self._asked = size
            try:
                length = length_of(data[at : at + size])
            except Exception:
                return 0
            if length is not None:
                return length if isinstance(length, int) else 0
        return 0 if self._asked == most else None
