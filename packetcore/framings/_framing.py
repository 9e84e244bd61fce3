"""What a framing offers: how a frame becomes bytes, and a decoder for a stream of them."""

from __future__ import annotations

from typing import Protocol

from packetcore._events import Malformed

MAX_FRAME = 1 << 20
"""1 MiB: far above what devices send in one frame, and small enough to be held for a peer."""

Data = bytes | bytearray | memoryview
Frames = list[bytes | Malformed]


class Decoder(Protocol):
    """Takes the bytes of one stream, however they are cut, and gives the frames they hold."""

    @property
    def pending(self) -> int:
        """Bytes fed that no event speaks for yet; 0 between frames. Bytes that are counted and
        not held count up to the bound of what is held."""

    def feed(self, data: Data, /) -> Frames:
        """Take the next bytes of the stream and give what they complete, in its order.

        Whatever the bytes are, it does not raise.
        """

    def feed_eof(self) -> list[Malformed]:
        """Say that the stream has ended: one `Malformed` if anything is pending. The decoder is
        then as new."""

    def feed_timeout(self) -> list[Malformed]:
        """Say that what is pending has been so for too long: give it if it is no frame begun,
        which leaves nothing pending; give nothing where a frame was begun."""


class Framing(Protocol):
    """Where a frame begins and ends in a stream of bytes."""

    @property
    def resynchronises(self) -> bool:
        """Whether it finds the next frame behind damage. Where not, nothing is delivered behind
        the first `Malformed`."""

    def encode(self, frame: bytes, /) -> bytes:
        """One frame as the bytes to send.

        Raises:
            TypeError: `frame` is not bytes.
            ValueError: the framing cannot carry it.
        """

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        """A new decoder for one stream.

        Args:
            max_frame: the longest frame that is handed out, in bytes, at least 1.
        """


def as_bytes(data: Data) -> bytes:
    """What is to be fed or sent, as bytes that nobody can change."""
    return data if isinstance(data, bytes) else bytes(memoryview(data))


def frame_bytes(frame: Data) -> bytes:
    """The frame given to `encode`, or a TypeError."""
    if frame.__class__ is bytes:  # as nearly always
        return frame
    if not isinstance(frame, bytes | bytearray | memoryview):
        raise TypeError(f"encode() takes bytes, not {frame.__class__.__name__}")
    return as_bytes(frame)


def check_int(name: str, value: int, least: int, most: int | None = None) -> None:
    """Raise for a constructor's argument that is no int or out of range."""
    if not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {value.__class__.__name__}")
    if most is None:
        if value < least:
            raise ValueError(f"{name}={value} is below {least}")
    elif not least <= value <= most:
        raise ValueError(f"{name}={value} is out of range {least} to {most}")
