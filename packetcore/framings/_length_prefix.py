"""Frames with their length in front."""

from __future__ import annotations

from dataclasses import dataclass

from packetcore.framings._framing import MAX_FRAME, Decoder, check_int, frame_bytes
from packetcore.framings._implementation import LengthPrefixDecoder
from packetcore.framings._prefix import VARINT, ByteOrder, Layout, Size

_FAR = 1 << 31
"""Above what a header can have, and what is added to a length."""

_SIZES = (1, 2, 3, 4, 8, "varint")


@dataclass(frozen=True, slots=True)
class LengthPrefix:
    """A header whose last field is the length of what follows it.

    Source: Netty's `LengthFieldBasedFrameDecoder`, whose `lengthFieldOffset`, `lengthFieldLength` and
    `lengthAdjustment` are `offset`, `size` and `adjust`; a varint is that of Protocol Buffers
    (LEB128): seven bits a byte, the least first, at most 64 bits in 10 bytes.

    Args:
        size: how many bytes the length field has: 1, 2, 3, 4, 8 or "varint".
        byteorder: of the length field, "big" or "little"; no matter for a varint.
        offset: how many bytes stand before it, `magic` among them. With a magic, 0 means that it
            stands right behind that.
        adjust: what is added to the field to get the number of bytes that follow it.
        includes_itself: whether the field counts its own bytes too. If it counts those before
            it as well, `adjust` is `-offset`.
        strip: whether a frame is what follows the field, or all of it.
        magic: the bytes that each frame begins with. Others before them are NOISE.

    Raises:
        ValueError: an argument is none of these.

    `encode` takes what a decoder gives. With `strip` that is what follows the field, and it
    writes the magic and the field; other bytes before the field it cannot know, and refuses where
    there are any: use `strip=False`. Without `strip` it takes the frame as it is to be sent, and
    refuses one whose field is wrong.

    A length below 0, as `adjust` and `includes_itself` may give it, and a varint that does not end
    are BAD_LENGTH, a frame above `max_frame` is TOO_LONG: one `Malformed` for the bytes up to
    the end of the field. With a magic, the next one is looked for behind them. Without, what
    follows until the stream ends is swallowed and counted as NOISE. A wrong length that is
    possible costs up to `max_frame` bytes of the frames behind it.

    A decoder holds at most `offset`, the field and `max_frame` bytes. What it has pending when
    it gives a NOISE is the magic, whose last byte has just come.
    """

    size: Size = 4
    byteorder: ByteOrder = "big"
    offset: int = 0
    adjust: int = 0
    includes_itself: bool = False
    strip: bool = True
    magic: bytes = b""

    def __post_init__(self) -> None:
        if self.size not in _SIZES:
            raise ValueError(f"size={self.size!r} is none of {', '.join(map(repr, _SIZES))}")
        if self.byteorder not in ("big", "little"):
            raise ValueError(f"byteorder={self.byteorder!r} is neither 'big' nor 'little'")
        check_int("offset", self.offset, 0, _FAR)
        check_int("adjust", self.adjust, -_FAR, _FAR)
        if not isinstance(self.magic, bytes):
            raise TypeError(f"magic is bytes, not {self.magic.__class__.__name__}")
        if 0 < self.offset < len(self.magic):
            raise ValueError(f"offset={self.offset} lies within the magic, which has {len(self.magic)} bytes")

    @property
    def resynchronises(self) -> bool:
        """Whether there is a magic."""
        return bool(self.magic)

    @property
    def _before(self) -> int:
        """How many bytes stand before the length field."""
        return self.offset or len(self.magic)

    def encode(self, frame: bytes, /) -> bytes:
        frame = frame_bytes(frame)
        if self.strip:
            if unknown := self._before - len(self.magic):
                raise ValueError(f"the {unknown} bytes before the length field are not known: strip=False")
            return self.magic + self._field(len(frame)) + frame
        if not frame.startswith(self.magic):
            raise ValueError(
                f"the frame begins with {frame[: len(self.magic)]!r} and not with the magic {self.magic!r}"
            )
        layout = Layout(self.size, self.byteorder, self._before, self.adjust, self.includes_itself)
        found = layout.read(frame, 0, len(frame))
        if found is None:
            raise ValueError(f"a frame of {len(frame)} bytes ends before its length field does")
        following, behind = found
        if following != len(frame) - behind:
            raise ValueError(f"the length field says that {following} bytes follow, not {len(frame) - behind}")
        return frame

    def _field(self, following: int) -> bytes:
        """The length field for so many bytes behind it."""
        value = following - self.adjust
        if self.size == "varint":
            for size in range(1, VARINT + 1):
                counted = value + size if self.includes_itself else value
                if 0 <= counted < 1 << min(7 * size, 64):
                    bits = [counted >> shift & 0x7F for shift in range(0, 7 * size, 7)]
                    return bytes([*(each | 0x80 for each in bits[:-1]), bits[-1]])
            raise ValueError(f"a frame of {following} bytes has no length field: {value} is no varint")
        value += self.size if self.includes_itself else 0
        if not 0 <= value < 1 << 8 * self.size:
            most = (1 << 8 * self.size) - 1
            raise ValueError(f"a frame of {following} bytes has no length field: {value} is out of range 0 to {most}")
        return value.to_bytes(self.size, self.byteorder)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return LengthPrefixDecoder(
            self.size,
            self.byteorder,
            self._before,
            self.adjust,
            self.includes_itself,
            self.strip,
            self.magic,
            max_frame,
        )
