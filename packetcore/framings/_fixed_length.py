"""Frames that are all of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from packetcore.framings._framing import MAX_FRAME, Decoder, Frames, check_int, frame_bytes
from packetcore.framings._lengths import LengthDecoder


@dataclass(frozen=True, slots=True)
class FixedLength:
    """Frames of `size` bytes, one behind the other.

    Source: records of one length, as in Netty's `FixedLengthFrameDecoder`.

    Args:
        size: how many bytes each frame has, at least 1.

    Raises:
        ValueError: `size` is below 1; from `decoder`, `max_frame` is below `size`.

    It cannot tell damage from data: behind a byte too many or too few every frame is wrong. A
    decoder holds less than `size` bytes.
    """

    size: int

    resynchronises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_int("size", self.size, 1)

    def encode(self, frame: bytes, /) -> bytes:
        frame = frame_bytes(frame)
        if len(frame) != self.size:
            raise ValueError(f"a frame has {self.size} bytes, not {len(frame)}")
        return frame

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, self.size)
        return FixedLengthDecoder(self.size)


class FixedLengthDecoder(LengthDecoder):
    """Cuts after every so many bytes."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._size = self._need = size

    def _cut(self, data: bytes, events: Frames) -> int:
        size = self._size
        whole = len(data) - len(data) % size
        events += [data[at : at + size] for at in range(0, whole, size)]
        return whole
