"""Frames with their length in front."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings._framing import MAX_FRAME, Decoder, Frames, check_int, frame_bytes
from packetcore.framings._lengths import LengthDecoder

VARINT = 10
"""The most bytes of a varint: 64 bits, seven in each."""

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
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

    size: int | Literal["varint"] = 4
    byteorder: Literal["big", "little"] = "big"
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
        check_int("offset", self.offset, 0)
        if not isinstance(self.adjust, int):
            raise TypeError(f"adjust is an int, not {self.adjust.__class__.__name__}")
        if not isinstance(self.magic, bytes):
            raise TypeError(f"magic is bytes, not {self.magic.__class__.__name__}")
        if 0 < self.offset < len(self.magic):
            raise ValueError(f"offset={self.offset} lies within the magic, which has {len(self.magic)} bytes")

    @property
    def resynchronises(self) -> bool:
        """Whether there is a magic."""
        return bool(self.magic)

    def encode(self, frame: bytes, /) -> bytes:
        frame = frame_bytes(frame)
        before = self.offset or len(self.magic)
        if self.strip:
            if before > len(self.magic):
                raise ValueError(
                    f"the {before - len(self.magic)} bytes before the length field are not known: strip=False"
                )
            return self.magic + self._field(len(frame)) + frame
        if not frame.startswith(self.magic):
            raise ValueError(
                f"the frame begins with {frame[: len(self.magic)]!r} and not with the magic {self.magic!r}"
            )
        layout = Layout(self)
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
        return LengthPrefixDecoder(self, max_frame)


class Layout:
    """Where in a frame its length stands, and how it is read."""

    __slots__ = ("before", "head", "read")

    before: int
    """How many bytes stand before the length field."""
    head: int
    """How many bytes there are up to its end, at most."""
    read: Callable[[bytes, int, int], tuple[int, int] | None]
    """For data, where in it a frame begins, and where it ends: how many bytes follow the length
    field, below 0 where it is impossible, and where they begin; `None` if it is incomplete."""

    def __init__(self, framing: LengthPrefix) -> None:
        before = self.before = framing.offset or len(framing.magic)
        size, adjust = framing.size, framing.adjust
        if size == "varint":
            self.head = before + VARINT
            counts = framing.includes_itself

            def read(data: bytes, at: int, end: int) -> tuple[int, int] | None:
                return read_varint(data, at + before, end, adjust, counts)

            self.read = read
            return
        head = self.head = before + size
        if framing.includes_itself:
            adjust -= size
        order = framing.byteorder

        if size in _CODES:
            unpack = struct.Struct(f"{'>' if order == 'big' else '<'}{before}x{_CODES[size]}").unpack_from

            def read(data: bytes, at: int, end: int) -> tuple[int, int] | None:
                return (unpack(data, at)[0] + adjust, at + head) if end - at >= head else None

        else:

            def read(data: bytes, at: int, end: int) -> tuple[int, int] | None:
                behind = at + head
                return (int.from_bytes(data[at + before : behind], order) + adjust, behind) if behind <= end else None

        self.read = read


def read_varint(data: bytes, at: int, end: int, adjust: int, counts_itself: bool) -> tuple[int, int] | None:
    """Read a varint at `at`, as `Layout.read` does."""
    value = shift = 0
    for place in range(at, min(at + VARINT, end)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                return -1, place + 1
            return value + adjust - (place + 1 - at if counts_itself else 0), place + 1
        shift += 7
    return None if end < at + VARINT else (-1, at + VARINT)


class LengthPrefixDecoder(LengthDecoder):
    """Reads the length, then waits for so many bytes."""

    __slots__ = ("_layout", "_longest", "_magic", "_strip")

    def __init__(self, framing: LengthPrefix, max_frame: int) -> None:
        self._layout = layout = Layout(framing)
        self._magic = framing.magic
        self._strip = framing.strip
        self._longest = max_frame
        super().__init__(layout.head + max_frame, len(framing.magic) or 1)

    def _cut(self, data: bytes, events: Frames) -> int:
        magic, read, strip, longest, before = (
            self._magic,
            self._layout.read,
            self._strip,
            self._longest,
            self._layout.before,
        )
        at, end = 0, len(data)
        while at < end:
            if magic:
                if not data.startswith(magic, at):
                    at = self._skip(data, at)
                    if end - at < len(magic):
                        self._need = end - at + 1
                        break
                events += self._dropped.take()
            found = read(data, at, end)
            if found is None:
                self._need = max(before, end - at) + 1
                break
            following, behind = found
            stop = behind + following
            first = behind if strip else at
            if following < 0 or stop - first > longest:
                reason = Reason.BAD_LENGTH if following < 0 else Reason.TOO_LONG
                events.append(Malformed.of(reason, data[at:behind]))
                at = behind
                if magic:
                    continue
                self._lost = True
                break
            if stop > end:
                self._need = stop - at
                break
            events.append(data[first:stop])
            at = stop
        return at

    def _skip(self, data: bytes, at: int) -> int:
        """Drop what comes before the next magic, or before what may be the beginning of one."""
        magic = self._magic
        found = data.find(magic, at)
        if found < 0:
            found = max(at, len(data) - len(magic) + 1)
            while not magic.startswith(data[found:]):
                found += 1
        self._dropped.add(data[at:found])
        return found
